"""What is recorded of executions, accounts, sinks and pipelines: their names, states, how far lists are read, and more.

An execution is named by its 16 bytes, an account, a pipeline or a sink by its number. A number is given once and never
changed, so each is asked for once. A pause is a length outside and a moment here, for time goes on.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import fields
from functools import lru_cache, partial
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from sqlalchemy import BindParameter, Connection, bindparam, delete, func, insert, select, text, update

from watcher.domain.errors import SequenceConflictError
from watcher.domain.rules import RuleState
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import (
    BackoffChange,
    BackoffState,
    ExecutionChange,
    PipelineChange,
    PollTimes,
    RulesChange,
    SnapshotChange,
    SourceChange,
)
from watcher.store.database import HotStatement
from watcher.store.tables import AnyRow, execution, scan, source, unjudged_end


class Source(NamedTuple):
    """What has events of its own, or deliveries: an account, a sink, or a pipeline (named `account/pipeline`)."""

    kind: str
    name: str


@lru_cache(maxsize=1024)  # asked for with each event
def sink(name: str) -> Source:
    """Return a sink as a source."""
    return Source("sink", name)


@lru_cache(maxsize=1024)
def pipeline(account: str, pipeline_id: str) -> Source:
    """Return a pipeline of an account as a source. Its id is what stands behind the last slash."""
    return Source("pipeline", f"{account}/{pipeline_id}")


def pipeline_id(name: str) -> str:
    """Return the pipeline's id in a pipeline source's name."""
    return name.rpartition("/")[2]


def execution_key(execution: str) -> bytes:
    """Return an execution's id as its 16 bytes; twice as fast as by `UUID`. Raises `ValueError` if it is none."""
    key = bytes.fromhex(execution.replace("-", ""))
    if len(key) != 16:
        raise ValueError("an id has 32 hexadecimal digits")
    return key


def execution_id(key: bytes) -> str:
    """Return the id those 16 bytes stand for; several times faster than by `UUID`."""
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_Numbers = dict[Source, int]

_NUMBER = text("INSERT INTO source (kind, name) VALUES (:kind, :name) ON CONFLICT DO NOTHING")
"""Another process may number the same in this moment."""


class SourceNumbers(dict[Source, int]):
    """Numbers sources and remembers their numbers."""

    def __init__(self, write: Callable[[Callable[[Connection], _Numbers]], Awaitable[_Numbers]]) -> None:
        """Start knowing none. `write` does a piece of work in a transaction of its own."""
        super().__init__()
        self._write = write

    async def provide(self, wanted: set[Source]) -> None:
        """Give a number to each source that has none.

        In a transaction of its own, so that what is remembered here cannot be rolled back with somebody's write.
        """
        self.update(await self._write(partial(_number, wanted=sorted(wanted))))


def _number(connection: Connection, *, wanted: Sequence[Source]) -> _Numbers:
    connection.execute(_NUMBER, [each._asdict() for each in wanted])
    rows = connection.execute(select(source.c.kind, source.c.name, source.c.id))
    return {Source(row.kind, row.name): row.id for row in rows}


AS_KNOWN = ("sequence", "overdue_sequence", "overdue_at", "lost_at", "ended_at", "was_paused", "found_at")
"""Columns of an execution that hold what the field of that name does."""
as_known = attrgetter(*AS_KNOWN)
_NEW_AS_KNOWN = tuple(f"new_{name}" for name in AS_KNOWN)

