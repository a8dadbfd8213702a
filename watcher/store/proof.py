"""Proof that the database takes writes: a row of no meaning, written anew each time."""

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from watcher.store.tables import meta

PROVED_AT = "proved_at"


async def write_proof(connection: AsyncConnection, *, now: int) -> None:
    """Write that moment: SQLite writes nothing at all where a row keeps its value."""
    row = {"value": str(now)}
    if not (await connection.execute(update(meta).where(meta.c.key == PROVED_AT), row)).rowcount:
        await connection.execute(insert(meta), row | {"key": PROVED_AT})
