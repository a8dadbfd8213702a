"""Pings to a service outside, on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest
from receiver import Receiver, answer, resets, says
from structlog.testing import capture_logs
from yarl import URL

from watcher.config.models import HeartbeatSettings
from watcher.daemon.health import Heartbeat, Readiness, ping
from watcher.runtime.scheduler import Schedule

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


async def test_a_reload_changes_it_and_one_that_leaves_it_as_it_is_does_not(
    heartbeat: Heartbeat, receiver: Receiver
) -> None:
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


async def test_a_failure_is_one_warning_and_its_end_one_line_without_the_path(
    heartbeat: Heartbeat, receiver: Receiver
) -> None:
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
