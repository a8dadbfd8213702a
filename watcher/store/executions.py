"""The states of executions, accounts and sinks: written under their guards, and read back when an owner begins."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, case, func, insert, select, update

from watcher.domain.models import ExecutionRecord
from watcher.store.backoff_state import BACKOFF_COLUMNS, backoff_of
from watcher.store.leases import expect_written
from watcher.store.protocol import AccountRecord, ExecutionChange, Lease, SinkRecord, SourceChange
from watcher.store.row_mapping import RECORD_COLUMNS, AnyRow, execution_id, execution_key, execution_row, record_of
from watcher.store.source_ids import Source, SourceNumbers, pipeline, pipeline_id
from watcher.store.tables import execution, source


@dataclass(frozen=True, slots=True)
class PollTimes:
    """When unchanged executions of a leased account were last polled, in microseconds."""

    lease: Lease
    polled_at: Mapping[str, int]


LOADED_COUNT = 5_000
"""Executions asked for in one statement; SQLite binds at most 32,766 values."""

_RECORDS = select(*RECORD_COLUMNS).where(
    execution.c.account_id == bindparam("of_account"), execution.c.execution.in_(bindparam("keys", expanding=True))
)
_OPEN = (
    select(*RECORD_COLUMNS)
    .where(
        execution.c.pipeline_id == bindparam("of_pipeline"),  # which has one account only
        execution.c.ended_at.is_(None),
        execution.c.execution > bindparam("after"),
    )
    .order_by(execution.c.execution)
    .limit(LOADED_COUNT)
)
_NEW: dict[str, BindParameter[Any]] = {column.name: bindparam(f"new_{column.name}") for column in execution.c}
_INSERT = insert(execution).values(_NEW)
_UPDATE = (
    update(execution)
    .where(
        execution.c.account_id == bindparam("new_account_id"),
        execution.c.execution == bindparam("new_execution"),
        execution.c.sequence == bindparam("before"),
    )
    .values(
        {name: value for name, value in _NEW.items() if name not in {"account_id", "execution", "stream"}}
        | {"stream": func.coalesce(bindparam("new_stream"), execution.c.stream)}
    )
)
_SAVE_POLL_TIMES = (
    update(execution)
    .where(
        execution.c.account_id == bindparam("of_account"),
        execution.c.execution == bindparam("of_execution"),
        execution.c.looked_at < bindparam("at"),
    )
    .values(looked_at=bindparam("at"))
)
_SOURCE = (
    update(source)
    .where(source.c.id == bindparam("of_source"), source.c.sequence == bindparam("before"))
    .values(sequence=bindparam("new_sequence"), state=bindparam("new_state"))
)


def write_executions(connection: Connection, changes: Iterable[ExecutionChange], *, numbers: SourceNumbers) -> None:
    """Write executions, each from the sequence its writer believes recorded, or new if that is `None`.

    A new one that has a row by now fails on its key, which means the same as a guard that does not hold.
    """
    added: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for change in changes:
        row = _row(change, numbers=numbers)
        if change.before is None:
            added.append(row)
        else:
            changed.append(row | {"before": change.before})
    # Sorted by key, so that two writers never wait for each other; stable, so one execution's changes keep their order.
    if added:
        connection.execute(_INSERT, sorted(added, key=_key))
    if changed:
        written = connection.execute(_UPDATE, sorted(changed, key=_key))
        expect_written(written.rowcount, wanted=len(changed))


def _row(change: ExecutionChange, *, numbers: SourceNumbers) -> dict[str, Any]:
    account = change.lease.name
    return execution_row(
        change.known,
        account_id=numbers[Source("account", account)],
        pipeline_id=numbers[pipeline(account, change.known.pipeline)],
        stream=change.entries[0].event.stream if change.entries else None,
    )


def _key(row: Mapping[str, Any]) -> tuple[int, bytes]:
    return row["new_account_id"], row["new_execution"]


def write_sources(connection: Connection, changes: Iterable[SourceChange], *, numbers: SourceNumbers) -> None:
    """Write the states of accounts and sinks, each from the sequence its writer believes recorded."""
    rows = [_source_row(change, numbers=numbers) for change in changes]
    if rows:
        written = connection.execute(_SOURCE, sorted(rows, key=lambda row: row["of_source"]))
        expect_written(written.rowcount, wanted=len(rows))


def _source_row(change: SourceChange, *, numbers: SourceNumbers) -> dict[str, Any]:
    return {
        "of_source": numbers[Source(change.lease.kind, change.lease.name)],
        "before": change.before,
        "new_sequence": change.sequence,
        "new_state": change.state,
    }


def write_poll_times(connection: Connection, several: Iterable[PollTimes], *, numbers: SourceNumbers) -> None:
    """Keep the latest poll of each execution; one without a row has nothing to keep."""
    rows = [
        {"of_account": numbers[Source("account", poll_times.lease.name)], "of_execution": execution_key(key), "at": at}
        for poll_times in several
        for key, at in poll_times.polled_at.items()
    ]
    if rows:
        rows.sort(key=lambda row: (row["of_account"], row["of_execution"]))
        connection.execute(_SAVE_POLL_TIMES, rows)


def load_account(connection: Connection, *, account_id: int, now: int) -> AccountRecord:
    """Return what is recorded of an account itself, its pause as of `now`."""
    columns = (source.c.sequence, source.c.state, *BACKOFF_COLUMNS)
    row = connection.execute(select(*columns).where(source.c.id == account_id)).one()
    return AccountRecord(row.sequence, row.state, backoff_of(row, now=now))


def load_executions(
    connection: Connection, *, account_id: int, executions: Collection[str], now: int
) -> dict[str, ExecutionRecord]:
    """Return what is recorded of some executions of an account, by id, no poll of it later than `now`."""
    pipelines = _pipelines(connection)
    found: dict[str, ExecutionRecord] = {}
    wanted = iter(sorted(executions))
    while part := tuple(islice(wanted, LOADED_COUNT)):
        names = {execution_key(name): name for name in part}  # the caller's: 100,000 ids take 9 MB
        for row in connection.execute(_RECORDS, {"of_account": account_id, "keys": list(names)}).all():
            name = names[row.execution]
            found[name] = record_of(row, name=name, pipelines=pipelines, now=now)
    return found


def load_open(connection: Connection, *, pipeline_ids: Iterable[int], now: int) -> list[ExecutionRecord]:
    """Return the executions of some pipelines that have not ended, no poll of them later than `now`."""
    pipelines = _pipelines(connection)
    return [
        record_of(row, name=execution_id(row.execution), pipelines=pipelines, now=now)
        for pipeline_id in pipeline_ids
        for row in _open_rows(connection, pipeline_id=pipeline_id)
    ]


def _open_rows(connection: Connection, *, pipeline_id: int) -> Iterator[AnyRow]:
    after: bytes | None = b""
    while after is not None:  # in parts, so that not all of the rows are in memory at once
        page = connection.execute(_OPEN, {"of_pipeline": pipeline_id, "after": after}).all()
        yield from page
        after = page[-1].execution if len(page) == LOADED_COUNT else None


def _pipelines(connection: Connection) -> dict[int, str]:
    rows = connection.execute(select(source.c.id, source.c.name).where(source.c.kind == "pipeline"))
    return {row.id: pipeline_id(row.name) for row in rows}


def load_sink(connection: Connection, *, sink_id: int, fingerprint: str, now: int) -> SinkRecord:
    """Return what is recorded of a sink, once its block's fingerprint is noted and it is present again.

    Another block may name another receiver, which has not asked for a pause, nor to be left alone; that something gets
    through to it is still to be seen, so a disabled sink is a failing one from then on.
    """
    same_block = source.c.fingerprint == fingerprint
    state = case((same_block, source.c.state), (source.c.state == "disabled", "failing"), else_=source.c.state)
    values = {"fingerprint": fingerprint, "absent_since": None, "state": state}
    paused_until = case((same_block, source.c.paused_until), else_=None)
    connection.execute(update(source).where(source.c.id == sink_id).values(**values, paused_until=paused_until))
    row = connection.execute(
        select(source.c.sequence, source.c.state, source.c.clock_us, *BACKOFF_COLUMNS).where(source.c.id == sink_id)
    ).one()
    return SinkRecord(row.sequence, row.state, row.clock_us / 1_000_000, backoff_of(row, now=now))
