"""What it costs to ask SQLite: trips to its threads, and what a transaction that fails leaves behind."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError
from stores import LATER, SetClock, attempt_record, change, claim, due, sink_of

from watcher.runtime.threads import WorkerThreads
from watcher.store.changes import Take, Turn
from watcher.store.open import open_store
from watcher.store.sqlite import DatabaseFile, SqliteDatabase


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    path = tmp_path / "a.db"
    path.touch()
    database = SqliteDatabase(DatabaseFile(path, opened=path.stat()), busy_timeout_s=1)
    await database.write(lambda connection: connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)")))
    yield database
    await database.close()


def numbers(connection: Connection) -> list[int]:
    return [n for (n,) in connection.execute(text("SELECT n FROM t ORDER BY n"))]


async def test_what_is_written_is_read(database: SqliteDatabase) -> None:
    def write(connection: Connection) -> int:
        connection.execute(text("INSERT INTO t VALUES (:n)"), [{"n": n} for n in (1, 2, 3)])
        return connection.execute(text("DELETE FROM t WHERE n > 1")).rowcount

    assert await database.write(write) == 2
    assert await database.read(numbers) == [1]


async def test_a_statement_that_fails_says_why_and_leaves_nothing_behind(database: SqliteDatabase) -> None:
    def write(connection: Connection) -> None:
        connection.execute(text("INSERT INTO t VALUES (:n)"), [{"n": 1}, {"n": 1}])

    with pytest.raises(IntegrityError) as raised:
        await database.write(write)
    assert isinstance(raised.value.orig, sqlite3.IntegrityError)
    assert await database.write(numbers) == []


async def test_an_event_that_is_recorded_and_delivered_takes_three_trips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(f"sqlite:///{tmp_path / 'b.db'}", clock=SetClock())
    account, ops = await claim(store, "account", "default"), await sink_of(store)
    await store.record(change(account, 1))
    trips: list[object] = []
    run = WorkerThreads.run

    async def count(self: WorkerThreads, work: Any) -> object:
        trips.append(work)
        return await run(self, work)

    monkeypatch.setattr(WorkerThreads, "run", count)
    await store.record(change(account, 2))
    one, other = await due(ops)
    attempts = (attempt_record(one), attempt_record(other))
    await ops.turn(Turn(ops.lease, attempts, take=Take(LATER, 1, frozenset())))
    assert len(trips) == len(("record", "take", "settle and take"))
    await store.close()
