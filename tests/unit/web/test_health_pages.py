"""The pages a platform and Prometheus ask, over a real socket."""

from collections.abc import Sequence

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, Gauge

from watcher.web.health import Checks, health_routes


class Daemon:
    """What the pages ask about, as the test wants it."""

    def __init__(self) -> None:
        self.stuck: list[str] = []
        self.unready: list[str] = []
        self.registry = CollectorRegistry()
        self.pending = Gauge("watcher_outbox_pending", "Waiting.", registry=self.registry)

    async def ask_unready(self) -> Sequence[str]:
        return self.unready

    async def refresh(self) -> None:
        self.pending.set(7)

    async def get(self, path: str) -> tuple[int, str, str]:
        application = web.Application()
        checks = Checks(lambda: self.stuck, self.ask_unready, self.refresh)
        application.add_routes(health_routes(checks, self.registry))
        async with TestServer(application) as server, ClientSession() as session:
            response = await session.get(server.make_url(path))
            return response.status, await response.text(), response.headers["Content-Type"]


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


async def test_livez_is_ok_while_every_loop_wakes(daemon: Daemon) -> None:
    assert (await daemon.get("/livez"))[:2] == (200, "ok\n")
    daemon.stuck = ["account:eu"]
    assert (await daemon.get("/livez"))[:2] == (503, "not ok: account:eu\n")


async def test_readyz_says_what_is_not_ready_when_asked(daemon: Daemon) -> None:
    assert (await daemon.get("/readyz"))[:2] == (200, "ok\n")
    daemon.unready = ["the store cannot be written"]
    assert (await daemon.get("/readyz"))[:2] == (503, "not ok\n")
    assert (await daemon.get("/readyz?verbose"))[:2] == (503, "not ok: the store cannot be written\n")


async def test_metrics_are_prometheus_text_and_fresh(daemon: Daemon) -> None:
    status, text, content_type = await daemon.get("/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert "watcher_outbox_pending 7.0" in text
