"""What a database in a file does: its errors, its connections, and the file itself."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import Connection, Pool, event
from sqlalchemy.exc import OperationalError
from stores import SetClock, change, claim, execution_id, executions_of

from watcher.domain.errors import SequenceConflictError, StoreError, StoreUnusableError
from watcher.store.changes import Lease
from watcher.store.database import READERS_COUNT
from watcher.store.sql_store import SqlStore, open_store
from watcher.store.sqlite import DatabaseFile, explain_error


async def fill(store: SqlStore, lease: Lease, *, until: str) -> int:
    """Record until it fails with that text; return the number of the execution that was not recorded."""
    for number in range(10_000):
        try:
            await store.record(change(lease, number))
        except StoreError as error:
            assert until in str(error)  # noqa: PT017 - any number of records may come before
            return number
    raise AssertionError("nothing failed")


async def assert_recovered(store: SqlStore, lease: Lease, *, refused: int) -> None:
    """Assert that all before the refused one is there, nothing of it, and that it can be recorded now."""
    recorded = [each.execution for each in await executions_of(store, lease)]
    assert recorded == [execution_id(number) for number in range(refused)]
    await store.record(change(lease, refused))
    assert len(await executions_of(store, lease)) == refused + 1


async def limit_pages(store: SqlStore, count: int) -> None:
    await store.database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {count}"))


async def test_a_full_disk_loses_nothing_and_passes_once_there_is_room(store: SqlStore, account: Lease) -> None:
    await limit_pages(store, 40)
    refused = await fill(store, account, until="the disk is full; make room (SQLITE_FULL)")
    await limit_pages(store, 1_000_000)
    await assert_recovered(store, account, refused=refused)


async def test_room_for_the_probe_alone_proves_nothing(store: SqlStore, account: Lease) -> None:
    await store.probe_writable()
    await limit_pages(store, 40)
    refused = await fill(store, account, until="SQLITE_FULL")
    with pytest.raises(StoreError, match="the disk is full"):
        await store.probe_writable()
    await limit_pages(store, 1_000_000)
    await store.record(change(account, refused))
    await store.probe_writable()


def size_of(name: str) -> int:
    return Path(name).stat().st_size


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def lock(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN EXCLUSIVE")
        yield


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (lambda path: largest_file(size_of(f"{path}-wal") + 50_000), "SQLITE_IOERR"),
        (lock, "locked by another program; close the other program (SQLITE_BUSY)"),
    ],
    ids=["disk", "lock"],
)
async def test_trouble_that_passes_loses_nothing(
    store: SqlStore, account: Lease, path: Path, trouble: Callable[[Path], AbstractContextManager[None]], words: str
) -> None:
    with trouble(path):
        refused = await fill(store, account, until=words)
    await assert_recovered(store, account, refused=refused)


async def test_the_reader_cannot_write(store: SqlStore) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        await store.database.read(lambda connection: connection.exec_driver_sql("DELETE FROM meta"))


@pytest.mark.ci
async def test_a_failing_read_says_what_is_wrong_not_what_it_read(store: SqlStore, account: Lease, path: Path) -> None:
    stranger = sqlite3.connect(path)
    stranger.execute("DROP TABLE execution")
    stranger.close()
    with pytest.raises(StoreError) as caught:
        await executions_of(store, account)
    assert str(caught.value) == f"{path} did not take this (SQLITE_ERROR)"
    assert caught.value.__context__ is None


def sqlite_error(name: str) -> OperationalError:
    cause = sqlite3.OperationalError("secret")
    cause.sqlite_errorname = name
    return OperationalError("secret", {"secret": "secret"}, cause)


@pytest.mark.parametrize(
    ("name", "kind", "concerns_all"),
    [
        *(
            (f"SQLITE_{each}", StoreError, True)
            for each in ("BUSY_SNAPSHOT", "FULL", "IOERR_FSYNC", "READONLY_DBMOVED")
        ),
        ("SQLITE_CANTOPEN", StoreError, True),
        *((f"SQLITE_{each}", StoreUnusableError, True) for each in ("CORRUPT_INDEX", "NOTADB")),
        *((f"SQLITE_CONSTRAINT_{each}", SequenceConflictError, False) for each in ("PRIMARYKEY", "UNIQUE")),
        ("SQLITE_CONSTRAINT_NOTNULL", StoreError, False),
    ],
)
def test_each_error_has_a_meaning(name: str, kind: type[StoreError], *, concerns_all: bool) -> None:
    trouble = explain_error(sqlite_error(name), where="watcher.db")
    assert (trouble.kind, trouble.concerns_all) == (kind, concerns_all)
    assert "watcher.db" in trouble.text
    assert "secret" not in trouble.text


def test_a_strange_error_says_where_it_came_from_and_nothing_it_held() -> None:
    assert explain_error(ValueError("secret"), where="w").text == "w did not take this (ValueError)"
    with pytest.raises(TypeError) as caught:
        explain_error(None, where=3 * {})  # type: ignore[arg-type, operator]
    assert "secret" not in explain_error(caught.value, where="w").text


# Connections: each thread keeps its own, from its first transaction to its end


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


# The file


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    kept = tmp_path / "kept" / "watcher.db"
    kept.touch()
    return kept


def write(kept: Path) -> None:
    kept.write_bytes(b"more")
    kept.chmod(0o400)


def replace_directory(kept: Path) -> None:
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.touch()


def replace_file(kept: Path) -> None:
    kept.rename(kept.with_suffix(".old"))
    kept.touch()


def lead_in_a_circle(kept: Path) -> None:
    kept.parent.rename(kept.parent.with_suffix(".aside"))
    kept.parent.symlink_to(kept.parent)  # too many links: it is not known what is there


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (write, None),
        (Path.unlink, r"watcher\.db was deleted or moved .* start again"),
        (replace_directory, "was deleted or moved"),
        (replace_file, "was replaced by another file"),
        (lead_in_a_circle, None),
    ],
)
def test_a_file_that_was_deleted_or_replaced_is_reported(
    kept: Path, change: Callable[[Path], None], problem: str | None
) -> None:
    database_file = DatabaseFile(kept, opened=kept.stat())
    change(kept)
    with nullcontext() if problem is None else pytest.raises(StoreUnusableError, match=problem):
        database_file.check()
