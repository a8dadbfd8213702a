"""What accounts and sinks are going through. A pause is a length outside and a moment here, for time goes on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from watcher.ports import Lease, Strain
from watcher.store.rows import AnyRow
from watcher.store.sources import Source, SourceNumbers
from watcher.store.tables import source


@dataclass(frozen=True, slots=True)
class Strained:
    """What a leased account is going through."""

    lease: Lease
    strain: Strain


STRAIN_COLUMNS = (source.c.paused_until, source.c.failing_for_s)
"""What `strain_of` reads."""

STRAIN_VALUES: dict[str, BindParameter[Any]] = {
    column.name: bindparam(f"new_{column.name}") for column in STRAIN_COLUMNS
}
"""What `strain_row` fills."""

_STRAIN = update(source).where(source.c.id == bindparam("of_source")).values(STRAIN_VALUES)


async def write_strains(
    connection: AsyncConnection, several: Iterable[Strained], *, numbers: SourceNumbers, now: int
) -> None:
    """Keep the last of what each account says of itself."""
    latest = {numbers[Source(each.lease.kind, each.lease.name)]: each.strain for each in several}
    if latest:
        rows = [{"of_source": number} | strain_row(strain, now=now) for number, strain in sorted(latest.items())]
        await connection.execute(_STRAIN, rows)


def strain_row(strain: Strain, *, now: int) -> dict[str, Any]:
    """Return the values of a source's columns, each key with `new_` before it."""
    paused_until = None if strain.pause_s is None else now + round(strain.pause_s * 1_000_000)
    return {"new_paused_until": paused_until, "new_failing_for_s": strain.failing_for_s}


def strain_of(row: AnyRow, *, now: int) -> Strain:
    """Return what a row with the `STRAIN_COLUMNS` says, as of `now`."""
    pause_s = None if row.paused_until is None else (row.paused_until - now) / 1_000_000
    return Strain(pause_s, row.failing_for_s)
