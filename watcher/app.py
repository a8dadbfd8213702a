"""Wiring, in one straight line: what the configuration asks for is built, run until it is to stop, and drained."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version

import structlog
from aiohttp import web

from watcher.account import AccountWatcher
from watcher.assembly import Bells, Common, build_account, build_housekeeping, build_lane, build_router
from watcher.clock import SystemClock
from watcher.config.models import Settings
from watcher.errors import ConfigError, StoreError
from watcher.housekeeping import Housekeeping
from watcher.lane import SinkLane
from watcher.metrics import Metrics
from watcher.readiness import Readiness
from watcher.schedule import Schedule
from watcher.store.opening import open_store
from watcher.units import parse_address
from watcher.web.health import Checks, health_routes

log = structlog.get_logger()

DRAIN_S = 7.0
"""What is in flight at the end has so long to finish: with closing everything, the end comes within 8 s (SPEC 6)."""

FLUSH_S = 0.5


@dataclass(frozen=True, slots=True)
class Started:
    """What is known once the daemon runs: where it is listening."""

    http: str


async def run(
    settings: Settings,
    *,
    stop: asyncio.Event,
    stdout_fd: int = 1,
    started: Callable[[Started], None] = lambda _started: None,
) -> None:
    """Run the daemon until `stop` is set, then finish what is in flight, for at most 8 s.

    Raises what ended it otherwise: `StoreError`, `ConfigError`, `OutputClosedError`.
    """
    clock, metrics = SystemClock(), Metrics()
    ending = _Ending(stop)
    async with AsyncExitStack() as stack:
        schedule = Schedule(clock=clock, fatal=ending.fail, lag=metrics.loop_lag.set)
        bells = Bells()
        store = await open_store(settings.store.url, clock=clock, on_recorded=bells.ring)
        stack.push_async_callback(store.close)
        common = Common(settings, store, clock, metrics, build_router(settings), schedule, ending.fail)
        lanes = [
            await build_lane(common, stack, name=name, bells=bells, stdout_fd=stdout_fd) for name in settings.sinks
        ]
        accounts = [await build_account(common, stack, name=name) for name in settings.accounts]
        housekeeping = build_housekeeping(common, accounts)
        schedule.add("housekeeping", housekeeping.round)
        readiness = Readiness(store, clock=clock)
        checks = Checks(schedule.stuck, lambda: _unready(schedule, readiness), housekeeping.refresh_backlog)
        address = await _serve(stack, settings.http.listen, checks, metrics)
        metrics.reload_successful.set(1)
        metrics.reload_success_at.set(clock.now().timestamp())
        _say_started(settings, created=store.created, address=address)
        schedule.start()
        started(Started(address))
        await ending.wait()
        await _drain(schedule, [*accounts, *lanes], housekeeping)
    ending.reraise()


class _Ending:
    """Why the daemon ends: it was asked to, or something failed for good."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """End the daemon with its first failure."""
        self._failure = self._failure or error
        self._stop.set()

    async def wait(self) -> None:
        """Wait until it is time."""
        await self._stop.wait()

    def reraise(self) -> None:
        """Raise the failure, if that was the reason."""
        if self._failure is not None:
            raise self._failure


async def _unready(schedule: Schedule, readiness: Readiness) -> list[str]:
    problems = [f"{name} has not run yet" for name in schedule.unborn()]
    if problem := await readiness.problem():
        problems.append(problem)
    return problems


async def _serve(stack: AsyncExitStack, listen: str, checks: Checks, metrics: Metrics) -> str:
    """Serve the pages and return the address they are at. Raises `ConfigError` if it cannot be had."""
    application = web.Application()
    application.add_routes(health_routes(checks, metrics.registry))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, port = parse_address(listen)
    try:
        await web.TCPSite(runner, host or None, port).start()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"http.listen: cannot listen on {listen} ({reason}); choose another address or port"
        ) from None
    return f"{listen.rpartition(':')[0]}:{runner.addresses[0][1]}"


def _say_started(settings: Settings, *, created: bool, address: str) -> None:
    if created:
        log.warning(
            "store.created", store=settings.store.url, note="it starts empty: nothing told before is remembered"
        )
    log.info(
        "started",
        version=version("clerk-watcher"),
        accounts=len(settings.accounts),
        watches=len(settings.watch),
        sinks=len(settings.sinks),
        store=settings.store.url,
        http=address,
    )


async def _drain(schedule: Schedule, parts: Sequence[AccountWatcher | SinkLane], housekeeping: Housekeeping) -> None:
    """Let nothing new start, and what is in flight end; what takes too long is given up and comes due again."""
    log.info("draining", at_most_s=DRAIN_S)
    try:
        async with asyncio.timeout(DRAIN_S):
            # Together: a round that hangs on the store must find its part draining when it goes on.
            await asyncio.gather(schedule.stop(), *(part.drain() for part in parts))
    except TimeoutError:
        log.warning("drain.cut_short", at_most_s=DRAIN_S)
    for part in parts:
        await part.cancel()
    with suppress(StoreError, TimeoutError):  # what is not flushed was looked at a little earlier, for all we know
        async with asyncio.timeout(FLUSH_S):
            await housekeeping.flush()
    log.info("stopped")
