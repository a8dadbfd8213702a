"""To read a database's file from outside leaves no trace."""

from pathlib import Path

import pytest
from stores import SetClock, Woken

from watcher.store.database_file import disabled_sinks
from watcher.store.open import open_store


def written_in(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert disabled_sinks(tmp_path / "watcher.db") == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("running", [True, False])
async def test_of_a_store_that_is_there_nothing_changes(tmp_path: Path, *, running: bool) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/watcher.db", clock=SetClock(), on_recorded=Woken())
    if not running:
        await store.close()
    before = written_in(tmp_path)
    assert disabled_sinks(tmp_path / "watcher.db") == {}
    assert written_in(tmp_path) == before
    if running:
        await store.close()
