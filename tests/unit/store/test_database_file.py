from pathlib import Path

import pytest

from watcher.domain.errors import StoreUnusableError
from watcher.store.sqlite import DatabaseFile


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
