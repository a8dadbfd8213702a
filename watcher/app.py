"""Wiring, in one straight line: what the configuration asks for is built, run until it is to stop, and drained."""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from importlib.metadata import version

import structlog
from aiohttp import web
from pydantic import SecretStr
from yarl import URL

from watcher.account import AccountParts, AccountWatcher
from watcher.attempts import RetryRules
from watcher.cadence import Cadence, backoff, fixed
from watcher.clerk import ClerkApi
from watcher.client import Client
from watcher.clock import Clock, SystemClock
from watcher.config.models import AccountSettings, AnySink, PollingSettings, Settings, WatchSettings
from watcher.errors import ConfigError, StoreError
from watcher.events import sink_event
from watcher.health import Health
from watcher.housekeeping import Housekeeping, HousekeepingParts
from watcher.judge import Judge, Policy
from watcher.lane import LaneRules, SinkLane, Surroundings
from watcher.metrics import Metrics
from watcher.models import AccountTrouble, EventType, Outgoing, Watch
from watcher.pace import Pacer
from watcher.ports import Sink, Store
from watcher.proxy import proxy_for
from watcher.routing import Route, Router, types_matching
from watcher.schedule import Schedule
from watcher.sinks.stdout import StdoutSettings, StdoutSink
from watcher.sinks.webhook import WebhookSink
from watcher.store.opening import open_store
from watcher.web.health import Checks, health_routes

log = structlog.get_logger()

DRAIN_S = 8.0
"""What is in flight at the end has so long to finish (SPEC 6)."""

GAP_TOLERANCE = 1.1
"""A look is late against `max_interval` beyond this: jitter and one slow answer are not a budget too small."""


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
    router = Router({name: _route(sink) for name, sink in settings.sinks.items()})
    ending = _Ending(stop)
    async with AsyncExitStack() as stack:
        schedule = Schedule(clock=clock, fatal=ending.fail, lag=metrics.loop_lag.set)
        bells = Bells()
        store = await open_store(settings.store.url, clock=clock, on_recorded=bells.ring)
        stack.push_async_callback(store.close)
        common = Common(settings, store, clock, metrics, router, schedule, ending.fail)
        lanes = [await _lane(common, bells, stack, name=name, stdout_fd=stdout_fd) for name in settings.sinks]
        accounts = [await _account(common, stack, name=name) for name in settings.accounts]
        housekeeping = _housekeeping(common, accounts)
        schedule.add("housekeeping", housekeeping.round)
        checks = Checks(schedule.stuck, lambda: _unready(schedule, store), housekeeping.refresh_backlog)
        address = await _serve(stack, settings.http.listen, checks, metrics)
        metrics.reload_successful.set(1)
        metrics.reload_success_at.set(clock.now().timestamp())
        _say_started(settings, created=store.created, address=address)
        schedule.start()
        started(Started(address))
        await ending.wait()
        await _drain(schedule, [*accounts, *lanes], housekeeping)
    ending.reraise()


@dataclass(frozen=True, slots=True)
class Common:
    """What every part is built with."""

    settings: Settings
    store: Store
    clock: Clock
    metrics: Metrics
    router: Router
    schedule: Schedule
    fatal: Callable[[BaseException], None]


class Bells:
    """One bell per sink: rung when something was recorded for it."""

    def __init__(self) -> None:
        """Start with no bells: a store may ring before the lanes are there."""
        self.wakes: dict[str, Callable[[], None]] = {}

    def ring(self, sinks: Collection[str]) -> None:
        """Wake the lanes of those sinks."""
        for name in sinks:
            if wake := self.wakes.get(name):
                wake()


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


def _route(sink: AnySink) -> Route:
    pipelines = frozenset(str(pipeline) for pipeline in sink.match.pipelines)
    return Route(types_matching(sink.events), dict(sink.match.labels), pipelines)


async def _lane(common: Common, bells: Bells, stack: AsyncExitStack, *, name: str, stdout_fd: int) -> SinkLane:
    settings = common.settings.sinks[name]
    sink, rules = _sink(settings, clock=common.clock, stdout_fd=stdout_fd)
    stack.push_async_callback(sink.close)
    lease = await common.store.claim("sink", name)
    record = await common.store.load_sink(lease, fingerprint=_fingerprint(settings))
    bells.wakes[name] = common.schedule.waker(f"sink:{name}")
    surroundings = Surroundings(
        store=common.store,
        clock=common.clock,
        jitter=random.random,
        wake=bells.wakes[name],
        tell=_teller(common, name),
        fatal=common.fatal,
        metrics=common.metrics.sink(name),
    )
    lane = SinkLane(lease, sink=sink, record=record, rules=rules, surroundings=surroundings)
    common.schedule.add(f"sink:{name}", lane.round)
    return lane


def _sink(settings: AnySink, *, clock: Clock, stdout_fd: int) -> tuple[Sink, LaneRules]:
    if isinstance(settings, StdoutSettings):
        return StdoutSink(stdout_fd), LaneRules(RetryRules((1.0,), None), float("inf"))
    retry = RetryRules(settings.retry.schedule, settings.retry.give_up_after_s)
    return WebhookSink(settings, clock=clock), LaneRules(retry, settings.rate_limit)


