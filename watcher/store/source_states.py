"""The states of accounts and sinks themselves, and what they are going through: written, and read when an owner begins.

A pause is a length outside and a moment here, for time goes on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

from sqlalchemy import Connection, bindparam, case, func, select, update

from watcher.domain.timestamps import Micros
from watcher.store.changes import BackoffState, Lease, SourceChange
from watcher.store.leases import expect_written
from watcher.store.problems import open_problem_of
from watcher.store.records import AccountRecord, SinkRecord
from watcher.store.row_mapping import AnyRow
from watcher.store.source_ids import Source, SourceNumbers
from watcher.store.tables import source


@dataclass(frozen=True, slots=True)
class BackoffChange:
    """What a leased account or sink is going through; of a sink also its own clock."""

    lease: Lease
    backoff: BackoffState
    clock_s: float | None = None


_WRITE_STATE = (
    update(source)
    .where(source.c.id == bindparam("of_source"), source.c.sequence == bindparam("before"))
    .values(sequence=bindparam("new_sequence"), state=bindparam("new_state"))
)
_WRITE_BACKOFF = (
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
        written = connection.execute(_WRITE_STATE, sorted(rows, key=itemgetter("of_source")))
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
        connection.execute(_WRITE_BACKOFF, rows)


def load_account(connection: Connection, *, account_id: int, now: Micros) -> AccountRecord:
    """Return what is recorded of an account itself, its pause as of `now`."""
    row = connection.execute(select(source).where(source.c.id == account_id)).one()
    problem = open_problem_of(connection, source_id=account_id)
    return AccountRecord(row.sequence, row.state, _backoff(row, now=now), problem)


def load_sink(connection: Connection, *, sink_id: int, fingerprint: str, now: Micros) -> SinkRecord:
    """Return what is recorded of a sink, once its block's fingerprint is noted and it is present again.

    Another block may name another receiver, which has not asked for a pause, nor to be left alone; that something gets
    through to it is still to be seen, so a disabled sink is a failing one from then on.
    """
    same_block = source.c.fingerprint == fingerprint
    state = case((same_block, source.c.state), (source.c.state == "disabled", "failing"), else_=source.c.state)
    values = {"fingerprint": fingerprint, "absent_since": None, "state": state}
    paused_until = case((same_block, source.c.paused_until), else_=None)
    connection.execute(update(source).where(source.c.id == sink_id).values(**values, paused_until=paused_until))
    row = connection.execute(select(source).where(source.c.id == sink_id)).one()
    problem = open_problem_of(connection, source_id=sink_id)
    return SinkRecord(row.sequence, row.state, row.clock_us / 1e6, _backoff(row, now=now), problem)


def _backoff(row: AnyRow, *, now: Micros) -> BackoffState:
    pause_s = None if row.paused_until is None else (row.paused_until - now) / 1e6
    return BackoffState(pause_s, row.failing_for_s)
