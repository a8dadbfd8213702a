"""What a worker works with, and what it is put together from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from watcher.delivery.attempt import DeliverySender
from watcher.delivery.circuit_breaker import CircuitBreaker
from watcher.delivery.delivery_queue import DeliveryQueue
from watcher.delivery.duties import SinkDuties
from watcher.delivery.group_queue import GroupQueue
from watcher.delivery.silencing import Silencer
from watcher.delivery.sink_state import SinkState
from watcher.delivery.sink_state_store import SinkStateStore
from watcher.delivery.sinks.protocol import GroupRules, Sink, WorkerRules
from watcher.domain.event_factory import EventFactory
from watcher.domain.silences import Silences
from watcher.runtime.backoff import Jitter
from watcher.runtime.backpressure import Backpressure
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.runtime.scheduler import Wake
from watcher.store.changes import Lease
from watcher.store.records import SinkRecord
from watcher.store.sql_store import SqlStore


@dataclass(frozen=True, slots=True)
class WorkerDependencies:
    """What a worker works with. `fatal` is given what must end the program: a closed stdout, a lost store, a bug.

    `is_trusted` says whether the sink's lease is: while it is not, nothing is sent.
    """

    store: SqlStore
    is_trusted: Callable[[], bool]
    clock: Clock
    jitter: Jitter
    wake: Wake
    events: EventFactory
    silences: Silences
    fatal: Callable[[BaseException], None]
    metrics: SinkMetrics
    backpressure: Backpressure


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts of one worker, wired to each other."""

    queue: DeliveryQueue
    sink_state: SinkState
    state_store: SinkStateStore
    breaker: CircuitBreaker
    sender: DeliverySender
    duties: SinkDuties


def assemble(
    lease: Lease, *, sink: Sink, record: SinkRecord, rules: WorkerRules, deps: WorkerDependencies
) -> WorkerParts:
    """Return the parts, which go on from what is recorded of the sink."""
    clock, metrics = deps.clock, deps.metrics
    queue = _queue(lease, rules.group, deps)
    sink_state, breaker = SinkState(record, clock=clock), CircuitBreaker(opens=rules.breaks)
    state_store = SinkStateStore(sink_state, record, queue=queue, events=deps.events, clock=clock, metrics=metrics)
    sender = DeliverySender(
        sink=sink,
        queue=queue,
        breaker=breaker,
        sink_state=sink_state,
        retry=rules.retry,
        clock=clock,
        jitter=deps.jitter,
        metrics=metrics,
        keeps_messages=rules.keeps_messages,
    )
    duties = SinkDuties(
        sink,
        sink_state,
        state_store,
        queue=queue,
        clock=clock,
        metrics=metrics,
        remind_every_s=rules.remind_every_s,
        fatal=deps.fatal,
    )
    return WorkerParts(queue, sink_state, state_store, breaker, sender, duties)


def _queue(lease: Lease, rules: GroupRules | None, deps: WorkerDependencies) -> DeliveryQueue:
    make = DeliveryQueue if rules is None else partial(GroupQueue, rules=rules)
    return make(
        deps.store,
        lease=lease,
        is_trusted=deps.is_trusted,
        clock=deps.clock,
        silencer=Silencer(deps.silences, sink=lease.name, clock=deps.clock),
        metrics=deps.metrics,
    )
