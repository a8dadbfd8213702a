"""Functions that build the owners from settings: a poller for an account, a worker for a sink."""

import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from watcher.clerk.api import ClerkApi
from watcher.config.models import Settings
from watcher.daemon.from_settings import fingerprint_of_sink, open_client, poll_rules_of
from watcher.delivery.sink_state import WorkerDependencies
from watcher.delivery.worker import DeliveryWorker
from watcher.domain.event_factory import EventFactory
from watcher.domain.routing import Silences
from watcher.polling.account_poller import AccountPoller
from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.polling.dependencies import AccountDependencies
from watcher.polling.evaluator import ReplyEvaluator, backoff_cadence
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import AccountMetrics, Metrics, SinkMetrics
from watcher.runtime.pacing import Pacer
from watcher.runtime.scheduler import Schedule
from watcher.sinks.output import StdoutOutput
from watcher.sinks.protocol import SinkContext
from watcher.store.account_store import AccountStore
from watcher.store.leases import HeldLease
from watcher.store.operator_store import OperatorStore
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore


@dataclass(frozen=True, slots=True)
class OwnerDependencies:
    """The parts that all owners of a process share.

    `fatal` ends the process. Each owner gets a copy with a `fatal` of its own: there a lost lease ends only that owner.
    """

    clock: Clock
    metrics: Metrics
    events: EventFactory
    schedule: Schedule
    fatal: Callable[[BaseException], None]
    store: SqlStore
    operator: OperatorStore
    silences: Silences
    output: StdoutOutput


async def build_account(
    shared: OwnerDependencies, stack: AsyncExitStack, held: HeldLease, settings: Settings
) -> AccountPoller:
    """Build the poller of an account whose lease is held. `stack` closes the API client. Raises `StoreError`."""
    lease, clock, polling, account = held.lease, shared.clock, settings.polling, settings.accounts[held.lease.name]
    client = await stack.enter_async_context(open_client(account, connections=polling.concurrency, check=held.check))
    store, rules = AccountStore(shared.store, lease), poll_rules_of(settings, account=lease.name)
    record = await store.load_account()
    breaker = AccountCircuitBreaker(rules, record, clock=clock, jitter=random.random)
    longest_s = polling.min_interval_s if polling.cadence == "fixed" else polling.max_interval_s
    cadence = backoff_cadence(min_interval_s=polling.min_interval_s, max_interval_s=longest_s, jitter=random.random)
    deps = AccountDependencies(
        lease=lease,
        is_trusted=held.is_trusted,
        api=ClerkApi(client, base_url=account.base_url, clock=clock),
        store=store,
        clock=clock,
        pacer=Pacer(account.rate_limit, now=clock.monotonic()),
        breaker=breaker,
        record=record,
        rules=rules,
        evaluator=ReplyEvaluator(lease, shared.events, clock, cadence, account.link),
        metrics=AccountMetrics(shared.metrics, lease.name),
        concurrency=polling.concurrency,
        wake=shared.schedule.waker(f"account:{lease.name}"),
        fatal=shared.fatal,
    )
    return AccountPoller(deps)


async def build_worker(
    shared: OwnerDependencies, stack: AsyncExitStack, held: HeldLease, settings: Settings
) -> DeliveryWorker:
    """Build the worker of a sink whose lease is held. `stack` closes the sink. Raises `StoreError`."""
    name, block = held.lease.name, settings.sinks[held.lease.name]
    context = SinkContext(
        shared.clock,
        shared.output,
        take_slot=lambda: worker.take_slot(),  # noqa: PLW0108 (the worker is made below)
        before_request=held.check,
        public_url=settings.http.public_url or "",
        press=shared.operator.press,
        name=name,
    )
    sink = block.open(context)
    stack.push_async_callback(sink.close)
    store = SinkStore(shared.store, held.lease)
    record = await store.load(fingerprint=fingerprint_of_sink(block))
    deps = WorkerDependencies(
        store=store,
        rules=block.rules,
        is_trusted=held.is_trusted,
        clock=shared.clock,
        jitter=random.random,
        wake=shared.schedule.waker(f"sink:{name}"),
        events=shared.events,
        silences=shared.silences,
        fatal=shared.fatal,
        metrics=SinkMetrics(shared.metrics, name),
    )
    worker = DeliveryWorker(sink, record, deps)
    shared.store.wakes[name] = worker.wake
    stack.callback(shared.store.wakes.pop, name)
    return worker
