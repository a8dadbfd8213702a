"""The driver's connections: one trip to the thread for each statement, and errors as SQLite names them."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from watcher.store.sqlite import reader_engine, writer_engine


@pytest.fixture
async def trips(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every piece of work a connection was given, from now on."""
    made: list[object] = []
    execute = aiosqlite.Connection._execute

    async def count(self: aiosqlite.Connection, work: object, *arguments: Any, **named: Any) -> object:  # noqa: ANN401
        made.append(work)
        return await execute(self, work, *arguments, **named)  # type: ignore[no-untyped-call] # it is not typed

    monkeypatch.setattr(aiosqlite.Connection, "_execute", count)
    return made


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = writer_engine(tmp_path / "a.db", busy_timeout_s=1)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    yield engine
    await engine.dispose()


async def numbers(connection: AsyncConnection) -> list[int]:
    return [n for (n,) in await connection.execute(text("SELECT n FROM t ORDER BY n"))]


async def test_a_write_is_a_trip_for_each_statement_and_its_two_ends(writer: AsyncEngine, trips: list[object]) -> None:
    async with writer.begin() as connection:
        await connection.execute(text("INSERT INTO t VALUES (:n)"), [{"n": n} for n in (1, 2, 3)])
        changed = await connection.execute(text("DELETE FROM t WHERE n > 1"))
        assert changed.rowcount == 2
        assert await numbers(connection) == [1]
    assert len(trips) == 3 + len(("begin", "commit"))


@pytest.mark.usefixtures("writer")
async def test_a_read_is_one_trip(tmp_path: Path, trips: list[object]) -> None:
    reader = reader_engine(tmp_path / "a.db", busy_timeout_s=1)
    async with reader.connect() as connection:
        await numbers(connection)
        trips.clear()
        assert await numbers(connection) == []
    assert len(trips) == 1
    await reader.dispose()


async def test_a_statement_that_fails_says_why_and_leaves_nothing_behind(writer: AsyncEngine) -> None:
    with pytest.raises(IntegrityError) as raised:
        async with writer.begin() as connection:
            await connection.execute(text("INSERT INTO t VALUES (:n)"), [{"n": 1}, {"n": 1}])
    assert isinstance(raised.value.orig, sqlite3.IntegrityError)
    async with writer.begin() as connection:
        assert await numbers(connection) == []
