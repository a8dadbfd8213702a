"""The connections to a database: each thread keeps its own, from its first transaction to its end."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, Pool, event
from stores import SetClock, change, claim, executions_of

from watcher.domain.errors import StoreError
from watcher.store.changes import Lease
from watcher.store.database import READERS_COUNT
from watcher.store.sql_store import SqlStore, open_store


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def test_each_thread_takes_one_connection_for_all_of_its_transactions(tmp_path: Path) -> None:
    taken: list[object] = []

    def note(connection: object, *_: object) -> None:
        taken.append(connection)

    event.listen(Pool, "checkout", note)
    try:
        store = await open_store(f"sqlite:///{tmp_path / 'watcher.db'}", clock=SetClock())
        account = await claim(store, "account", "default")
        for number in range(50):
            await store.record(change(account, number))
            await executions_of(store, account)
        assert len(taken) <= 1 + READERS_COUNT
        await store.close()
    finally:
        event.remove(Pool, "checkout", note)


async def test_a_store_that_is_closed_leaves_no_log_behind(tmp_path: Path, store: SqlStore, account: Lease) -> None:
    await store.record(change(account))
    await executions_of(store, account)
    assert "watcher.db-wal" in names_in(tmp_path)
    await store.close()
    assert names_in(tmp_path) == ["watcher.db", "watcher.db.lock"]


async def test_a_commit_that_fails_leaves_no_transaction_open(store: SqlStore, account: Lease) -> None:
    def violate(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        connection.exec_driver_sql("INSERT INTO action (kind, source_id, asked_at) VALUES ('scan', 4711, 0)")

    with pytest.raises(StoreError, match="SQLITE_CONSTRAINT_FOREIGNKEY"):
        await store.write(violate)
    await store.record(change(account))
    assert len(await executions_of(store, account)) == 1
