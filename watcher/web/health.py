"""`/livez`, `/readyz` and `/metrics`: what a container platform and Prometheus ask. No token, no secrets."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock

FRESH_S = 0.2
"""Metrics are made no more often, whoever asks for more."""

TIMEOUT_S = 2.0
"""How long the store may take to bring gauges up to date; then they are shown as they were."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What the pages ask of the daemon.

    `stalled` names jobs that have not woken in time; `unready` names what is not ready yet; `refresh` brings gauges
    up to date that are read from the store.
    """

    stalled: Callable[[], Sequence[str]]
    unready: Callable[[], Awaitable[Sequence[str]]]
    refresh: Callable[[], Awaitable[None]]


class Exposition:
    """The metrics as text, shared by all who ask at about the same time."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        refresh: Callable[[], Awaitable[None]],
        clock: Clock,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Have nothing to show yet."""
        self._registry = registry
        self._refresh = refresh
        self._clock = clock
        self._timeout_s = timeout_s
        self._refreshing: asyncio.Future[None] | None = None
        self._making: asyncio.Task[bytes] | None = None
        self._fresh_until = EARLIEST

    async def text(self) -> bytes:
        """Return the metrics of this moment, or of one just before."""
        if self._making is None or (self._making.done() and self._clock.monotonic() >= self._fresh_until):
            self._making = asyncio.create_task(self._make())
        return await asyncio.shield(self._making)

    async def _make(self) -> bytes:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.ensure_future(self._refresh())
        done, _ = await asyncio.wait([self._refreshing], timeout=self._timeout_s)
        for refreshed in done:
            refreshed.result()
        self._fresh_until = Monotonic(self._clock.monotonic() + FRESH_S)
        return generate_latest(self._registry)


def health_routes(checks: Checks, registry: CollectorRegistry, *, clock: Clock) -> list[web.RouteDef]:
    """Return the three routes."""
    exposition = Exposition(registry, refresh=checks.refresh, clock=clock)

    async def livez(_: web.Request) -> web.Response:
        return _response(checks.stalled(), verbose=True)

    async def readyz(request: web.Request) -> web.Response:
        return _response(await checks.unready(), verbose="verbose" in request.query)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await exposition.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]


def _response(problems: Sequence[str], *, verbose: bool) -> web.Response:
    if not problems:
        return web.Response(text="ok\n")
    lines = [f"not ok: {problem}" for problem in problems] if verbose else ["not ok"]
    return web.Response(status=503, text="\n".join(lines) + "\n")
