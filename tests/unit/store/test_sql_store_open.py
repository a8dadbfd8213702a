import os
import resource
import shutil
import socket
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores import SetClock, claim

from watcher.domain.errors import Exit, StoreError, StoreUnusableError
from watcher.store.sql_store import SqlStore, open_store

NOBODY = 65534


async def opened(path: Path) -> SqlStore:
    return await open_store(f"sqlite:///{path}", clock=SetClock(), busy_timeout_s=0.01)


async def refusal(path: Path, *, code: Exit = Exit.USAGE) -> str:
    with pytest.raises(StoreUnusableError) as caught:
        await opened(path)
    assert caught.value.exit_code is code
    return str(caught.value)


async def test_a_file_that_somebody_left_empty_becomes_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    path.touch(0o644)
    store = await open_store(f"sqlite:///{path}", clock=SetClock())
    assert set(modes_in(tmp_path).values()) == {0o600}
    await store.close()


def modes_in(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    store = await opened(path)
    await claim(store, "account", "default")
    assert modes_in(tmp_path) == dict.fromkeys(
        ("watcher.db", "watcher.db-wal", "watcher.db-shm", "watcher.db.lock"), 0o600
    )
    await store.close()


async def test_what_is_not_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o644)
    assert f"{path} is not a file; write sqlite:///watcher.db" in await refusal(path)
    assert modes_in(tmp_path) == {"pipe": 0o644}


async def test_a_second_daemon_is_refused_and_names_who_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    store = await opened(path)
    (tmp_path / "link.db").symlink_to(path)
    for name in ("watcher.db", "link.db"):
        message = await refusal(tmp_path / name, code=Exit.FAILED)
        assert f"pid {os.getpid()} on {socket.gethostname()} since 2026-11-24T00:00:00+00:00" in message
    await store.close()
    await (await opened(path)).close()


def set_versions(path: Path, *, schema_version: int, oldest_reader: int) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (schema_version,))
        database.execute("UPDATE meta SET value = ? WHERE key = 'oldest_reader'", (oldest_reader,))
    database.close()


async def test_a_store_of_before_the_first_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    await (await opened(path)).close()
    set_versions(path, schema_version=8, oldest_reader=1)
    before = path.read_bytes()
    assert await refusal(path) == (
        f"{path} is a store of a version before the first release (schema 8), which cannot be read any more; begin with"
        " an empty store: move this one away, or name another in store.url"
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize(("table", "columns"), [("customer", "name"), ("meta", "key, value"), ("meta", "id")])
async def test_a_strangers_database_is_refused_and_left_alone(table: str, columns: str, tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE {table} ({columns})")
    database.close()
    assert "not one of clerk-watcher" in await refusal(path)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [(table,)]
    database.close()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    path.write_text("dear diary\n" * 500)
    assert "is not a SQLite database" in await refusal(path)
    assert path.read_text() == "dear diary\n" * 500


async def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    await (await opened(path)).close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    assert "is damaged" in await refusal(path)


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    message = await refusal(tmp_path / "gone" / "watcher.db")
    assert f"{tmp_path}/gone/watcher.db" in message
    assert "No such file or directory" in message


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_what_may_pass_by_itself_is_nothing_a_person_must_correct(tmp_path: Path) -> None:
    with no_descriptor_left(), pytest.raises(StoreError, match="Too many open files") as caught:
        await opened(tmp_path / "watcher.db")
    assert caught.value.exit_code is Exit.FAILED


@pytest.fixture
def directory_as_nobody() -> Iterator[Path]:
    """Run as a user whom permissions bind, in a directory of their own: root may write whatever it likes."""
    directory = Path(tempfile.mkdtemp())
    user = os.geteuid()
    if user == 0:
        os.chown(directory, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield directory
    os.seteuid(user)
    directory.chmod(0o700)
    shutil.rmtree(directory)


def forbid_writing(path: Path) -> None:
    path.chmod(0o500)


@pytest.mark.parametrize("is_there", [False, True])
async def test_what_may_not_be_written_is_refused(directory_as_nobody: Path, *, is_there: bool) -> None:
    path = directory_as_nobody / "watcher.db"
    if is_there:
        path.touch()
    forbid_writing(path if is_there else directory_as_nobody)
    assert "Permission denied" in await refusal(path)


async def test_a_store_locked_by_a_stranger_may_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "watcher.db"
    await (await opened(path)).close()
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked by another program") as caught:
        await opened(path)
    assert not isinstance(caught.value, StoreUnusableError)
    stranger.close()
    await (await opened(path)).close()
