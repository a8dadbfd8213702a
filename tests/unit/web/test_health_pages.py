"""The pages a platform and Prometheus ask, over a real socket."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from aiohttp import ClientResponse, ClientSession, web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from virtual import FakeClock

from watcher.web.health import FRESH_S, HOLD_S, Checks, Recent, exposition, health_routes


class Daemon:
    """What the pages ask about, as the test wants it."""

    def __init__(self) -> None:
        self.stalled: list[str] = []
        self.unready: list[str] = []
        self.registry = CollectorRegistry()
        self.pending = Gauge("watcher_outbox_pending", "Waiting.", registry=self.registry)
        self.clock = FakeClock()
        self.refreshed_count = 0
        self.store_answers = asyncio.Event()
        self.store_answers.set()

    async def ask_unready(self) -> Sequence[str]:
        return self.unready

    async def refresh(self) -> None:
        self.refreshed_count += 1
        await self.store_answers.wait()
        self.pending.set(7)

    def exposition(self, *, timeout_s: float = 10.0) -> Recent[bytes]:
        return exposition(self.text, refresh=self.refresh, clock=self.clock, timeout_s=timeout_s)

    def text(self) -> Iterator[bytes]:
        yield generate_latest(self.registry)

    async def get(self, path: str) -> tuple[int, str, str]:
        response = await self.ask(path)
        return response.status, await response.text(), response.headers["Content-Type"]

    async def ask(self, path: str, **headers: str) -> ClientResponse:
        application = web.Application()
        checks = Checks(lambda: self.stalled, self.ask_unready, self.refresh)
        application.add_routes(health_routes(lambda: checks, self.text, clock=self.clock))
        async with TestServer(application) as server, ClientSession() as session:
            response = await session.get(server.make_url(path), headers=headers)
            await response.read()
            return response


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


async def test_probes_are_ok_while_every_loop_wakes_and_say_what_is_not_ready_when_asked(daemon: Daemon) -> None:
    for path in ("/livez", "/readyz"):
        assert (await daemon.get(path))[:2] == (200, "ok\n")
    daemon.stalled, daemon.unready = ["account:eu"], ["the store cannot be written"]
    assert (await daemon.get("/livez"))[:2] == (503, "not ok: account:eu\n")
    assert (await daemon.get("/readyz"))[:2] == (503, "not ok\n")
    assert (await daemon.get("/readyz?verbose"))[:2] == (503, "not ok: the store cannot be written\n")


async def test_metrics_are_prometheus_text_and_fresh(daemon: Daemon) -> None:
    status, text, content_type = await daemon.get("/metrics")
    assert (status, content_type.startswith("text/plain; version=")) == (200, True)
    assert "watcher_outbox_pending 7.0" in text


@pytest.mark.parametrize(("accepted", "encoding"), [("gzip", "gzip"), ("deflate, gzip;q=1.0", "gzip"), ("br", None)])
async def test_metrics_are_compressed_for_who_takes_it(daemon: Daemon, accepted: str, encoding: str | None) -> None:
    answer = await daemon.ask("/metrics", **{"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == encoding
    assert "watcher_outbox_pending 7.0" in await answer.text()


@pytest.mark.parametrize(("piece_s", "others_ran"), [(HOLD_S, [0, 1, 2, 3]), (HOLD_S / 3, [0, 0, 0, 1])])
async def test_other_work_goes_on_while_a_long_text_of_metrics_is_made(piece_s: float, others_ran: list[int]) -> None:
    clock, turns, seen = FakeClock(), 0, list[int]()

    async def other_work() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def refresh() -> None:
        nonlocal turns
        turns = -1  # as this task ends, the other one has its turn first

    def text() -> Iterator[bytes]:
        for number in range(4):
            seen.append(turns)
            clock.advance(piece_s)
            yield b"%d" % number

    working = asyncio.create_task(other_work())
    assert await exposition(text, refresh=refresh, clock=clock).get() == b"0123"
    working.cancel()
    assert [each - seen[0] for each in seen] == others_ran


async def test_metrics_are_shown_as_they_were_while_the_store_does_not_answer(daemon: Daemon) -> None:
    daemon.store_answers.clear()
    shown = daemon.exposition(timeout_s=0.01)
    for _ in range(3):
        assert b"watcher_outbox_pending 0.0" in await shown.get()
        daemon.clock.advance(1)
    assert daemon.refreshed_count == 1
    daemon.store_answers.set()
    assert b"watcher_outbox_pending 7.0" in await daemon.exposition().get()


async def test_all_who_ask_share_the_metrics_and_whoever_leaves_breaks_none_off(daemon: Daemon) -> None:
    shown = daemon.exposition()
    texts = await asyncio.gather(*(shown.get() for _ in range(100)))
    daemon.clock.advance(FRESH_S - 0.01)
    assert {id(text) for text in (*texts, await shown.get())} == {id(texts[0])}
    assert daemon.refreshed_count == 1
    daemon.clock.advance(0.02)
    await shown.get()
    assert daemon.refreshed_count == 2
    daemon.store_answers.clear()
    shown = daemon.exposition()
    leaving, staying = (asyncio.create_task(shown.get()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    daemon.store_answers.set()
    assert b"watcher_outbox_pending 7.0" in await staying
