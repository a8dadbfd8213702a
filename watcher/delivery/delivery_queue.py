"""The store as one worker uses it: what a store error means there, and what is kept back, obsolete or put off.

A store error means that nothing was read or written, so the same work comes due again, after a growing wait. Two kinds
will not pass and come through: somebody else owns the sink by now, or the store cannot be used at all.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from watcher.delivery.silencing import Silencer
from watcher.domain.delivery import TAKEN, Delivery, DeliveryState
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.domain.event import EventKey, EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.problems import CLOSINGS
from watcher.domain.silences import DeliveryFields, Silence, Silences
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.runtime.backoff import Jitter, doubling
from watcher.runtime.backpressure import Backpressure
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.runtime.scheduler import Wake
from watcher.sinks.alert import TROUBLED_ENDS
from watcher.store.changes import AttemptRecords, BackoffState, Lease, SourceChange
from watcher.store.records import DueDeliveries, SentOpening
from watcher.store.sql_store import SqlStore

T = TypeVar("T")

BATCH = 256
"""All that is due is taken from the store at once, but no more than so many."""

WAIT_S = 1.0
WAIT_CAP_S = 30.0

PUT_OFF_US = 1_000_000
PUT_OFF_AT_MOST_US = 60_000_000
"""What has to wait for another delivery comes so much after that, and is looked at again after so long at most."""
_OF_PROBLEMS = frozenset({*CLOSINGS, EventType.PROBLEM_REMINDER})


def hold_key(delivery: Delivery) -> bytes:
    """Return what is left alone while a delivery is on its way: its group, else its stream."""
    return delivery.stream if delivery.group_id is None else delivery.group_id.bytes


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


class StorePausedError(Exception):
    """The store is in trouble that may pass. It is asked again from the queue's `retry_at` on."""


