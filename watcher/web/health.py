"""The routes `/livez`, `/readyz` and `/metrics` for container platforms and Prometheus: no token, no secrets."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import gzip_accepted

from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock

T = TypeVar("T")

FRESH_S = 0.2
"""Seconds for which one text of the metrics is served; a later request gets a new text."""

HOLD_S = 0.01
"""Seconds after which the making of the metrics' text lets the event loop do other work."""


@dataclass(frozen=True, slots=True)
class Checks:
    """The functions of the daemon that the routes call."""

    stalled: Callable[[], Sequence[str]]
    """Returns the jobs that have not woken in time."""
    unready: Callable[[], Awaitable[Sequence[str]]]
    """Returns the parts of the daemon that are not ready yet."""
    refresh: Callable[[], Awaitable[None]]
    """Updates the gauges that are read from the store."""


class Recent(Generic[T]):
    """A value that is computed once for all concurrent callers, and is not computed again within `fresh_s`."""

    def __init__(self, find: Callable[[], Awaitable[T]], *, fresh_s: float, clock: Clock) -> None:
        self._find = find
        self._fresh_s = fresh_s
        self._clock = clock
        self._finding: asyncio.Task[T] | None = None
        self._fresh_until = EARLIEST

    async def get(self) -> T:
        """Return the value; compute it first if there is none yet, or if it is older than `fresh_s`.

        If a caller is cancelled, the computation goes on for the others.
        """
        if self._finding is None or (self._finding.done() and self._clock.monotonic() >= self._fresh_until):
            self._finding = asyncio.create_task(self._find_out())
        return await asyncio.shield(self._finding)

    async def _find_out(self) -> T:
        try:
            return await self._find()
        finally:
            self._fresh_until = Monotonic(self._clock.monotonic() + self._fresh_s)


def exposition(
    text: Callable[[], Iterator[bytes]],
    *,
    refresh: Callable[[], Awaitable[None]],
    clock: Clock,
    timeout_s: float = 2.0,
) -> Recent[bytes]:
    """Return the text of the metrics as a `Recent`. `text` yields it in pieces, between which the event loop may run.

    Gauges that are read from the store keep their old values if the store does not answer within `timeout_s`.
    """
    refreshed = Recent(refresh, fresh_s=0.0, clock=clock)

    async def make() -> bytes:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await refreshed.get()
        pieces, held_since = [], clock.monotonic()
        for piece in text():
            pieces.append(piece)
            if clock.monotonic() >= held_since + HOLD_S:
                await asyncio.sleep(0)
                held_since = clock.monotonic()
        return b"".join(pieces)

    return Recent(make, fresh_s=FRESH_S, clock=clock)


def health_routes(
    checks: Callable[[], Checks], metrics_text: Callable[[], Iterator[bytes]], *, clock: Clock
) -> list[web.RouteDef]:
    """Return the three routes. For each request they get the present functions of the daemon from `checks`."""
    text = exposition(metrics_text, refresh=lambda: checks().refresh(), clock=clock)

    async def livez(_: web.Request) -> web.Response:
        return _response(checks().stalled(), verbose=True)

    async def readyz(request: web.Request) -> web.Response:
        return _response(await checks().unready(), verbose="verbose" in request.query)

    async def metrics(request: web.Request) -> web.Response:
        response = web.Response(body=await text.get(), headers={"Content-Type": CONTENT_TYPE_LATEST})
        if gzip_accepted(request.headers.get("Accept-Encoding", "")):
            response.enable_compression(web.ContentCoding.gzip)  # in a thread
        return response

    return [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]


def _response(problems: Sequence[str], *, verbose: bool) -> web.Response:
    if not problems:
        return web.Response(text="ok\n")
    lines = [f"not ok: {problem}" for problem in problems] if verbose else ["not ok"]
    return web.Response(status=503, text="\n".join(lines) + "\n")
