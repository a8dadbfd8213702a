"""The worker of one sink: which of its deliveries goes when, and who hears how the sink is.

It owns concurrency, pace, pauses and the order within a stream. What an answer means for a delivery the retry
policy says, how the sink is its state, what trouble with the store means the queue; one attempt is the sender's.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from watcher.delivery.attempt import Attempt, DeliverySender
from watcher.delivery.circuit_breaker import CircuitBreaker
from watcher.delivery.delivery_queue import BATCH, DeliveryQueue
from watcher.delivery.sink_state import SinkState
from watcher.delivery.sink_state_store import SinkStateStore
from watcher.delivery.sinks.protocol import Sink, WorkerRules
from watcher.domain.event_factory import EventFactory
from watcher.domain.models import Delivery
from watcher.runtime.backoff import Jitter
from watcher.runtime.backpressure import Backpressure
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.runtime.rate_limiter import Pacer
from watcher.runtime.scheduler import Wake
from watcher.store.protocol import Lease, SinkRecord, Store

CONCURRENCY = 16
"""At most so many requests in flight per sink (SPEC 5)."""

UNSETTLED_COUNT = 512
"""At most so many deliveries that were begun and are not settled: a kill repeats no more."""

REST_S = 10.0
"""The longest a worker asks to be left alone; whatever happens in between wakes it."""

SENDING_TURNS = 40
"""A request that takes longer than so many turns of the event loop waits for its receiver."""

GIVE_UP_EVERY_S = 60.0
GIVE_UP_SHARE = 0.05
"""What has waited too long is looked for so often, and at least so often within `give_up_after`."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerDependencies:
    """What a worker works with.

    `fatal` is given what must end the program: a closed stdout, a store that is lost, or an error in the worker itself.
    """

    store: Store
    clock: Clock
    jitter: Jitter
    wake: Wake
    events: EventFactory
    fatal: Callable[[BaseException], None]
    metrics: SinkMetrics
    backpressure: Backpressure


