"""From settings to parts: one account's watcher, one sink's lane. Each is built in one place."""

import random
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from pydantic import SecretStr
from yarl import URL

from watcher.clerk.api import ClerkApi
from watcher.clerk.protocol import Api
from watcher.config.models import AccountSettings, AnySink, PollingSettings, Settings, WatchSettings
from watcher.daemon.maintenance import Kept
from watcher.delivery.retry_policy import RetryRules
from watcher.delivery.sinks.protocol import Sink
from watcher.delivery.sinks.stdout import Output, StdoutSettings, StdoutSink
from watcher.delivery.sinks.webhook import WebhookSink
from watcher.delivery.worker import LaneRules, SinkLane, Surroundings
from watcher.domain.cloudevents import sink_event
from watcher.domain.models import EventType, Outgoing, Watch
from watcher.domain.routing import Route, Router, types_matching
from watcher.polling.account_poller import AccountWatcher
from watcher.polling.account_state_store import HealthKeeper
from watcher.polling.cadence import Cadence, backoff, fixed
from watcher.polling.circuit_breaker import Health
from watcher.polling.evaluator import Judge, Policy
from watcher.polling.execution_poller import AccountParts
from watcher.polling.page_processor import ScanRules
from watcher.polling.poll_queue import CONFIRM_WITHIN_S
from watcher.polling.status_reporter import AccountAnnouncer
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import Client
from watcher.runtime.metrics import Metrics
from watcher.runtime.proxy import proxy_for
from watcher.runtime.rate_limiter import SHARE, Pacer
from watcher.runtime.scheduler import Schedule
from watcher.store.protocol import AccountRecord, Lease, Ledger, Store

OUTRUN_AFTER_S = 300.0
"""A scan is outrun once it made no way for as many pages as half the rate, which it has at least, gives in so long."""

OUTRUN_PAGES = 50
"""But at a small rate no sooner: what comes in a pause of 15 minutes may be that many."""


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


@dataclass(frozen=True, slots=True)
class AccountEquipment:
    """What the owner of an account works with: one of each in a process. `fatal` ends it."""

    store: Ledger
    clock: Clock
    metrics: Metrics
    router: Router
    schedule: Schedule
    fatal: Callable[[BaseException], None]


@dataclass(frozen=True, slots=True)
class Equipment(AccountEquipment):
    """What all owners work with, those of sinks included."""

    store: Store
    bells: Bells
    output: Output


def routes_of(settings: Settings) -> dict[str, Route]:
    """Return the routes of all sinks."""
    return {name: _route(sink) for name, sink in settings.sinks.items()}


def _route(sink: AnySink) -> Route:
    pipelines = frozenset(str(pipeline) for pipeline in sink.match.pipelines)
    return Route(types_matching(sink.events), dict(sink.match.labels), pipelines)


async def build_lane(equipment: Equipment, stack: AsyncExitStack, *, name: str, settings: AnySink) -> SinkLane:
    """Own a sink: claim it and build its lane. `stack` closes it. Raises `StoreError`."""
    metrics = equipment.metrics.sink(name)
    sink, rules = _sink(settings, equipment=equipment, retried=metrics.retried)
    stack.push_async_callback(sink.close)
    lease = await equipment.store.claim("sink", name)
    record = await equipment.store.load_sink(lease, fingerprint=fingerprint_of(settings))
    wake = equipment.schedule.waker(f"sink:{name}")
    equipment.bells.wakes[name] = wake
    stack.callback(equipment.bells.wakes.pop, name)
    surroundings = Surroundings(
        store=equipment.store,
        clock=equipment.clock,
        jitter=random.random,
        wake=wake,
        tell=_teller(equipment, name),
        fatal=equipment.fatal,
        metrics=metrics,
    )
    return SinkLane(lease, sink=sink, record=record, rules=rules, surroundings=surroundings)


def _sink(settings: AnySink, *, equipment: Equipment, retried: Callable[[], None]) -> tuple[Sink, LaneRules]:
    if isinstance(settings, StdoutSettings):
        return StdoutSink(equipment.output, format_=settings.format, retried=retried), LaneRules(
            RetryRules((1.0,), None), float("inf"), breaks=False
        )
    retry = RetryRules(settings.retry.schedule, settings.retry.give_up_after_s)
    return WebhookSink(settings, clock=equipment.clock), LaneRules(retry, settings.rate_limit)


def fingerprint_of(settings: AnySink) -> str:
    """Stand for a sink's block without giving any of it away: a change of it ends `disabled`.

    For what is written there alone: a later version has more keys, and other defaults.
    """
    return blake2b(repr(_revealed(settings.model_dump(exclude_unset=True))).encode(), digest_size=16).hexdigest()


def _revealed(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Mapping):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_revealed(item) for item in value]
    return value


def _teller(equipment: Equipment, sink: str) -> Callable[[EventType, int, str | None], tuple[Outgoing, ...]]:
    """Return what makes a sink's own event, for all the other sinks."""

    def tell(type_: EventType, sequence: int, answer: str | None) -> tuple[Outgoing, ...]:
        at = equipment.clock.now()
        event = sink_event(type_, sink=sink, answer=answer, sequence=sequence, at=at, now_ms=_ms(at))
        return (Outgoing(event, equipment.router.sinks_for(type_, but=sink)),)

    return tell


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