class DeliveryQueue:
    """The deliveries of one sink in the store. `retry_at` is the monotonic moment before which it is not asked.

    What asks the store raises `StorePausedError`, or what ends the program: `OwnershipLostError`, `StoreUnusableError`.
    `is_trusted` says whether the lease is: else another process may be sending them by now.
    """

    def __init__(self, lease: Lease, deps: WorkerDependencies) -> None:
        """Take the store to be well."""
        self.lease = lease
        self.is_trusted = deps.is_trusted
        self.retry_at = EARLIEST
        self._store = deps.store
        self._clock = deps.clock
        self._silencer = Silencer(deps.silences, sink=lease.name, clock=deps.clock)
        self._metrics = deps.metrics
        self._failures = 0
        self._is_refused = False  # whether the last write of this worker was
        self._owned_from = deps.clock.steady_us()
        self._reminding: dict[EventKey, EventKey] = {}  # reminders that may be on their way: of which openings
        self._released_under: tuple[Silence, ...] | None = None  # the silences when their openings were last looked at

    @property
    def takes_writes(self) -> bool:
        """Whether what is sent now can be settled, as far as anybody knows."""
        return not self._is_refused and self._store.failing_since is None

    async def take(self, *, skip: frozenset[bytes]) -> DueDeliveries:
        """Return what may be sent now, leaving out what `skip` holds."""
        return await self._ask(self._due(skip))

    async def take_trial(self, *, skip: frozenset[bytes], never_tried: bool) -> Delivery | None:
        """Return what is to show whether the sink works again, if anything can."""
        return await self._ask(self._trial(skip, never_tried=never_tried))

    async def members(self, batch: Sequence[Delivery], *, keeps_messages: bool = False) -> Sequence[Delivery]:
        """Return all that goes with what was taken, itself included, to be sent now.

        Nothing if the lease is trusted no more.

        What a silence keeps back by now is settled, and left out: it may have waited long for its turn. So is what
        no longer applies, and what has to wait for the opening of its problem is put off. With `keeps_messages` they
        say where the message of their problem is.
        """
        rest = batch
        is_plain = batch[0].group_id is None and _OF_PROBLEMS.isdisjoint(each.type for each in batch)
        if keeps_messages or not is_plain or self._silencer.now():
            rest = await self._ask(self._timely(batch, keeps_messages=keeps_messages))
        if not self.is_trusted():  # as late as can be
            return ()
        return self._silencer.mark_closings(rest)

    async def release(self) -> None:
        """Let the openings go that no silence keeps back any more.

        It is asked at the start, and again whenever other silences hold than when it was asked last.
        """
        silences = self._silencer.now()
        if silences != self._released_under:
            await self._ask(self._release())
            self._released_under = silences

    async def sent_openings(self, *, closed_from: datetime | None = None) -> Sequence[SentOpening]:
        """Return the problems whose opening the sink took."""
        return await self._ask(self._store.sent_openings(self.lease, closed_from=closed_from))

    async def give_up(self, *, clock_s: float, after_s: float, skip: frozenset[bytes]) -> int:
        """Make dead letters of what was first due so long ago; return how many are recorded as such."""
        now = self._clock.steady_us()
        giving_up = self._store.give_up(self.lease, now=now, clock_s=clock_s, after_s=after_s, skip=skip)
        return await self._ask(giving_up, writes=True)

    async def settle(self, records: AttemptRecords) -> None:
        """Write how attempts ended."""
        await self._ask(self._store.settle(records), writes=True)
        for record in records.attempts:
            self._reminding.pop(EventKey(record.stream, record.sequence), None)

    async def record(self, change: SourceChange) -> None:
        """Write a new state of the sink and its events."""
        await self._ask(self._store.record(change), writes=True)

    async def save(self, backoff: BackoffState, *, clock_s: float) -> None:
        """Write what the sink is going through."""
        await self._ask(self._store.save_sink_state(self.lease, backoff, clock_s=clock_s), writes=True)

    async def _without_closings(self, kept_back: Mapping[EventKey, DeliveryFields]) -> set[EventKey]:
        """Leave out what closes a problem of which the sink was told, or is about to be: a pager waits for it.

        Have `release` look again if other silences hold than it looked under: they may end before the next tick.
        Nothing may be awaited between what the silencer says and this.
        """
        if self._silencer.now() != self._released_under:
            self._released_under = None
        ids = {fields.closes for fields in kept_back.values() if fields.closes is not None}
        openings = await self._store.openings(self.lease, ids) if ids else {}
        told = {
            id_
            for id_, opening in openings.items()
            if opening.state in TAKEN
            or (opening.state is DeliveryState.WAITING and opening.event not in kept_back)
            or (opening.state is DeliveryState.SILENCED and opening.tried)
        }
        return {event for event, fields in kept_back.items() if fields.closes not in told}

    async def _timely(self, batch: Sequence[Delivery], *, keeps_messages: bool) -> Sequence[Delivery]:
        members = await self._members(batch)
        kept_back = await self._without_closings(self._silencer.kept_back(members))
        obsolete, early = await self._untimely([each for each in members if each.event not in kept_back])
        if kept_back := kept_back | obsolete:
            await self._silence(kept_back)
        if early:
            await self._store.put_off(self.lease, early)
        rest = [each for each in members if each.event not in kept_back and each.event not in early]
        return await self._with_messages(rest) if keeps_messages else rest

    async def _untimely(self, deliveries: Sequence[Delivery]) -> tuple[set[EventKey], dict[EventKey, Micros]]:
        """Return what is not to be sent any more, and what is not to be sent before a certain time.

        A reminder of what is over would open the problem again, and nothing would close that. What says that a problem
        is over means nothing to whom a silence kept its opening from. It comes after the opening, for `problem.closed`
        has a stream of its own, and after a reminder that is on its way.
        """
        of_problems = [each for each in deliveries if each.type in _OF_PROBLEMS]
        if not of_problems:
            return set(), {}
        ids = [UUID(each.data["problem"]["id"]) for each in of_problems]
        openings, now = await self._store.openings(self.lease, set(ids)), self._clock.steady_us()
        obsolete: set[EventKey] = set()
        early: dict[EventKey, Micros] = {}
        for each, opening in zip(of_problems, map(openings.get, ids), strict=True):
            if each.type == EventType.PROBLEM_REMINDER:
                if opening is not None and opening.is_open:
                    self._reminding[each.event] = opening.event
                else:
                    obsolete.add(each.event)
                    self._reminding.pop(each.event, None)
            elif opening is not None and opening.is_kept_back:
                obsolete.add(each.event)
            elif opening is not None and opening.due_at is not None and opening.event.stream != each.stream:
                due_at = max(now, opening.due_at) + PUT_OFF_US
                early[each.event] = Micros(min(due_at, now + PUT_OFF_AT_MOST_US))  # a breaker may let it go sooner
            elif opening is not None and opening.event in self._reminding.values():
                early[each.event] = Micros(now + PUT_OFF_US)
        return obsolete, early

    async def _with_messages(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Return deliveries with the messages of their problems, and of a failed execution's pipeline that fails."""
        problems = {each.event: UUID(each.data["problem"]["id"]) for each in deliveries if "problem" in each.data}
        pipelines = {
            each.event: (each.data["account"], each.data["pipeline"]["id"])
            for each in deliveries
            if each.type in TROUBLED_ENDS
        }
        messages = await self._store.messages_of_problems(self.lease, set(problems.values())) if problems else {}
        threads = await self._store.messages_of_failing(self.lease, set(pipelines.values())) if pipelines else {}
        message_of = {event: messages.get(problem) for event, problem in problems.items()}
        thread_of = {event: threads.get(pipeline) for event, pipeline in pipelines.items()}
        return [each.but(message=message_of.get(each.event), thread=thread_of.get(each.event)) for each in deliveries]

    async def _members(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        return batch

    async def _due(self, skip: frozenset[bytes]) -> DueDeliveries:
        while True:
            now = self._clock.steady_us()
            due = await self._store.next_deliveries(self.lease, now=now, limit=BATCH, skip=skip)
            kept_back = self._silencer.kept_back(due.deliveries)
            silenced = await self._without_closings(kept_back) if kept_back else None
            if not silenced:
                return due
            await self._silence(silenced)

    async def _trial(self, skip: frozenset[bytes], *, never_tried: bool) -> Delivery | None:
        if self._silencer.now():
            await self._due(skip)
        now = self._clock.steady_us()
        return await self._store.next_trial(self.lease, now=now, skip=skip, never_tried=never_tried)

    async def _release(self) -> None:
        now, openings = self._clock.steady_us(), await self._store.silenced_openings(self.lease)
        kept_back = self._silencer.kept_back(openings)
        events = [each.event for each in openings if each.event not in kept_back]
        if events:
            await self._store.release_silenced(self.lease, events, now=now)

    async def _silence(self, events: Collection[EventKey]) -> None:
        """Settle what is kept back."""
        await self._store.silence(self.lease, events, now=self._clock.steady_us(), owned_from=self._owned_from)
        self._metrics.silenced(len(events))

    async def _ask(self, asking: Awaitable[T], *, writes: bool = False) -> T:
        """Ask the store, and let it rest when it is in trouble, longer each time.

        Failures within one wait, such as of all that was in flight, are one. After a write that was refused what can be
        read proves nothing.
        """
        try:
            answer = await asking
        except (OwnershipLostError, StoreUnusableError):
            raise
        except StoreError:
            self._is_refused |= writes
            now = self._clock.monotonic()
            if now >= self.retry_at:
                self._failures += 1
                self.retry_at = Monotonic(now + doubling(self._failures, base_s=WAIT_S, cap_s=WAIT_CAP_S))
            raise StorePausedError from None
        if writes or not self._is_refused:
            self._failures, self._is_refused = 0, False
        return answer
