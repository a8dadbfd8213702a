"""The lane of one sink: which of its deliveries goes when, and who is told how the sink stands.

It owns concurrency, pace, pauses and the order within a stream. What an answer means for a delivery is `attempts`',
how the sink stands `standing`'s, trouble with the store `lane_store`'s; one attempt is the courier's.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from watcher.attempts import RetryRules
from watcher.clock import Clock
from watcher.courier import Courier
from watcher.gate import Gate
from watcher.keeper import StandingKeeper
from watcher.lane_store import LaneStore
from watcher.metrics import SinkMetrics
from watcher.models import Delivery, EventType, Outgoing
from watcher.pace import Pacer
from watcher.ports.rounds import Wake
from watcher.ports.sinks import Sink
from watcher.ports.store import Lease, SinkRecord, SourceChange, Store
from watcher.retry import Jitter
from watcher.standing import DISABLED, FAILING, Standing

CONCURRENCY = 16
"""At most so many deliveries in flight per sink (SPEC 5)."""

REST_S = 10.0
"""The longest a lane asks to be left alone; whatever happens in between wakes it."""

_TOLD_AS = {None: EventType.SINK_RECOVERED, FAILING: EventType.SINK_FAILING, DISABLED: EventType.SINK_DISABLED}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LaneRules:
    """How a sink wants to be sent to. A rate of infinity is no pace at all."""

    retry: RetryRules
    rate_per_s: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a lane works with. `tell` makes the sink's own event, of that type and sequence, for all other sinks.

    `fatal` is given what must end the program: a closed stdout, a store that is lost, or an error in the lane itself.
    """

    store: Store
    clock: Clock
    jitter: Jitter
    wake: Wake
    tell: Callable[[EventType, int], tuple[Outgoing, ...]]
    fatal: Callable[[BaseException], None]
    metrics: SinkMetrics


class SinkLane:
    """The deliveries of one sink whose lease is held. Call `round` when it asks to be, and whenever it calls `wake`."""

    def __init__(
        self, lease: Lease, *, sink: Sink, record: SinkRecord, rules: LaneRules, surroundings: Surroundings
    ) -> None:
        """Go on from what is recorded of the sink."""
        self._surroundings = surroundings
        self._clock = surroundings.clock
        self._store = LaneStore(surroundings.store, lease=lease, clock=self._clock)
        now = self._clock.monotonic()
        self._standing = Standing(record, now=now)
        self._keeper = StandingKeeper(lease, self._standing, store=surroundings.store, clock=self._clock)
        self._recorded, self._sequence = record.state, record.sequence
        self._pacer, self._gate = Pacer(rules.rate_per_s, now=now), Gate()
        if self._standing.paused_until is not None:
            self._gate.shut(self._standing.paused_until)
        self._courier = Courier(
            sink=sink,
            store=self._store,
            gate=self._gate,
            standing=self._standing,
            retry=rules.retry,
            clock=self._clock,
            jitter=surroundings.jitter,
            metrics=surroundings.metrics,
        )
        self._ready: deque[Delivery] = deque()
        self._held: set[bytes] = set()  # the streams of what is ready or in flight: one delivery each, and in order
        self._in_flight: set[asyncio.Task[None]] = set()
        self._next_due_at: int | None = None
        self._nothing_waits = False
        self._stopped = False
        surroundings.metrics.up(record.state is None)

    async def round(self) -> float:
        """Start what is due and allowed; return in how many seconds to be called again."""
        now = self._clock.monotonic()
        if self._in_flight:
            self._standing.tried(now)
        self._standing.look(now)
        await self._tell(now)
        await self._refill()
        self._start()
        return self._rest_s()

    async def flush(self) -> None:
        """Let the store know how long the sink has been served, and failing, while something waits for it.

        Raises `StoreError`. A store that is in trouble is not asked.
        """
        if not self._nothing_waits and self._clock.monotonic() >= self._store.retry_at:
            await self._keeper.keep()

    @property
    def store_failing(self) -> bool:
        """Whether the last read or write failed."""
        return self._store.failing

    async def drain(self) -> None:
        """Start nothing more and wait for what is in flight."""
        self._stopped = True
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    async def cancel(self) -> None:
        """Break off what is in flight: it comes due again, under the same id."""
        self._stopped = True
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def _tell(self, now: float) -> None:
        """Record how the sink stands, and tell the other sinks, on the edges only."""
        state = self._standing.state
        if state == self._recorded or now < self._store.retry_at:
            return
        type_, sequence = _TOLD_AS[state], self._sequence + 1
        outgoing = self._surroundings.tell(type_, sequence)
        change = SourceChange(self._store.lease, self._sequence, sequence, state, outgoing)
        if not await self._store.record(change):
            self._give_back()
            return
        self._recorded, self._sequence = state, sequence
        self._surroundings.metrics.told(type_, well=state is None)
        report = log.info if state is None else log.warning
        report(type_.value, sink=self._store.lease.name)

    async def _refill(self) -> None:
        now = self._clock.monotonic()
        if self._resting() or len(self._ready) >= CONCURRENCY or now < self._gate.opens_at:
            return
        due = await self._store.take(skip=frozenset(self._held))
        if due is None:
            self._give_back()
            return
        self._ready.extend(due.deliveries)
        self._held.update(delivery.stream for delivery in due.deliveries)
        self._next_due_at = due.next_due_at
        self._nothing_waits = not self._held and due.next_due_at is None
        if self._nothing_waits:
            self._standing.rested()

    def _give_back(self) -> None:
        """Forget what was taken but not begun, and begin nothing while the store is in trouble."""
        self._held.difference_update(delivery.stream for delivery in self._ready)
        self._ready.clear()
        self._gate.shut(self._store.retry_at)

    def _resting(self) -> bool:
        return self._stopped or self._standing.disabled

    def _has_room(self, now: float) -> bool:
        return not self._resting() and len(self._in_flight) < CONCURRENCY and self._gate.lets_go(now)

    def _start(self) -> None:
        now = self._clock.monotonic()
        while self._ready and self._has_room(now) and self._pacer.ready_at() <= now:
            self._pacer.spend(now)
            delivery = self._ready.popleft()
            task = asyncio.create_task(self._attempt(delivery, goes_first=self._gate.enter()))
            self._in_flight.add(task)
            task.add_done_callback(partial(self._ended, stream=delivery.stream))

    async def _attempt(self, delivery: Delivery, *, goes_first: bool) -> None:
        if not await self._courier.attempt(delivery, goes_first=goes_first):
            self._give_back()

    def _ended(self, task: asyncio.Task[None], *, stream: bytes) -> None:
        """Let the next one go at once; of the store ask again, which may have more, or the same one for later."""
        self._in_flight.discard(task)
        self._held.discard(stream)
        if not task.cancelled() and (error := task.exception()):
            self._stopped = True
            self._surroundings.fatal(error)
        self._start()
        if len(self._ready) < CONCURRENCY and not self._stopped:
            self._surroundings.wake()

    def _rest_s(self) -> float:
        now = self._clock.monotonic()
        if now < self._gate.opens_at:
            return min(REST_S, self._gate.opens_at - now)
        if not self._has_room(now):
            return REST_S
        return min(REST_S, max(0.0, self._next_start_s(now)))

    def _next_start_s(self, now: float) -> float:
        if self._ready:
            return self._pacer.ready_at() - now
        if self._next_due_at is None:
            return REST_S
        return (self._next_due_at - self._clock.steady_us()) / 1e6