async def build_account(
    equipment: AccountEquipment,
    stack: AsyncExitStack,
    *,
    name: str,
    settings: AccountSettings,
    polling: PollingSettings,
    retention_s: float,
    tap: Callable[[Api], Api] = lambda api: api,
    cadence: Cadence | None = None,
) -> AccountWatcher:
    """Own an account: claim it and build its watcher. `stack` closes its connections. Raises `StoreError`.

    `tap` may put something between the account and its API, `cadence` stand for that of `polling`.
    """
    client = await stack.enter_async_context(open_client(settings, connections=polling.concurrency))
    lease = await equipment.store.claim("account", name)
    record = await equipment.store.load_account(lease)
    api = tap(ClerkApi(client, base_url=settings.base_url, clock=equipment.clock))
    judge = _judge(equipment, lease, polling=polling, cadence=cadence or _cadence(polling), link=settings.link)
    parts = _account_parts(equipment, lease, record, api=api, judge=judge, settings=settings, polling=polling)
    return AccountWatcher(parts, _scan_rules(polling, rate_per_s=settings.rate_limit, retention_s=retention_s))


def _account_parts(
    equipment: AccountEquipment,
    lease: Lease,
    record: AccountRecord,
    *,
    api: Api,
    judge: Judge,
    settings: AccountSettings,
    polling: PollingSettings,
) -> AccountParts:
    store, clock, now = equipment.store, equipment.clock, equipment.clock.monotonic()
    metrics = equipment.metrics.account(lease.name)
    announcer = AccountAnnouncer(lease, record, store=store, router=equipment.router, clock=clock, metrics=metrics)
    health = Health(degraded_after_s=polling.degraded_after_s, now=now, trouble=announcer.told, strain=record.strain)
    return AccountParts(
        lease=lease,
        api=api,
        store=store,
        clock=clock,
        pacer=Pacer(settings.rate_limit, now=now),
        health=health,
        announcer=announcer,
        keeper=HealthKeeper(lease, health, store=store, clock=clock),
        judge=judge,
        metrics=metrics,
        concurrency=polling.concurrency,
        wake=equipment.schedule.waker(f"account:{lease.name}"),
        fatal=equipment.fatal,
    )


def _judge(
    equipment: AccountEquipment, lease: Lease, *, polling: PollingSettings, cadence: Cadence, link: str | None
) -> Judge:
    return Judge(
        lease=lease,
        router=equipment.router,
        clock=equipment.clock,
        policy=_policy(polling),
        cadence=cadence,
        jitter=random.random,
        link=link,
    )


def open_client(settings: AccountSettings, *, connections: int) -> Client:
    """Return the client of an account's key. Needs a running event loop."""
    return Client(
        api_key=settings.api_key.get_secret_value(),
        timeout_s=settings.timeout_s,
        connections=connections,
        proxy=proxy_for(URL(settings.base_url)),
    )


def _policy(polling: PollingSettings) -> Policy:
    return Policy(polling.min_interval_s, polling.max_interval_s, polling.lost_after, polling.lost_grace_s)


def _scan_rules(polling: PollingSettings, *, rate_per_s: float, retention_s: float) -> ScanRules:
    return ScanRules(
        details=polling.details,
        first_sight=polling.first_sight,
        lookback_us=round(polling.lookback_s * 1_000_000),
        history_us=round(max(polling.lookback_s, retention_s) * 1_000_000),
        pages_at_most=max(OUTRUN_PAGES, round(rate_per_s * OUTRUN_AFTER_S / 2)),
        confirmed_at_most=rate_per_s * SHARE * CONFIRM_WITHIN_S / 2,
        min_interval_s=polling.min_interval_s,
        max_interval_s=polling.max_interval_s,
        lost_after=polling.lost_after,
        lost_grace_s=polling.lost_grace_s,
    )


def _cadence(polling: PollingSettings) -> Cadence:
    if polling.cadence == "fixed":
        return fixed(min_interval_s=polling.min_interval_s)
    return backoff(min_interval_s=polling.min_interval_s, max_interval_s=polling.max_interval_s, jitter=random.random)


def watches_of(settings: Settings, account: str) -> list[Watch]:
    """Return what the configuration asks of one account."""
    return [_watch(watch) for watch in settings.watch if watch.account == account]


def _watch(settings: WatchSettings) -> Watch:
    return Watch(
        account=settings.account,
        pipeline=str(settings.pipeline),
        executions=settings.executions,
        name=settings.name,
        labels=dict(settings.labels),
        overdue_after_s={str(status): limit_s for status, limit_s in settings.overdue_after_s.items()},
    )


def kept_by(settings: Settings) -> Kept:
    """Return what housekeeping is to keep."""
    named = {(watch.account, str(watch.pipeline)): frozenset(watch.executions) for watch in settings.watch}
    return Kept(
        sinks=tuple(settings.sinks),
        retention_s=settings.store.retention_s,
        named=lambda account, pipeline, execution: execution in named.get((account, pipeline), ()),
        pipelines=frozenset(key for key, executions in named.items() if not executions),
        listed_s=max(settings.store.retention_s, settings.polling.lookback_s),
    )
