"""`/livez`, `/readyz` and `/metrics`: what a container platform and Prometheus ask. No token, no secrets (SPEC 7)."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


@dataclass(frozen=True, slots=True)
class Checks:
    """What the pages ask of the daemon.

    `stuck` names rounds that have not woken in time; `unready` names what is not ready yet; `refresh` brings gauges
    up to date that are read from the store.
    """

    stuck: Callable[[], Sequence[str]]
    unready: Callable[[], Awaitable[Sequence[str]]]
    refresh: Callable[[], Awaitable[None]]


def health_routes(checks: Checks, registry: CollectorRegistry) -> list[web.RouteDef]:
    """Return the three routes."""

    async def livez(_: web.Request) -> web.Response:
        return _verdict(checks.stuck(), verbose=True)

    async def readyz(request: web.Request) -> web.Response:
        return _verdict(await checks.unready(), verbose="verbose" in request.query)

    async def metrics(_: web.Request) -> web.Response:
        await checks.refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]


def _verdict(problems: Sequence[str], *, verbose: bool) -> web.Response:
    if not problems:
        return web.Response(text="ok\n")
    lines = [f"not ok: {problem}" for problem in problems] if verbose else ["not ok"]
    return web.Response(status=503, text="\n".join(lines) + "\n")
