"""From settings to the worker of one sink. Apart from `build`: `check` and `wait` need neither it nor SQLAlchemy."""

import random
from contextlib import AsyncExitStack
from dataclasses import dataclass

from watcher.config.models import AnySink
from watcher.daemon.build import AccountOwnerDependencies, fingerprint_of_sink
from watcher.delivery.sink_state import WorkerDependencies
from watcher.delivery.worker import DeliveryWorker
from watcher.domain.routing import Silences
from watcher.runtime.metrics import SinkMetrics
from watcher.sinks.output import StdoutOutput
from watcher.sinks.protocol import SinkContext
from watcher.store.leases import HeldLease
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore


@dataclass(frozen=True, slots=True)
class OwnerDependencies(AccountOwnerDependencies):
    """What all owners work with, those of sinks included."""

    store: SqlStore
    silences: Silences
    output: StdoutOutput


async def build_worker(
    shared: OwnerDependencies,
    stack: AsyncExitStack,
    held: HeldLease,
    *,
    settings: AnySink,
    public_url: str | None = None,
) -> DeliveryWorker:
    """Build the worker of a sink whose lease is held. `stack` closes it. Raises `StoreError`.

    Its messages link to our own pages at `public_url`, if there is one.
    """
    lease, name = held.lease, held.lease.name
    metrics = SinkMetrics(shared.metrics, name)
    context = SinkContext(
        shared.clock,
        shared.output,
        take_slot=lambda: worker.take_slot(),  # noqa: PLW0108 (it is there later)
        check=held.check,
        public_url=public_url or "",
    )
    sink = settings.open(context)
    stack.push_async_callback(sink.close)
    store = SinkStore(shared.store, lease)
    record = await store.load(fingerprint=fingerprint_of_sink(settings))
    deps = WorkerDependencies(
        is_trusted=held.is_trusted,
        clock=shared.clock,
        jitter=random.random,
        wake=shared.schedule.waker(f"sink:{name}"),
        events=shared.events,
        silences=shared.silences,
        fatal=shared.fatal,
        metrics=metrics,
        backpressure=shared.backpressure,
    )
    worker = DeliveryWorker(store, sink=sink, record=record, rules=settings.rules, deps=deps)
    shared.store.wakes[name] = worker.wake
    stack.callback(shared.store.wakes.pop, name)
    shared.store.takers[name] = worker.offer
    stack.callback(shared.store.takers.pop, name)
    stack.callback(shared.backpressure.note, name, has_backlog=False, turn_s=0.0)
    return worker
