"""What `/readyz` says, over a real file that another program locks."""

import asyncio
from pathlib import Path
from typing import cast

import pytest
from lease_store import Alone
from stores import backlog_of, held
from structlog.testing import capture_logs
from supervision import dependencies_of
from virtual import FakeClock

from watcher.daemon.health import Readiness
from watcher.store.sql_store import SqlStore


def readiness_of(store: object, clock: FakeClock) -> Readiness:
    shared = dependencies_of(cast("SqlStore", store), clock)
    return Readiness(shared, Alone(shared.store, clock=clock))


class SlowStore:
    """A store whose proofs take until they are let go, or crash."""

    leases = None

    def __init__(self, *, crashes: bool = False) -> None:
        self.proofs_count = 0
        self.gate = asyncio.Event()
        self.crashes = crashes

    async def probe_writable(self) -> None:
        self.proofs_count += 1
        if self.crashes:
            raise ZeroDivisionError
        await self.gate.wait()


async def test_what_has_not_run_and_a_lease_that_may_be_lost_are_said_too(store: SqlStore, clock: FakeClock) -> None:
    shared, ownership = dependencies_of(store, clock), Alone(store, clock=clock)
    readiness = Readiness(shared, ownership)
    ownership.problem = lambda: None  # type: ignore[method-assign]
    assert await readiness.problems() == []
    ownership.problem = lambda: "the leases were not renewed in time"  # type: ignore[method-assign]

    async def tick() -> float:
        return 1.0

    shared.schedule.add("account:a", tick)
    assert await readiness.problems() == ["account:a has not run yet", "the leases were not renewed in time"]


async def test_a_store_that_can_be_read_but_not_written_is_not_usable_until_it_can(
    store: SqlStore, path: Path, clock: FakeClock
) -> None:
    readiness = readiness_of(store, clock)
    assert await readiness.store_problem() is None
    with capture_logs() as logs:
        with held(path):
            assert await backlog_of(store) == {}
            for _ in range(2):
                clock.advance(1)
                assert await readiness.store_problem() == "the store cannot be written"
        clock.advance(1)
        assert await readiness.store_problem() is None
    assert [line["event"] for line in logs] == ["store.failed", "store.recovered"]
    assert "is locked by another program" in logs[0]["problem"]


async def test_a_store_that_does_not_answer_is_not_usable_and_not_asked_again_meanwhile(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.daemon.health.STORE_ANSWERS_WITHIN_S", 0.01)
    slow = SlowStore()
    readiness = readiness_of(slow, clock)
    for _ in range(3):
        clock.advance(60)
        assert await readiness.store_problem() == "the store does not answer"
    assert slow.proofs_count == 1
    slow.gate.set()
    assert await readiness.store_problem() is None


async def test_a_probe_that_crashes_is_loud_and_asked_again_a_second_later(clock: FakeClock) -> None:
    crashing = SlowStore(crashes=True)
    readiness = readiness_of(crashing, clock)
    for proofs_count in (1, 2):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await readiness.store_problem()
        assert crashing.proofs_count == proofs_count
        clock.advance(1)
