"""What `/readyz` says of the store, over a real file that another program locks."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from stores import SECOND_US, SetClock
from structlog.testing import capture_logs

from watcher.daemon.pages import Readiness
from watcher.store.open import open_store
from watcher.store.sql_store import SqlStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "watcher.db"


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def store(path: Path, clock: SetClock) -> AsyncIterator[SqlStore]:
    opened = await open_store(f"sqlite:///{path}", clock=clock, busy_timeout_s=0.01)
    yield opened
    await opened.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep everybody else from writing, though not from reading."""
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        stranger.close()


async def test_a_store_that_takes_writes_is_usable_again_and_again(store: SqlStore, clock: SetClock) -> None:
    readiness = Readiness(store, clock=clock)
    assert await readiness.problem() is None
    clock.us += SECOND_US
    assert await readiness.problem() is None


async def test_a_store_that_can_be_read_but_not_written_is_not_usable_until_it_can(
    store: SqlStore, path: Path, clock: SetClock
) -> None:
    readiness = Readiness(store, clock=clock)
    assert await readiness.problem() is None
    with capture_logs() as logs:
        with locked(path):
            assert await store.backlog() == {}
            for _ in range(2):
                clock.us += SECOND_US
                assert await readiness.problem() == "the store cannot be written"
        clock.us += SECOND_US
        assert await readiness.problem() is None
    assert [line["event"] for line in logs] == ["store.failed", "store.recovered"]
    assert "is locked by another program" in logs[0]["problem"]


class SlowStore:
    """A store whose proofs take until they are let go."""

    def __init__(self) -> None:
        self.proofs_count = 0
        self.gate = asyncio.Event()

    async def probe_writable(self) -> None:
        self.proofs_count += 1
        await self.gate.wait()


async def test_however_many_ask_the_store_writes_once_a_second(clock: SetClock) -> None:
    slow = SlowStore()
    readiness = Readiness(cast("SqlStore", slow), clock=clock)
    asking = [asyncio.create_task(readiness.problem()) for _ in range(100)]
    slow.gate.set()
    assert await asyncio.gather(*asking) == [None] * 100
    clock.us += SECOND_US - 1
    assert await readiness.problem() is None
    assert slow.proofs_count == 1
    clock.us += 1
    assert await readiness.problem() is None
    assert slow.proofs_count == 2


async def test_a_store_that_does_not_answer_is_not_usable_and_not_asked_again_meanwhile(clock: SetClock) -> None:
    slow = SlowStore()
    readiness = Readiness(cast("SqlStore", slow), clock=clock, timeout_s=0.01)
    for _ in range(3):
        clock.us += 60 * SECOND_US
        assert await readiness.problem() == "the store does not answer"
    assert slow.proofs_count == 1
    slow.gate.set()
    assert await readiness.problem() is None


async def test_a_probe_that_crashes_is_loud_and_asked_again_a_second_later(clock: SetClock) -> None:
    class Crashing:
        asked_count = 0

        async def probe_writable(self) -> None:
            self.asked_count += 1
            raise ZeroDivisionError

    crashing = Crashing()
    readiness = Readiness(cast("SqlStore", crashing), clock=clock)
    for asked_count in (1, 2):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await readiness.problem()
        assert crashing.asked_count == asked_count
        clock.us += SECOND_US
