"""What accounts and sinks are going through. A pause is a length outside and a moment here, for time goes on.

Of several words on one of them, handed in one after another, the last is kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, update

from watcher.store.protocol import BackoffState, Lease
from watcher.store.row_mapping import AnyRow
from watcher.store.source_ids import Source, SourceNumbers
from watcher.store.tables import source


@dataclass(frozen=True, slots=True)
class BackoffChange:
    """What a leased account or sink is going through; of a sink also its own clock."""

    lease: Lease
    backoff: BackoffState
    clock_s: float | None = None


BACKOFF_COLUMNS = (source.c.paused_until, source.c.failing_for_s)
"""What `backoff_of` reads."""

_VALUES: dict[str, BindParameter[Any]] = {column.name: bindparam(f"new_{column.name}") for column in BACKOFF_COLUMNS}
_SAVE_BACKOFF = update(source).where(source.c.id == bindparam("of_source")).values(_VALUES)
_SAVE_SINK_STATE = (
    update(source)
    .where(source.c.id == bindparam("of_source"))
    .values({"clock_us": bindparam("new_clock_us")} | _VALUES)
)


def write_backoffs(
    connection: Connection, several: Iterable[BackoffChange], *, numbers: SourceNumbers, now: int
) -> None:
    """Keep the last of what is said of each account and each sink."""
    latest = {numbers[Source(each.lease.kind, each.lease.name)]: each for each in several}
    rows = [_row(each, source_id=number, now=now) for number, each in sorted(latest.items())]
    for statement, of_sinks in ((_SAVE_BACKOFF, False), (_SAVE_SINK_STATE, True)):
        if wanted := [row for row in rows if ("new_clock_us" in row) is of_sinks]:
            connection.execute(statement, wanted)


def _row(change: BackoffChange, *, source_id: int, now: int) -> Mapping[str, Any]:
    backoff, clock_s = change.backoff, change.clock_s
    row = {
        "of_source": source_id,
        "new_paused_until": None if backoff.pause_s is None else now + round(backoff.pause_s * 1_000_000),
        "new_failing_for_s": backoff.failing_for_s,
    }
    return row if clock_s is None else row | {"new_clock_us": round(clock_s * 1_000_000)}


def backoff_of(row: AnyRow, *, now: int) -> BackoffState:
    """Return what a row with the `BACKOFF_COLUMNS` says, as of `now`."""
    pause_s = None if row.paused_until is None else (row.paused_until - now) / 1_000_000
    return BackoffState(pause_s, row.failing_for_s)
