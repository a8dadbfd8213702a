"""The worker of one sink: which of its deliveries goes when. It owns concurrency, pace, pauses and order in a stream.

The retry policy says what an answer means, the sink's state how the sink is, the queue what a store error means.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from watcher.delivery.delivery_queue import BATCH, DeliveryQueue, StorePausedError, WorkerDependencies, hold_key
from watcher.delivery.group_queue import GroupQueue
from watcher.delivery.open_problems import OpenProblems
from watcher.delivery.retries import CircuitBreaker
from watcher.delivery.sender import Attempt, DeliverySender
from watcher.delivery.sink_state import SinkState, SinkStateStore
from watcher.domain.delivery import TAKEN, Delivery
from watcher.domain.timestamps import EARLIEST, LATEST, Micros, Monotonic
from watcher.runtime.rate_limiter import Pacer
from watcher.sinks.protocol import Sink, WorkerRules
from watcher.store.changes import Lease
from watcher.store.records import SinkRecord

CONCURRENCY = 16
"""At most so many requests in flight per sink."""

UNSETTLED_COUNT = 512
"""At most so many deliveries that were begun and are not settled: a kill repeats no more."""

REST_S = 10.0
"""The longest a worker asks to be left alone; whatever happens in between wakes it."""

SHARED_REST_S = 1.0
"""The same where others record too: the word that wakes it may get lost. And while the store takes no writes."""

SENDING_TURNS = 40
"""A request that takes longer than so many turns of the event loop waits for its receiver."""


class DeliveryWorker:
    """The deliveries of one sink whose lease is held. Call `tick` when it asks to be, and whenever it calls `wake`."""

    _is_trial = False  # whether what is ready was taken to be tried while the breaker is open
    _trial_at = EARLIEST  # when the next of those may be taken
    _settling: asyncio.Task[None] | None = None
    _unsettled_count = 0
    _is_backlog = False
    _has_noted_backlog = False
    _sending_s = 0.0  # how long the last answer took
    _next_due_at: Micros | None = None
    _is_unread = True  # whether the store may have something due that was not read
    _nothing_waits = False
    _next_tick_at = EARLIEST
    _stopped = False

    def __init__(
        self, lease: Lease, *, sink: Sink, record: SinkRecord, rules: WorkerRules, deps: WorkerDependencies
    ) -> None:
        """Go on from what is recorded of the sink."""
        self.sink = lease.name
        self.groups_for_s = 0.0 if rules.group is None else rules.group.wait_s
        self._deps = deps
        self._clock = deps.clock
        self._is_grouped = rules.group is not None
        self._queue = DeliveryQueue(lease, deps) if rules.group is None else GroupQueue(lease, deps, rules=rules.group)
        self._breaker = CircuitBreaker(opens=rules.breaks)
        self._sink_state = SinkState(record, clock=deps.clock)
        self._state_store = SinkStateStore(self._sink_state, record, queue=self._queue, deps=deps)
        self._sender = DeliverySender(sink, rules, deps, self._queue, self._breaker, self._sink_state)
        self._problems = OpenProblems(
            sink, self._sink_state, self._state_store, queue=self._queue, rules=rules, deps=deps
        )
        self._longest_rest_s = REST_S if deps.store.exclusive else SHARED_REST_S
        self._pacer = Pacer(rules.rate_per_s, now=deps.clock.monotonic())
        self._ready: deque[Delivery] = deque()  # of a group the first, which stands for it
        self._held: set[bytes] = set()  # the streams, or groups, of all these and of what is not settled: one each
        self._taking = asyncio.Lock()  # what is taken from the store is in `_held` before something else is asked of it
        self._sending: set[asyncio.Task[None]] = set()
        self._answered: list[tuple[list[Delivery], list[Attempt]]] = []  # and not settled yet

    async def tick(self) -> float:
        """Start what is due and allowed; return in how many seconds to be called again.

        While the lease is not trusted, nothing is: the worker is woken once it is again.
        """
        if not self._deps.is_trusted():
            self._give_back()
            self._sink_state.rested()  # nothing is tried, so that time is no failure of the sink
            return REST_S
        if self._sending:
            self._sink_state.tried()
        elif not self._queue.takes_writes:
            self._sink_state.rested()
        self._sink_state.check()
        if self._answered:
            await self._settle_kept()
        try:
            if not self._state_store.is_reported and self._clock.monotonic() >= self._queue.retry_at:
                await self._state_store.report()
            await self._problems.tick()
            async with self._taking:
                await self._refill()
        except StorePausedError:
            self._give_back()
        self._start()
        if self._is_backlog or self._has_noted_backlog:
            await self._note_backlog()
        now = self._clock.monotonic()
        rest_s = min(self._rest_s(now), self._problems.rest_s(now))
        self._next_tick_at = Monotonic(now + rest_s)
        return rest_s

    async def flush(self) -> None:
        """Save how long the sink has been served and failing, and give up what waited too long, while something waits.

        What was answered is settled first. A store that is in trouble is not asked, but for that at the end.
        """
        if self._stopped:
            await self._settle()
        else:
            await self._settle_kept()
        if self._clock.monotonic() < self._queue.retry_at or (self._nothing_waits and self._queue.takes_writes):
            return
        with suppress(StorePausedError):
            await self._state_store.save()
            async with self._taking:
                if await self._sender.give_up(skip=frozenset(self._held)):
                    self._deps.wake()

    def retried(self, why: str) -> None:
        """Note that the sink tries again by itself. May be called from any thread."""
        self._deps.metrics.retried()
        self._sink_state.answered(why)

    def take_slot(self) -> float:
        """Take the slot of one more request of what is being sent; return in how many seconds it may go."""
        self._sink_state.went_on()
        now = self._clock.monotonic()
        at = max(now, self._pacer.ready_at, self._sink_state.paused_until)
        self._pacer.spend(at)
        return at - now

    async def drain(self) -> None:
        """Start nothing more and wait for what is in flight."""
        self._stopped = True
        while under_way := self._under_way():
            await asyncio.wait(under_way)

    async def cancel(self) -> None:
        """Break off what is in flight: it comes due again, under the same id."""
        self._stopped = True
        for task in (under_way := self._under_way()):
            task.cancel()
        await asyncio.gather(self._problems.cancel(), *under_way, return_exceptions=True)

    async def _refill(self) -> None:
        if self._resting() or self._clock.monotonic() < self._sends_from():
            return
        if len(self._ready) >= CONCURRENCY:
            self._is_unread = True  # what it was woken for is read once there is room
            return
        if self._breaker.is_open:
            await self._take_trial()
        else:
            due = await self._queue.take(skip=frozenset(self._held))
            self._hold(due.deliveries, is_trial=False)
            self._next_due_at = due.next_due_at
            self._is_unread = False
            self._is_backlog = len(due.deliveries) == BATCH
            self._note_rest(not self._held and due.next_due_at is None)

    async def _note_backlog(self) -> None:
        """Let polling make room while more waits than one read takes, unless the sink itself holds it up.

        It does if its answers take much longer than the turns of the event loop that a request needs.
        """
        began_at = self._clock.monotonic()
        sends_from = max(self._sends_from(), self._pacer.ready_at)
        waits = self._is_backlog and not (self._resting() or self._breaker.is_open or sends_from > began_at)
        if waits:
            await asyncio.sleep(0)
        turn_s = self._clock.monotonic() - began_at
        self._has_noted_backlog = waits and self._sending_s <= SENDING_TURNS * turn_s
        self._deps.backpressure.note(self.sink, has_backlog=self._has_noted_backlog, turn_s=turn_s)

    async def _take_trial(self) -> None:
        """Take one delivery once it may be tried while the breaker is open; else note when one may be."""
        now, breaker = self._clock.monotonic(), self._breaker
        if breaker.is_trying or self._ready:
            return
        never_tried_from, tried_from = breaker.opens_at(never_tried=True), breaker.opens_at(never_tried=False)
        self._trial_at = min(never_tried_from, tried_from)
        if now < self._trial_at:
            return
        trial = await self._queue.take_trial(skip=frozenset(self._held), never_tried=now < tried_from)
        if trial is None:
            self._trial_at = tried_from if now < tried_from else LATEST
            self._note_rest(now >= tried_from and not self._held)
            return
        self._trial_at = tried_from if trial.attempts else never_tried_from
        if self._trial_at <= now:
            self._hold([trial], is_trial=True)

    def _hold(self, taken: Sequence[Delivery], *, is_trial: bool) -> None:
        self._is_trial = is_trial
        self._ready.extend(taken)
        self._held.update(map(hold_key, taken))

    def _note_rest(self, nothing_waits: bool) -> None:
        self._nothing_waits = nothing_waits
        if nothing_waits:
            self._sink_state.rested()

    def _give_back(self) -> None:
        """Forget what was taken but not begun."""
        self._is_unread |= bool(self._ready)
        self._held.difference_update(map(hold_key, self._ready))
        self._ready.clear()

    def _resting(self) -> bool:
        return self._stopped or self._sink_state.disabled

    def _sends_from(self) -> Monotonic:
        """Return the monotonic moment before which nothing goes: the end of the sink's pause and of the store's."""
        return max(self._sink_state.paused_until, self._queue.retry_at)

    def _has_capacity(self, now: Monotonic) -> bool:
        """Return whether something may be sent. What could not be settled would be sent again after a restart."""
        is_full = len(self._sending) >= CONCURRENCY or self._unsettled_count >= UNSETTLED_COUNT
        return not (is_full or self._resting() or now < self._sends_from()) and self._queue.takes_writes

    def _start(self) -> None:
        if not self._ready:
            return
        now, is_open = self._clock.monotonic(), self._breaker.is_open
        if is_open and not self._is_trial:  # it was taken before the breaker opened
            self._give_back()
        while self._ready and self._has_capacity(now) and self._pacer.ready_at <= now:
            batch = self._next_batch()
            if is_open:
                self._breaker.trial_begins(never_tried=not batch[0].attempts, now=now)
            slot = self._pacer.spend(now)
            self._unsettled_count += _count(batch)
            task = asyncio.create_task(self._attempt(batch, slot=slot, is_trial=is_open))
            self._sending.add(task)
            task.add_done_callback(self._ended)

    def _next_batch(self) -> list[Delivery]:
        """Take what goes next. What was tried before goes alone: it may be what kept the others from being sent."""
        batch = [self._ready.popleft()]
        if not batch[0].attempts:
            count = min(self._sender.sink.batch_count, UNSETTLED_COUNT - self._unsettled_count)
            while len(batch) < count and self._ready and not self._ready[0].attempts:
                batch.append(self._ready.popleft())
        return batch

    async def _attempt(self, batch: list[Delivery], *, slot: Monotonic, is_trial: bool) -> None:
        began_at = self._clock.monotonic()
        try:
            attempts = await self._sender.send(batch, waited=is_trial and batch[0].attempts > 0)
        finally:
            if is_trial:
                self._breaker.trial_ends()
        self._sending_s = self._clock.monotonic() - began_at
        if attempts:
            self._answered.append((batch, attempts))
            self._is_unread |= len(attempts) < len(batch)  # what was left out may have held something back
        else:  # a silence kept it back, or the store lost sight of it: nothing was sent
            self._pacer.give_back(slot)
            self._let_go(batch)
            self._go_on(is_more=True)
        if self._answered and not self._is_settling() and self._clock.monotonic() >= self._queue.retry_at:
            self._settling = asyncio.create_task(self._settle())
            self._settling.add_done_callback(self._ended)

    async def _settle_kept(self) -> None:
        """Settle what was answered while the store could not be written, before anything else is asked of it."""
        if self._answered and not self._is_settling() and self._clock.monotonic() >= self._queue.retry_at:
            self._settling = asyncio.create_task(self._settle())
            self._settling.add_done_callback(self._ended)
            await asyncio.wait([self._settling])

    async def _settle(self) -> None:
        """Settle what was answered, and what is answered meanwhile: the slower the store, the more at once.

        What cannot be written is kept: it is sent again only if the process ends before it can.
        """
        while self._answered:
            answered, self._answered = self._answered, []
            attempts = [attempt for _, each in answered for attempt in each]
            try:
                await self._sender.settle(attempts)
            except StorePausedError:
                self._answered = answered + self._answered
                self._give_back()
                self._go_on(is_more=False)
                return
            for batch, _ in answered:
                self._let_go(batch)
            # What these held back the store wakes the worker for, so that it need not look for it.
            is_taken = all(attempt.decision.state in TAKEN for attempt in attempts)
            is_more = self._is_unread or self._is_backlog or self._is_grouped or not is_taken
            self._go_on(is_more=is_more)
            if not is_more:
                self._note_rest(not self._held and self._next_due_at is None)

    def _let_go(self, batch: Sequence[Delivery]) -> None:
        self._unsettled_count -= _count(batch)
        self._held.difference_update(map(hold_key, batch))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._stopped = True
            self._deps.fatal(error)
        if self._ready or self._is_backlog:  # there is room for one more
            self._go_on(is_more=self._is_backlog)

    def _go_on(self, *, is_more: bool) -> None:
        """Let the next ones go at once; ask for a tick if the store may have more, or the next tick comes too late."""
        self._start()
        self._is_unread |= is_more
        if self._stopped:
            return
        now = self._clock.monotonic()
        is_late = now + self._rest_s(now) < self._next_tick_at
        if (is_more and len(self._ready) < CONCURRENCY) or is_late or not self._state_store.is_reported:
            self._deps.wake()

    def _is_settling(self) -> bool:
        return self._settling is not None and not self._settling.done()

    def _under_way(self) -> set[asyncio.Task[None]]:
        return self._sending | ({self._settling} if self._settling is not None and self._is_settling() else set())

    def _rest_s(self, now: Monotonic) -> float:
        rest_s = self._longest_rest_s
        if self._answered and not self._is_settling():
            rest_s = self._queue.retry_at - now
        elif now < (from_at := self._sends_from()):
            rest_s = from_at - now
        elif not self._has_capacity(now):
            rest_s = rest_s if self._queue.takes_writes else SHARED_REST_S
        elif self._ready:
            rest_s = self._pacer.ready_at - now
        elif self._breaker.is_open:
            rest_s = rest_s if self._breaker.is_trying else self._trial_at - now
        elif self._next_due_at is not None:
            rest_s = (self._next_due_at - self._clock.steady_us()) / 1e6
        return min(self._longest_rest_s, max(0.0, rest_s))


def _count(batch: Sequence[Delivery]) -> int:
    """Return how many deliveries these stand for: a group goes alone."""
    return len(batch) if batch[0].group_id is None else batch[0].group_count