class DeliveryWorker:
    """The deliveries of one sink whose lease is held. Call `tick` when it asks to be, and whenever it calls `wake`."""

    def __init__(
        self, lease: Lease, *, sink: Sink, record: SinkRecord, rules: WorkerRules, deps: WorkerDependencies
    ) -> None:
        """Go on from what is recorded of the sink."""
        self._deps = deps
        self._clock = deps.clock
        self._store = DeliveryQueue(deps.store, lease=lease, clock=self._clock)
        self._sink_state = SinkState(record, clock=self._clock)
        self._state_store = SinkStateStore(
            self._sink_state,
            record,
            queue=self._store,
            events=deps.events,
            clock=self._clock,
            metrics=deps.metrics,
        )
        self._pacer = Pacer(rules.rate_per_s, now=self._clock.monotonic())
        self._breaker = CircuitBreaker(opens=rules.breaks)
        self._give_up_after_s = rules.retry.give_up_after_s
        self._sender = DeliverySender(
            sink=sink,
            store=self._store,
            breaker=self._breaker,
            sink_state=self._sink_state,
            retry=rules.retry,
            clock=self._clock,
            jitter=deps.jitter,
            metrics=deps.metrics,
        )
        self._ready: deque[Delivery] = deque()
        self._trial: Delivery | None = None  # what is tried next while the breaker is open, and when that may be
        self._trial_at = float("-inf")
        self._held: set[bytes] = set()  # the streams of all these and of what is not settled: one each, and in order
        self._sending: set[asyncio.Task[None]] = set()
        self._answered: list[Attempt] = []  # and not handed to the store yet
        self._settling: asyncio.Task[None] | None = None
        self._unsettled_count = 0
        self._is_backlog = False
        self._sending_s = 0.0  # how long the last answer took
        self._next_due_at: int | None = None
        self._nothing_waits = False
        self._give_up_at = float("-inf")
        self._next_tick_at = float("-inf")
        self._stopped = False

    async def tick(self) -> float:
        """Start what is due and allowed; return in how many seconds to be called again."""
        if self._sending:
            self._sink_state.tried()
        self._sink_state.check()
        if not await self._state_store.report():
            self._give_back()
        await self._refill()
        self._start()
        await self._note_backlog()
        rest_s = self._rest_s()
        self._next_tick_at = self._clock.monotonic() + rest_s
        return rest_s

    async def flush(self) -> None:
        """Let the store know how long the sink has been served, and failing, while something waits for it.

        What has waited too long is given up. A store that is in trouble is not asked.
        """
        if self._nothing_waits or self._clock.monotonic() < self._store.retry_at:
            return
        if await self._state_store.save():
            await self._give_up()

    def retried(self, why: str) -> None:
        """Note that the sink tries again by itself. May be called from any thread."""
        self._deps.metrics.retried()
        self._sink_state.answered(why)

    async def drain(self) -> None:
        """Start nothing more and wait for what is in flight."""
        self._stopped = True
        while under_way := self._under_way():
            await asyncio.wait(under_way)

    async def cancel(self) -> None:
        """Break off what is in flight: it comes due again, under the same id."""
        self._stopped = True
        under_way = self._under_way()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _give_up(self) -> None:
        """Make dead letters of what was first due too long ago, whether or not it was ever tried since."""
        after_s, now = self._give_up_after_s, self._clock.monotonic()
        if after_s is None or self._sink_state.disabled or now < self._give_up_at:
            return
        self._give_up_at = now + min(GIVE_UP_EVERY_S, after_s * GIVE_UP_SHARE)
        count = await self._store.give_up(
            clock_s=self._sink_state.clock_s(), after_s=after_s, skip=frozenset(self._held)
        )
        if count:
            self._deps.metrics.dead(count)
            log.warning("deliveries.died", sink=self._store.lease.name, count=count, why="give_up_after has passed")
            self._deps.wake()

    async def _refill(self) -> None:
        if self._resting() or self._clock.monotonic() < self._sends_from() or len(self._ready) >= CONCURRENCY:
            return
        if self._breaker.is_open:
            await self._take_trial()
            return
        due = await self._store.take(skip=frozenset(self._held))
        if due is None:
            self._give_back()
            return
        self._ready.extend(due.deliveries)
        self._held.update(delivery.stream for delivery in due.deliveries)
        self._next_due_at = due.next_due_at
        self._is_backlog = len(due.deliveries) == BATCH
        self._note_rest(not self._held and due.next_due_at is None)

    async def _note_backlog(self) -> None:
        """Let polling make room while more waits than one read takes, unless the sink itself holds it up.

        It does if its answers take much longer than the turns of the event loop that a request needs.
        """
        began_at = self._clock.monotonic()
        sends_from = max(self._sends_from(), self._pacer.ready_at())
        waits = self._is_backlog and not (self._resting() or self._breaker.is_open or sends_from > began_at)
        if waits:
            await asyncio.sleep(0)
        turn_s = self._clock.monotonic() - began_at
        waits = waits and self._sending_s <= SENDING_TURNS * turn_s
        self._deps.backpressure.note(self._store.lease.name, has_backlog=waits, turn_s=turn_s)

    async def _take_trial(self) -> None:
        """Take one delivery once it may be tried while the breaker is open; else note when one may be."""
        now, breaker = self._clock.monotonic(), self._breaker
        if breaker.is_trying or self._trial is not None:
            return
        never_tried_from, tried_from = breaker.opens_at(never_tried=True), breaker.opens_at(never_tried=False)
        self._trial_at = min(never_tried_from, tried_from)
        if now < self._trial_at:
            return
        trial = await self._store.take_trial(skip=frozenset(self._held), never_tried=now < tried_from)
        if trial is None:
            self._trial_at = tried_from if now < tried_from else float("inf")
            self._note_rest(now >= tried_from and not self._held and not self._store.failing)
            return
        self._trial_at = tried_from if trial.attempts else never_tried_from
        if self._trial_at <= now:
            self._trial = trial
            self._held.add(trial.stream)

    def _note_rest(self, nothing_waits: bool) -> None:  # noqa: FBT001 (what is noted)
        self._nothing_waits = nothing_waits
        if nothing_waits:
            self._sink_state.rested()

    def _give_back(self) -> None:
        """Forget what was taken but not begun."""
        if self._trial is not None:
            self._ready.append(self._trial)
            self._trial = None
        self._held.difference_update(delivery.stream for delivery in self._ready)
        self._ready.clear()

    def _resting(self) -> bool:
        return self._stopped or self._sink_state.disabled

    def _sends_from(self) -> float:
        """Return the monotonic moment before which nothing goes, for the sink or the store wants to be left alone."""
        return max(self._sink_state.paused_until, self._store.retry_at)

    def _has_capacity(self, now: float) -> bool:
        if self._resting() or now < self._sends_from():
            return False
        if self._store.failing:  # what it does not take goes out again: one shows whether it does
            return not self._unsettled_count
        return len(self._sending) < CONCURRENCY and self._unsettled_count < UNSETTLED_COUNT

    def _start(self) -> None:
        now = self._clock.monotonic()
        if self._breaker.is_open:
            self._start_trial(now)
            return
        if self._trial is not None:
            self._ready.appendleft(self._trial)
            self._trial = None
        while self._ready and self._has_capacity(now) and self._pacer.ready_at() <= now:
            self._send(self._next_batch(), is_trial=False, now=now)

    def _next_batch(self) -> list[Delivery]:
        """Take what goes next. What was tried before goes alone: it may be what kept the others from being sent."""
        batch = [self._ready.popleft()]
        count = min(self._sender.sink.batch_count, UNSETTLED_COUNT - self._unsettled_count)
        if self._store.failing or batch[0].attempts:
            return batch
        while len(batch) < count and self._ready and not self._ready[0].attempts:
            batch.append(self._ready.popleft())
        return batch

    def _start_trial(self, now: float) -> None:
        """Start what may be tried while the breaker is open, and give back what was taken before it opened."""
        trial, self._trial = self._trial, None
        self._give_back()
        if trial is None:
            return
        if self._has_capacity(now) and self._pacer.ready_at() <= now:
            self._breaker.trial_begins(never_tried=not trial.attempts, now=now)
            self._send([trial], is_trial=True, now=now)
        else:
            self._trial = trial

    def _send(self, batch: list[Delivery], *, is_trial: bool, now: float) -> None:
        self._pacer.spend(now)
        self._unsettled_count += len(batch)
        task = asyncio.create_task(self._attempt(batch, is_trial=is_trial))
        self._sending.add(task)
        task.add_done_callback(self._ended)

    async def _attempt(self, batch: list[Delivery], *, is_trial: bool) -> None:
        began_at = self._clock.monotonic()
        try:
            attempts = await self._sender.send(batch, waited=is_trial and batch[0].attempts > 0)
        finally:
            if is_trial:
                self._breaker.trial_ends()
        self._sending_s = self._clock.monotonic() - began_at
        self._answered.extend(attempts)
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle())
            self._settling.add_done_callback(self._ended)

    async def _settle(self) -> None:
        """Settle what was answered, and what is answered meanwhile: the slower the store, the more at once."""
        while self._answered:
            attempts, self._answered = self._answered, []
            recorded = await self._sender.settle(attempts)
            self._unsettled_count -= len(attempts)
            self._held.difference_update(attempt.delivery.stream for attempt in attempts)
            if not recorded:
                self._give_back()
            self._go_on(is_more=True)  # the next of these streams, or the same ones for later

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._stopped = True
            self._deps.fatal(error)
        self._go_on(is_more=self._is_backlog)

    def _go_on(self, *, is_more: bool) -> None:
        """Let the next ones go at once; ask for a tick if the store may have more, or the next tick comes too late."""
        self._start()
        if self._stopped:
            return
        may_take = is_more and len(self._ready) < CONCURRENCY
        is_late = self._clock.monotonic() + self._rest_s() < self._next_tick_at
        if may_take or is_late or not self._state_store.is_reported:
            self._deps.wake()

    def _under_way(self) -> set[asyncio.Task[None]]:
        settling = self._settling
        return self._sending | ({settling} if settling is not None and not settling.done() else set())

    def _rest_s(self) -> float:
        now, from_at = self._clock.monotonic(), self._sends_from()
        if now < from_at:
            return min(REST_S, from_at - now)
        if not self._has_capacity(now) or (self._breaker.is_open and self._breaker.is_trying):
            return REST_S
        return min(REST_S, max(0.0, self._next_start_s(now)))

    def _next_start_s(self, now: float) -> float:
        if self._ready or self._trial is not None:
            return self._pacer.ready_at() - now
        if self._breaker.is_open:
            return self._trial_at - now
        if self._next_due_at is None:
            return REST_S
        return (self._next_due_at - self._clock.steady_us()) / 1e6
