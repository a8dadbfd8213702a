"""A clock that is moved by hand, and a real store that goes by it."""

from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest
from bench.virtual_time import write_without_waiting
from virtual import FakeClock

from watcher.store.opening import open_store
from watcher.store.sql import SqlStore


def ignore(_sinks: Collection[str]) -> None:
    """Nobody waits for what is recorded here."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "watcher.db"


@pytest.fixture
async def store(path: Path, clock: FakeClock) -> AsyncIterator[SqlStore]:
    store = await open_store(f"sqlite:///{path}", clock=clock, on_recorded=ignore, busy_timeout_s=0.01)
    await write_without_waiting(store)
    yield store
    await store.close()
