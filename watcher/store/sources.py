"""What is written of accounts, sinks and pipelines: their states, how far lists were read, what rules go by.

A pause is a length outside and a moment here, for time goes on.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, insert, select, update

from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import BackoffState, Lease, PipelineChange, RulesChange, SourceChange
from watcher.store.executions import execution_key
from watcher.store.source_ids import Source, SourceNumbers, pipeline
from watcher.store.statement import HotStatement, expect_written
from watcher.store.tables import AnyRow, scan, source, unjudged_end


@dataclass(frozen=True, slots=True)
class BackoffChange:
    """What a leased account or sink is going through; of a sink also its own clock."""

    lease: Lease
    backoff: BackoffState
    clock_s: float | None = None


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
    if rows:
        written = connection.execute(_WRITE_SOURCE, sorted(rows, key=itemgetter("of_source")))
        expect_written(written.rowcount, wanted=len(rows))


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
    if rows:
        _WRITE_BACKOFF.run_many(connection, rows)


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
_SCANNED = select(
    scan.c.account_id.label("of_account"), scan.c.pipeline_id.label("of_pipeline"), source.c.name, source.c.absent_since
).join(source, source.c.id == scan.c.pipeline_id)


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
    if rows:
        # Sorted, so that two writers never wait for each other; stable, so one pipeline's changes keep their order.
        rows.sort(key=itemgetter("of_pipeline"))
        written = connection.execute(_WRITE_PIPELINE, rows)
        expect_written(written.rowcount, wanted=len(rows))
        latest = list({row["of_pipeline"]: row for row in rows}.values())
        connection.execute(FORGET_SCAN, latest)
        connection.execute(_WRITE_SCAN, latest)


def mark_absent_pipelines(connection: Connection, *, present: Collection[tuple[str, str]], now: Micros) -> None:
    """Note which pipelines are watched whole no more; forget how far those were read that have been so for long.

    One that is back is forgotten all the same: whether its account or this comes first must make no difference.
    """
    names = {pipeline(account, pipeline_id).name for account, pipeline_id in present}
    # The same order as in `write_pipelines`, so that two writers never wait for each other.
    rows = sorted(connection.execute(_SCANNED), key=attrgetter("of_pipeline"))
    forgotten = [row._asdict() for row in rows if is_forgotten(row, now=now)]
    marks = [
        {"of_pipeline": row.of_pipeline, "since": None if row.name in names else row.absent_since or now}
        for row in rows
    ]
    if marks:
        connection.execute(MARK_PIPELINE, marks)
    if forgotten:
        connection.execute(FORGET_SCAN, forgotten)


def is_forgotten(row: AnyRow, *, now: Micros) -> bool:
    """Return whether a pipeline with that `absent_since` has been absent for so long that it begins anew."""
    return row.absent_since is not None and now - row.absent_since > FORGOTTEN_AFTER_US


_WRITE_RULES = (
    update(source)
    .where(source.c.id == bindparam("of_pipeline"), source.c.sequence == bindparam("before"))
    .values(sequence=bindparam("new_sequence"), rules=bindparam("new_rules"))
)
_ITS_ENDS = unjudged_end.c.pipeline_id == bindparam("of_pipeline")
_WAIT = insert(unjudged_end)
_JUDGED = delete(unjudged_end).where(_ITS_ENDS)
_WITH_RULES = select(source.c.id.label("of_pipeline"), source.c.name).where(
    source.c.kind == "pipeline", source.c.rules.is_not(None)
)
_FORGET_RULES = update(source).where(source.c.id == bindparam("of_pipeline")).values(rules=None)


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
                "new_rules": change.state.to_json(),
            }
        )
        if change.judges_all:
            connection.execute(_JUDGED, {"of_pipeline": pipeline_id})
        if change.unjudged:
            ends = sorted((execution_key(name), *end) for name, end in change.unjudged)
            waiting = [{"execution": key, "ended_at": ended_at, "failed": failed} for key, ended_at, failed in ends]
            connection.execute(_WAIT, [{"pipeline_id": pipeline_id} | row for row in waiting])
    if rows:
        written = connection.execute(_WRITE_RULES, rows)
        expect_written(written.rowcount, wanted=len(rows))


def forget_rules(connection: Connection, *, present: Collection[tuple[str, str]]) -> None:
    """Forget what rules went by of all pipelines but these: what is not kept up says nothing of later."""
    names = {pipeline(account, pipeline_id).name for account, pipeline_id in present}
    ids = sorted(row.of_pipeline for row in connection.execute(_WITH_RULES) if row.name not in names)
    gone = [{"of_pipeline": each} for each in ids]
    if gone:  # in the order of `write_rules`
        connection.execute(_JUDGED, gone)
        connection.execute(_FORGET_RULES, gone)
