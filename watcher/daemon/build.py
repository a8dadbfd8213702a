"""From settings to parts: routes, watches, and one account's poller."""

import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from yarl import URL

from watcher.clerk.api import ClerkApi
from watcher.clerk.protocol import Api
from watcher.config.models import AccountSettings, PollingSettings, RulesSettings, Settings
from watcher.domain.event import AccountTrouble
from watcher.domain.event_factory import EventFactory
from watcher.domain.routing import Route, types_matching
from watcher.domain.rules import FailingRule, Rules
from watcher.domain.silences import Silence
from watcher.domain.watch import Watch
from watcher.polling.account_poller import AccountPoller
from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.polling.evaluator import ReplyEvaluator
from watcher.polling.page_processor import ScanRules
from watcher.polling.policy import Cadence, FailurePolicy, backoff_cadence, fixed_cadence
from watcher.polling.poll_queue import CONFIRM_WITHIN_S
from watcher.polling.session import AccountDependencies
from watcher.polling.status_reporter import StatusReporter
from watcher.runtime.backpressure import Backpressure
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import Client, proxy_for
from watcher.runtime.metrics import Metrics
from watcher.runtime.rate_limiter import SHARE, Pacer
from watcher.runtime.scheduler import Schedule
from watcher.sinks.stdout import StdoutSettings
from watcher.store.changes import Lease
from watcher.store.leases import HeldLease
from watcher.store.protocol import AccountStore
from watcher.store.records import AccountRecord

OUTRUN_AFTER_S = 300.0
"""A scan is outrun once it made no way for as many pages as half the rate, which it has at least, gives in so long."""

OUTRUN_PAGES = 50
"""But at a small rate no sooner: what comes in a pause of 15 minutes may be that many."""


@dataclass(frozen=True, slots=True)
class AccountOwnerDependencies:
    """What the owner of an account works with: one of each in a process. `fatal` ends it."""

    account_store: Callable[[Lease], AccountStore]
    clock: Clock
    metrics: Metrics
    events: EventFactory
    schedule: Schedule
    backpressure: Backpressure
    fatal: Callable[[BaseException], None]


def routes_of(settings: Settings) -> dict[str, Route]:
    """Return the routes of all sinks."""
    return {
        name: Route(
            types_matching(sink.events),
            dict(sink.match.labels),
            frozenset(map(str, sink.match.pipelines)),
            sink.rules.group,
        )
        for name, sink in settings.sinks.items()
    }


def silences_of(settings: Settings) -> list[Silence]:
    """Return the silences, each for the sinks it means: never for stdout, which is the record of what happened."""
    silenced = [name for name, sink in settings.sinks.items() if not isinstance(sink, StdoutSettings)]
    return [
        Silence(
            starts_at=silence.from_at,
            ends_at=silence.until_at,
            types=types_matching(silence.match.events) if silence.match.events else None,
            accounts=frozenset(silence.match.accounts),
            pipelines=frozenset(map(str, silence.match.pipelines)),
            sinks=frozenset(silence.match.sinks or silenced),
            labels=dict(silence.match.labels),
        )
        for silence in settings.silences
        if silenced
    ]


async def build_account(
    shared: AccountOwnerDependencies,
    stack: AsyncExitStack,
    held: HeldLease,
    *,
    settings: AccountSettings,
    polling: PollingSettings,
    retention_s: float,
    wrap_api: Callable[[Api], Api] = lambda api: api,
    cadence: Cadence | None = None,
) -> AccountPoller:
    """Build the poller of an account whose lease is held. `stack` closes its connections. Raises `StoreError`.

    `wrap_api` may put something between the account and its API, `cadence` stand for that of `polling`.
    """
    client = await stack.enter_async_context(open_client(settings, connections=polling.concurrency, check=held.check))
    store = shared.account_store(held.lease)
    record = await store.load_account()
    api = wrap_api(ClerkApi(client, base_url=settings.base_url, clock=shared.clock))
    evaluator = ReplyEvaluator(
        lease=held.lease,
        events=shared.events,
        clock=shared.clock,
        failures=_failures(shared, polling),
        cadence=cadence or _cadence(polling),
        link=settings.link,
    )
    deps = _account_dependencies(
        shared, held, store, record, api=api, evaluator=evaluator, settings=settings, polling=polling
    )
    return AccountPoller(deps, _scan_rules(polling, rate_per_s=settings.rate_limit, retention_s=retention_s))


def _account_dependencies(
    shared: AccountOwnerDependencies,
    held: HeldLease,
    store: AccountStore,
    record: AccountRecord,
    *,
    api: Api,
    evaluator: ReplyEvaluator,
    settings: AccountSettings,
    polling: PollingSettings,
) -> AccountDependencies:
    lease, clock, now = held.lease, shared.clock, shared.clock.monotonic()
    metrics = shared.metrics.account(lease.name)
    breaker = AccountCircuitBreaker(
        degraded_after_s=polling.degraded_after_s,
        now=now,
        trouble=AccountTrouble(record.trouble) if record.trouble else None,
        backoff=record.backoff,
    )
    reporter = StatusReporter(lease, record, breaker, store=store, events=shared.events, clock=clock, metrics=metrics)
    return AccountDependencies(
        lease=lease,
        is_trusted=held.is_trusted,
        api=api,
        store=store,
        clock=clock,
        pacer=Pacer(settings.rate_limit, now=now),
        breaker=breaker,
        reporter=reporter,
        evaluator=evaluator,
        failures=_failures(shared, polling),
        metrics=metrics,
        concurrency=polling.concurrency,
        backpressure=shared.backpressure,
        wake=shared.schedule.waker(f"account:{lease.name}"),
        fatal=shared.fatal,
    )


def open_client(settings: AccountSettings, *, connections: int, check: Callable[[], None] = lambda: None) -> Client:
    """Return the client of an account's key, which calls `check` before each request. Needs a running event loop."""
    return Client(
        api_key=settings.api_key.get_secret_value(),
        timeout_s=settings.timeout_s,
        connections=connections,
        proxy=proxy_for(URL(settings.base_url)),
        check=check,
    )


def _failures(shared: AccountOwnerDependencies, polling: PollingSettings) -> FailurePolicy:
    return FailurePolicy(
        min_interval_s=polling.min_interval_s,
        max_interval_s=polling.max_interval_s,
        lost_after=polling.lost_after,
        lost_grace_s=polling.lost_grace_s,
        clock=shared.clock,
        jitter=random.random,
    )


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
        return fixed_cadence(min_interval_s=polling.min_interval_s)
    return backoff_cadence(
        min_interval_s=polling.min_interval_s, max_interval_s=polling.max_interval_s, jitter=random.random
    )


def watches_of(settings: Settings, account: str) -> list[Watch]:
    """Return what the configuration asks of one account."""
    return [
        Watch(
            account=account,
            pipeline=str(watch.pipeline),
            executions=watch.executions,
            name=watch.name,
            labels=dict(watch.labels),
            overdue_after_s={str(status): limit_s for status, limit_s in watch.overdue_after_s.items()},
            rules=None if watch.rules is None else rules_of(watch.rules),
        )
        for watch in settings.watch
        if watch.account == account
    ]


def rules_of(settings: RulesSettings) -> Rules:
    """Return the rules of one watch."""
    failing = None
    if (given := settings.failing) is not None:
        within_us = round(given.within_s * 1_000_000)
        failing = FailingRule(given.consecutive, given.rate, given.of_last, within_us, given.at_least)
    silent_us = None if settings.silent_s is None else round(settings.silent_s * 1_000_000)
    return Rules(failing, silent_us)