_COMPACT = json.JSONEncoder(separators=(",", ":"))
_NEW: dict[str, BindParameter[Any]] = {column.name: bindparam(f"new_{column.name}") for column in execution.c}
_INSERT = HotStatement(insert(execution).values(_NEW))
_UPDATE = HotStatement(
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


def write_executions(connection: Connection, changes: Iterable[ExecutionChange], *, numbers: SourceNumbers) -> None:
    """Write executions, each from the sequence its writer believes recorded, or new if that is `None`.

    A new one that has a row by now fails on its key, which means the same as a guard that does not hold.
    """
    added: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for change in changes:
        known = change.known
        row = {
            "new_account_id": numbers[Source("account", change.lease.name)],
            "new_execution": execution_key(known.execution),
            "new_pipeline_id": numbers[pipeline(change.lease.name, known.pipeline)],
            "new_status": known.status,
            "new_since_at": known.since_at,
            "new_looked_at": known.polled_at,
            "new_lost": known.lost,
            "new_counts": _COMPACT.encode(dict(known.counts)),
            "new_stream": change.entries[0].event.stream if change.entries else None,
            **dict(zip(_NEW_AS_KNOWN, as_known(known), strict=True)),
        }
        if change.before is None:
            added.append(row)
        else:
            changed.append(row | {"before": change.before})
    # Sorted by key, so that two writers never wait for each other; stable, so one execution's changes keep their order.
    key = itemgetter("new_account_id", "new_execution")
    if added:
        _INSERT.run(connection, *sorted(added, key=key))
    if changed and _UPDATE.run(connection, *sorted(changed, key=key)).rowcount != len(changed):
        raise _conflict()


def write_poll_times(connection: Connection, several: Iterable[PollTimes], *, numbers: SourceNumbers) -> None:
    """Keep the latest poll of each execution; one without a row has nothing to keep."""
    rows = [
        {"of_account": numbers[Source("account", poll_times.lease.name)], "of_execution": execution_key(key), "at": at}
        for poll_times in several
        for key, at in poll_times.polled_at.items()
    ]
    if rows:
        rows.sort(key=itemgetter("of_account", "of_execution"))
        connection.execute(_SAVE_POLL_TIMES, rows)


def _conflict() -> SequenceConflictError:
    """Return what it comes to that fewer rows than are written were as their writer believed them recorded."""
    return SequenceConflictError("the store holds another sequence than its owner believes, who begins anew")


_WRITE_SOURCE = (
    update(source)
    .where(source.c.id == bindparam("of_source"), source.c.sequence == bindparam("before"))
    .values(sequence=bindparam("new_sequence"), state=bindparam("new_state"))
)
_WRITE_BACKOFF = HotStatement(
    update(source)
    .where(source.c.id == bindparam("of_source"))
    .values(
        paused_until=bindparam("new_paused_until"),
        failing_for_s=bindparam("new_failing_for_s"),
        clock_us=func.coalesce(bindparam("new_clock_us"), source.c.clock_us),
    )
)


def write_sources(connection: Connection, changes: Iterable[SourceChange], *, numbers: SourceNumbers) -> None:
    """Write the states of accounts and sinks, each from the sequence its writer believes recorded."""
    rows = [
        {
            "of_source": numbers[Source(change.lease.kind, change.lease.name)],
            "before": change.before,
            "new_sequence": change.sequence,
            "new_state": change.state,
        }
        for change in changes
    ]
    rows.sort(key=itemgetter("of_source"))
    if connection.execute(_WRITE_SOURCE, rows).rowcount != len(rows):
        raise _conflict()


def write_backoffs(
    connection: Connection, changes: Iterable[BackoffChange], *, numbers: SourceNumbers, now: Micros
) -> None:
    """Keep the last of what is said of each account and each sink."""
    latest = {numbers[Source(change.lease.kind, change.lease.name)]: change for change in changes}
    rows = [
        {
            "of_source": source_id,
            "new_paused_until": None if (pause_s := change.backoff.pause_s) is None else now + round(pause_s * 1e6),
            "new_failing_for_s": change.backoff.failing_for_s,
            "new_clock_us": None if change.clock_s is None else round(change.clock_s * 1e6),
        }
        for source_id, change in sorted(latest.items())
    ]
    _WRITE_BACKOFF.run(connection, *rows)


_WRITE_SNAPSHOT = text(
    "INSERT INTO snapshot (source_id, written_at, body) VALUES (:of_source, :written_at, :body)"
    " ON CONFLICT (source_id) DO UPDATE SET written_at = excluded.written_at, body = excluded.body"
)


def write_snapshots(connection: Connection, changes: Iterable[SnapshotChange], *, numbers: SourceNumbers) -> None:
    """Keep the last of how each account and each sink stands."""
    latest = {numbers[Source(change.lease.kind, change.lease.name)]: change for change in changes}
    rows = [
        {"of_source": source_id, "written_at": change.written_at, "body": change.body}
        for source_id, change in sorted(latest.items())
    ]
    connection.execute(_WRITE_SNAPSHOT, rows)


def backoff_of(row: AnyRow, *, now: Micros) -> BackoffState:
    """Return what an account or a sink was going through, its pause as of `now`."""
    pause_s = None if row.paused_until is None else (row.paused_until - now) / 1e6
    return BackoffState(pause_s, row.failing_for_s)


FORGOTTEN_AFTER_US = 24 * 3600 * 1_000_000
"""A pipeline absent for longer is read anew when it returns: by then it is another beginning, no interruption."""

_PIPELINE: BindParameter[Any] = bindparam("of_pipeline")
_ITS_SCAN = (scan.c.account_id == bindparam("of_account"), scan.c.pipeline_id == _PIPELINE)
CURSOR_FIELDS = tuple(field.name for field in fields(Cursor))  # each has a column of its name
FORGET_SCAN = delete(scan).where(*_ITS_SCAN)
_WRITE_SCAN = insert(scan).values(
    account_id=bindparam("of_account"),
    pipeline_id=_PIPELINE,
    **{name: bindparam(f"new_{name}") for name in CURSOR_FIELDS},
)
_WRITE_PIPELINE = (
    update(source)
    .where(source.c.id == _PIPELINE, source.c.sequence == bindparam("before"))
    .values(sequence=bindparam("new_sequence"))
)
MARK_PIPELINE = update(source).where(source.c.id == _PIPELINE).values(absent_since=bindparam("since"))


def write_pipelines(connection: Connection, changes: Iterable[PipelineChange], *, numbers: SourceNumbers) -> None:
    """Write how far pipelines are read, each from the sequence its writer believes recorded; the last one stays."""
    rows: list[dict[str, Any]] = [
        {
            "before": change.before,
            "new_sequence": change.sequence,
            "of_account": numbers[Source("account", change.lease.name)],
            "of_pipeline": numbers[pipeline(change.lease.name, change.pipeline)],
        }
        | {f"new_{name}": getattr(change.cursor, name) for name in CURSOR_FIELDS}
        for change in changes
    ]
    # Sorted, so that two writers never wait for each other; stable, so one pipeline's changes keep their order.
    rows.sort(key=itemgetter("of_pipeline"))
    if connection.execute(_WRITE_PIPELINE, rows).rowcount != len(rows):
        raise _conflict()
    latest = list({row["of_pipeline"]: row for row in rows}.values())
    connection.execute(FORGET_SCAN, latest)
    connection.execute(_WRITE_SCAN, latest)


def is_forgotten(row: AnyRow, *, now: Micros) -> bool:
    """Return whether a pipeline with that `absent_since` has been absent for so long that it begins anew."""
    return row.absent_since is not None and now - row.absent_since > FORGOTTEN_AFTER_US


RULE_STATE = TypeAdapter(RuleState)
_WRITE_RULES = (
    update(source)
    .where(source.c.id == bindparam("of_pipeline"), source.c.sequence == bindparam("before"))
    .values(sequence=bindparam("new_sequence"), rules=bindparam("new_rules"))
)
_ITS_ENDS = unjudged_end.c.pipeline_id == bindparam("of_pipeline")
_WAIT = insert(unjudged_end)
JUDGED = delete(unjudged_end).where(_ITS_ENDS)


def write_rules(connection: Connection, changes: Iterable[RulesChange], *, numbers: SourceNumbers) -> None:
    """Write what rules go by, each from the sequence its writer believes recorded; the last state stays."""
    rows: list[dict[str, Any]] = []
    # Sorted, so that two writers never wait for each other; stable, so one pipeline's changes keep their order.
    by_pipeline = [(numbers[pipeline(change.lease.name, change.pipeline)], change) for change in changes]
    for pipeline_id, change in sorted(by_pipeline, key=itemgetter(0)):
        rows.append(
            {
                "of_pipeline": pipeline_id,
                "before": change.before,
                "new_sequence": change.sequence,
                "new_rules": RULE_STATE.dump_json(change.state).decode(),
            }
        )
        if change.judges_all:
            connection.execute(JUDGED, {"of_pipeline": pipeline_id})
        if change.unjudged:
            ends = sorted((execution_key(name), *end) for name, end in change.unjudged)
            waiting = [{"execution": key, "ended_at": ended_at, "failed": failed} for key, ended_at, failed in ends]
            connection.execute(_WAIT, [{"pipeline_id": pipeline_id} | row for row in waiting])
    if connection.execute(_WRITE_RULES, rows).rowcount != len(rows):
        raise _conflict()
