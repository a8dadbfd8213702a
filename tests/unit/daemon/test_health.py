"""Pings to a service outside, on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
from lease_store import Alone
from receiver import Receiver, answer, resets, says
from stores import backlog_of, held
from structlog.testing import capture_logs
from supervision import dependencies_of
from virtual import FakeClock
from yarl import URL

from watcher.config.models import HeartbeatSettings
from watcher.daemon.health import Heartbeat, Readiness, ping
from watcher.runtime.scheduler import Schedule
from watcher.store.sql_store import SqlStore

WITHIN_S = 10.0


class Health:
    """What is wrong with the daemon, as a test says."""

    def __init__(self) -> None:
        self.stalls: list[str] = []
        self.store: str | None = None

    def stalled_jobs(self) -> list[str]:
        return self.stalls

    async def store_problem(self) -> str | None:
        return self.store

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(cast("Schedule", self), cast("Readiness", self))


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def heartbeat(health: Health) -> AsyncIterator[Heartbeat]:
    heartbeat = health.heartbeat()
    yield heartbeat
    await heartbeat.apply(None)


def settings(receiver: Receiver, path: str = "/s3cret", *, every: str = "10ms") -> HeartbeatSettings:
    return HeartbeatSettings.model_validate({"url": f"{receiver.url}{path}", "every": every})


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            await asyncio.sleep(0.001)


async def test_it_pings_at_once_and_again_and_again(heartbeat: Heartbeat, receiver: Receiver) -> None:
    with capture_logs() as logs:
        await heartbeat.apply(settings(receiver))
        await until(lambda: len(receiver.requests) > 2)
    assert {request.line for request in receiver.requests} == {"GET /s3cret HTTP/1.1"}
    assert logs == []


async def test_only_a_reload_with_another_one_changes_it(heartbeat: Heartbeat, receiver: Receiver) -> None:
    await heartbeat.apply(settings(receiver, every="1h"))
    await until(lambda: receiver.requests)
    await heartbeat.apply(settings(receiver, every="1h"))
    await heartbeat.apply(settings(receiver, "/other", every="1h"))
    await until(lambda: len(receiver.requests) > 1)
    await heartbeat.apply(None)
    assert [request.line.split()[1] for request in receiver.requests] == ["/s3cret", "/other"]


@pytest.mark.parametrize(("stalled", "store"), [(["account:a"], None), ([], "the store cannot be written")])
async def test_it_is_silent_while_a_loop_stalls_or_the_store_takes_nothing(
    heartbeat: Heartbeat, receiver: Receiver, health: Health, stalled: list[str], store: str | None
) -> None:
    health.stalls, health.store = stalled, store
    with capture_logs() as logs:
        await heartbeat.apply(settings(receiver))
        await until(lambda: logs)
        assert receiver.requests == []
        health.stalls, health.store = [], None
        await until(lambda: len(logs) > 1)
    failed, recovered = logs
    assert failed["answer"] == f"withheld: {store or 'account:a is stalled'}"
    assert (recovered["event"], recovered["log_level"]) == ("heartbeat.recovered", "info")


async def test_a_failure_is_one_warning_and_its_end_one_line(heartbeat: Heartbeat, receiver: Receiver) -> None:
    receiver.reply = says(answer(500))
    with capture_logs() as logs:
        await heartbeat.apply(settings(receiver))
        await until(lambda: len(receiver.requests) > 2)
        receiver.reply = says(answer(200, body=b"OK"))
        await until(lambda: len(logs) > 1)
        await until(lambda: len(receiver.requests) > 5)
    failed, recovered = logs
    assert (failed["event"], failed["log_level"], failed["answer"]) == ("heartbeat.failed", "warning", "500")
    assert recovered["event"] == "heartbeat.recovered"
    assert failed["url"] == recovered["url"] == receiver.url


async def test_no_redirect_is_followed_and_a_connection_that_breaks_is_a_word(receiver: Receiver) -> None:
    receiver.reply = says(answer(302, location=f"{receiver.url}/elsewhere"))
    assert await ping(URL(receiver.url)) == ("302", "no redirect is ever followed: set url to where it leads")
    assert len(receiver.requests) == 1
    receiver.reply = resets
    assert (await ping(URL(receiver.url)))[0] == "reset"


async def test_a_proxy_of_the_environment_is_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", receiver.url.replace("//", "//u:p@"))
    assert await ping(URL("http://hc.example/s3cret")) == ("", "")
    (request,) = receiver.requests
    assert request.line == "GET http://hc.example/s3cret HTTP/1.1"
    assert request.headers["proxy-authorization"].startswith("Basic ")


async def test_an_error_of_ours_is_loud(receiver: Receiver, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> str | None:
        raise TypeError

    monkeypatch.setattr(health, "store_problem", broken)
    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context["exception"]))
    await health.heartbeat().apply(settings(receiver))
    await until(lambda: seen)
    assert isinstance(seen[0], TypeError)


# What /readyz says, over a real file that another program locks


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


async def test_a_store_that_cannot_be_written_is_not_usable(store: SqlStore, path: Path, clock: FakeClock) -> None:
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


async def test_a_store_that_does_not_answer_is_asked_once(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
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
