"""What strangers do at the port of the pages costs the daemon little, and keeps no probe from its answer."""

import asyncio
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import psutil
import pytest
from e2e.stage import Stage, document_of, world_of

FILES_COUNT = 1024
RATE = 100
PROBE = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5.0)"
"""A process of its own, as a platform's probe is: the crowd of this one would keep it busy between any two steps."""

Address = tuple[str, int]


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
METRICS = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


async def silent(stream: Stream) -> None:
    """Say nothing."""
    await stream[0].read()


async def not_reading(stream: Stream) -> None:
    """Ask for the metrics fifty times at once, and read none of them."""
    stream[1].transport.pause_reading()  # type: ignore[attr-defined] # it is a socket's
    stream[1].write(METRICS * 50)
    await asyncio.Event().wait()


async def greedy(stream: Stream) -> None:
    """Ask for the metrics again as soon as they are there."""
    while True:
        stream[1].write(METRICS)
        await stream[0].readuntil(b"watcher_build_info{")


async def noisy(stream: Stream) -> None:
    """Send what is no request."""
    stream[1].write(b"\x16\x03\x01\xff\r\n\r\n" * 20)
    await stream[0].read()


Behaviour = Callable[[Stream], Awaitable[None]]


async def come_again(behave: Behaviour, address: Address) -> None:
    """Connect and behave like that, over and over."""
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            stream = await asyncio.open_connection(*address)
            try:
                await behave(stream)
            finally:
                stream[1].transport.abort()


@asynccontextmanager
async def crowd(behave: Behaviour, address: Address, *, count: int) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(come_again(behave, address)) for _ in range(count)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@asynccontextmanager
async def files(count: int) -> AsyncIterator[None]:
    """What is started meanwhile may open so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("behave", "count", "polls_count"),
    [
        (not_reading, 100, 2 * RATE),
        pytest.param(silent, 1100, 4 * RATE, marks=pytest.mark.ci),
        pytest.param(greedy, 100, 4 * RATE, marks=pytest.mark.ci),
        pytest.param(noisy, 100, 4 * RATE, marks=pytest.mark.ci),
    ],
)
async def test_a_crowd_stops_no_poll_fills_no_log_and_keeps_no_probe_waiting(
    behave: Behaviour, count: int, polls_count: int, stage: Stage
) -> None:
    simulator = await stage.simulator(world_of(100, ends_within_s=90, ends_after_s=60))
    async with files(FILES_COUNT):
        life = await stage.start(document_of({"default": simulator}, rate_limit=f"{RATE}/s"))
        pages = await life.started()
    host, _, port = pages.removeprefix("http://").rpartition(":")
    await life.until(lambda: len(simulator.request_log.entries) > RATE, what="it polled")

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with files(hard), crowd(behave, (host, int(port)), count=count):
        asked = len(simulator.request_log.entries)
        await life.until(lambda: len(simulator.request_log.entries) > asked + polls_count, what="it went on polling")
        for path in ("livez", "readyz", "metrics"):
            probe = await asyncio.create_subprocess_exec(sys.executable, "-c", PROBE, f"{pages}/{path}")
            assert await probe.wait() == 0
        assert psutil.Process(life.pid).num_fds() < FILES_COUNT / 2
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    assert len(life.stderr.lines.lines) <= 4
    assert await life.stop() == 0