def _fingerprint(settings: AnySink) -> str:
    """Stand for a sink's block without giving any of it away: a change of it ends `disabled`."""
    return blake2b(repr(_revealed(settings.model_dump())).encode(), digest_size=16).hexdigest()


def _revealed(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_revealed(item) for item in value]
    return value


def _teller(common: Common, sink: str) -> Callable[[EventType, int], tuple[Outgoing, ...]]:
    """Return what makes a sink's own event, for all the other sinks."""

    def tell(type_: EventType, sequence: int) -> tuple[Outgoing, ...]:
        at = common.clock.now()
        event = sink_event(type_, sink=sink, sequence=sequence, at=at, now_ms=_ms(at))
        return (Outgoing(event, common.router.sinks_for(type_, but=sink)),)

    return tell


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


async def _account(common: Common, stack: AsyncExitStack, *, name: str) -> AccountWatcher:
    settings, polling = common.settings.accounts[name], common.settings.polling
    client = await stack.enter_async_context(_client(settings, connections=polling.concurrency))
    lease = await common.store.claim("account", name)
    record = await common.store.load_account(lease)
    judge = Judge(
        lease=lease,
        router=common.router,
        clock=common.clock,
        policy=_policy(polling),
        cadence=_cadence(polling),
        jitter=random.random,
        link=settings.link,
    )
    trouble = AccountTrouble(record.trouble) if record.trouble else None
    parts = AccountParts(
        lease=lease,
        api=ClerkApi(client, base_url=settings.base_url, clock=common.clock),
        store=common.store,
        router=common.router,
        clock=common.clock,
        pacer=Pacer(settings.rate_limit),
        health=Health(degraded_after_s=polling.degraded_after_s, trouble=trouble),
        judge=judge,
        metrics=common.metrics.account(name),
        concurrency=polling.concurrency,
        gap_allowed_s=polling.max_interval_s * GAP_TOLERANCE + settings.timeout_s,
        wake=common.schedule.waker(f"account:{name}"),
        fatal=common.fatal,
    )
    watcher = AccountWatcher(parts, record, [_watch(watch) for watch in common.settings.watch if watch.account == name])
    common.schedule.add(f"account:{name}", watcher.round)
    return watcher


def _client(settings: AccountSettings, *, connections: int) -> Client:
    return Client(
        api_key=settings.api_key.get_secret_value(),
        timeout_s=settings.timeout_s,
        connections=connections,
        proxy=proxy_for(URL(settings.base_url)),
    )


def _policy(polling: PollingSettings) -> Policy:
    return Policy(polling.min_interval_s, polling.max_interval_s, polling.lost_after, polling.lost_grace_s)


def _cadence(polling: PollingSettings) -> Cadence:
    if polling.cadence == "fixed":
        return fixed(min_interval_s=polling.min_interval_s)
    return backoff(min_interval_s=polling.min_interval_s, max_interval_s=polling.max_interval_s, jitter=random.random)


def _watch(settings: WatchSettings) -> Watch:
    return Watch(
        account=settings.account,
        pipeline=str(settings.pipeline),
        executions=tuple(map(str, settings.executions)),
        name=settings.name,
        labels=dict(settings.labels),
        overdue_after_s={str(status): limit_s for status, limit_s in settings.overdue_after_s.items()},
    )


def _housekeeping(common: Common, accounts: Sequence[AccountWatcher]) -> Housekeeping:
    named = {
        (watch.account, str(watch.pipeline), str(execution))
        for watch in common.settings.watch
        for execution in watch.executions
    }
    return Housekeeping(
        HousekeepingParts(
            store=common.store,
            clock=common.clock,
            metrics=common.metrics,
            accounts=accounts,
            sinks=tuple(common.settings.sinks),
            retention_s=common.settings.store.retention_s,
            named=lambda account, pipeline, execution: (account, pipeline, execution) in named,
        )
    )


async def _unready(schedule: Schedule, store: Store) -> list[str]:
    problems = [f"{name} has not run yet" for name in schedule.unborn()]
    try:
        async with asyncio.timeout(2):
            await store.backlog()
    except (StoreError, TimeoutError):
        problems.append("the store cannot be read")
    return problems


async def _serve(stack: AsyncExitStack, listen: str, checks: Checks, metrics: Metrics) -> str:
    """Serve the pages and return the address they are at. Raises `ConfigError` if it cannot be had."""
    application = web.Application()
    application.add_routes(health_routes(checks, metrics.registry))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, _, port = listen.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"http.listen: cannot listen on {listen} ({reason}); choose another address or port"
        ) from None
    return f"{host}:{runner.addresses[0][1]}"


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
            await schedule.stop()
            await asyncio.gather(*(part.drain() for part in parts))
    except TimeoutError:
        log.warning("drain.cut_short", at_most_s=DRAIN_S)
    for part in parts:
        await part.cancel()
    await housekeeping.round()
    log.info("stopped")
