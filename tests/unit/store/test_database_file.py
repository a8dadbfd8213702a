import os
import re
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from watcher.domain.errors import StoreUnusableError
from watcher.store.database_file import DatabaseFile, file_lock, note_address, noted_address

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_where_the_holder_listens_is_noted_beside_the_database_by_whatever_name(tmp_path: Path) -> None:
    database = tmp_path / "watcher.db"
    (tmp_path / "link.db").symlink_to(database)
    with file_lock(database, now=NOW):
        assert noted_address(database) is None
        note_address(database, "[::1]:8080")
        assert noted_address(database) == noted_address(tmp_path / "link.db") == ("::1", 8080)


def test_a_second_daemon_is_reported_no_more_than_who_holds_the_file(tmp_path: Path) -> None:
    database = tmp_path / "watcher.db"
    holder = re.escape(f"pid {os.getpid()} on {socket.gethostname()} since 2026-11-24T00:00:00+00:00")
    with file_lock(database, now=NOW):
        note_address(database, "127.0.0.1:8080")
        with pytest.raises(StoreUnusableError, match=f"is in use by {holder}; one"), file_lock(database, now=NOW):
            pass
        assert noted_address(database) == ("127.0.0.1", 8080)


def test_the_next_holder_listens_nowhere_until_it_says_so(tmp_path: Path) -> None:
    database = tmp_path / "watcher.db"
    with file_lock(database, now=NOW):
        note_address(database, "127.0.0.1:8080")
    assert noted_address(database) == ("127.0.0.1", 8080)
    with file_lock(database, now=NOW):
        assert noted_address(database) is None


@pytest.mark.parametrize("content", [b"", b"pid 1\n", b"pid 1\nhttp 127.0.0.1:80", b"http nowhere\n", b"\xff\x00"])
def test_what_is_no_address_or_half_of_one_counts_as_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "watcher.db.lock").write_bytes(content)
    assert noted_address(tmp_path / "watcher.db") is None


@pytest.mark.parametrize("database", [Path("/nowhere/watcher.db"), Path("\0")])
def test_without_a_lock_file_nothing_is_noted(database: Path) -> None:
    assert noted_address(database) is None


def test_a_note_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    note_address(tmp_path / "gone" / "watcher.db", "127.0.0.1:8080")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    path = tmp_path / "kept" / "watcher.db"
    path.touch()
    return path


def test_a_file_that_stays_is_no_trouble_whatever_is_written(path: Path) -> None:
    database_file = DatabaseFile(path, opened=path.stat())
    path.write_bytes(b"more")
    path.chmod(0o400)
    database_file.check()


def test_a_file_that_was_deleted_is_reported_with_what_to_do(path: Path) -> None:
    database_file = DatabaseFile(path, opened=path.stat())
    path.unlink()
    with pytest.raises(StoreUnusableError, match=r"watcher\.db was deleted or moved .* start again"):
        database_file.check()


def test_a_file_whose_directory_was_deleted_is_gone(path: Path) -> None:
    database_file = DatabaseFile(path, opened=path.stat())
    path.unlink()
    path.parent.rmdir()
    path.parent.touch()
    with pytest.raises(StoreUnusableError, match="was deleted or moved"):
        database_file.check()


def test_another_file_in_its_place_is_reported(path: Path) -> None:
    database_file = DatabaseFile(path, opened=path.stat())
    path.rename(path.with_suffix(".old"))
    path.touch()
    with pytest.raises(StoreUnusableError, match="was replaced by another file"):
        database_file.check()


def test_a_file_that_cannot_be_looked_at_is_taken_to_be_there(path: Path) -> None:
    database_file = DatabaseFile(path, opened=path.stat())
    path.parent.rename(path.parent.with_suffix(".aside"))
    path.parent.symlink_to(path.parent)  # too many links: it is not known what is there
    database_file.check()
