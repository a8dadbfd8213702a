"""The store as one worker uses it: what a store error means there. It decides nothing about deliveries.

A store error means that nothing was read or written, so the same work comes due again, after a growing wait. Two kinds
will not pass and come through: somebody else owns the sink by now, or the store cannot be used at all.
"""

import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from watcher.delivery.kept_messages import with_messages
from watcher.delivery.silencing import Silencer
from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import CLOSINGS
from watcher.domain.silences import DeliveryFields, Silence
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.runtime.backoff import doubling
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.store.changes import AttemptRecords, BackoffState, Lease, SourceChange
from watcher.store.records import DueDeliveries, SentOpening
from watcher.store.sql_store import SqlStore

BATCH = 256
"""All that is due is taken from the store at once, but no more than so many."""

WAIT_S = 1.0
WAIT_CAP_S = 30.0

PUT_OFF_US = 1_000_000
PUT_OFF_AT_MOST_US = 60_000_000
"""What has to wait for another delivery comes so much after that, and is looked at again after so long at most."""

_TOLD = frozenset({DeliveryState.DELIVERED, DeliveryState.ACCEPTED})


def hold_key(delivery: Delivery) -> bytes:
    """Return what is left alone while a delivery is on its way: its group, else its stream."""
    return delivery.stream if delivery.group_id is None else delivery.group_id.bytes


class DeliveryQueue:
    """The deliveries of one sink in the store. `retry_at` is the monotonic moment before which it is not asked.

    `is_trusted` says whether the lease is: else another process may be sending them by now.
    """

    def __init__(
        self,
        store: SqlStore,
        *,
        lease: Lease,
        is_trusted: Callable[[], bool],
        clock: Clock,
        silencer: Silencer,
        metrics: SinkMetrics,
    ) -> None:
        """Take the store to be well."""
        self.lease = lease
        self.is_trusted = is_trusted
        self.retry_at = EARLIEST
        self._store = store
        self._clock = clock
        self._silencer = silencer
        self._metrics = metrics
        self._failures = 0
        self._owned_from = clock.steady_us()
        self._reminding: dict[EventKey, EventKey] = {}  # reminders that may be on their way: of which openings
        self._released_under: tuple[Silence, ...] | None = None  # the silences when their openings were last looked at

    @property
    def failing(self) -> bool:
        """Whether the store is in trouble as far as this worker knows."""
        return self._failures > 0

    async def take(self, *, skip: frozenset[bytes]) -> DueDeliveries | None:
        """Return what may be sent now, leaving out what `skip` holds; `None` if the store is in trouble."""
        try:
            due = await self._due(skip)
        except StoreError as error:
            self._failed(error)
            return None
        if not due.deliveries:  # else what is taken shows whether the store can be written, too
            self._failures = 0
        return due

    async def take_trial(self, *, skip: frozenset[bytes], never_tried: bool) -> Delivery | None:
        """Return what is to show whether the sink works again; `None` also if the store is in trouble."""
        try:
            trial = await self._trial(skip, never_tried=never_tried)
        except StoreError as error:
            self._failed(error)
            return None
        if trial is None:
            self._failures = 0
        return trial

    async def members(self, batch: Sequence[Delivery], *, keeps_messages: bool = False) -> Sequence[Delivery]:
        """Return all that goes with what was taken, itself included, to be sent now.

        Nothing if the store is in trouble, or the lease is trusted no more.

        What a silence keeps back by now is settled, and left out: it may have waited long for its turn. So is what
        no longer applies, and what has to wait for the opening of its problem is put off. With `keeps_messages` they
        say where the message of their problem is.
        """
        try:
            members = await self._members(batch)
            kept_back = await self._kept_back(members)
            obsolete, early = await self._untimely(members)
            if kept_back := kept_back | obsolete:
                await self._silence(kept_back)
            if early:
                await self._store.put_off(self.lease, early)
            rest = [each for each in members if each.event not in kept_back and each.event not in early]
            if keeps_messages:
                rest = await with_messages(rest, store=self._store, lease=self.lease)
        except StoreError as error:
            self._failed(error)
            return ()
        if not self.is_trusted():  # as late as can be
            return ()
        return self._silencer.mark_closings(rest)

    async def release(self) -> bool:
        """Let the openings go that no silence keeps back any more; return `False` if the store is in trouble.

        It is asked at the start, and again whenever other silences hold than when it was asked last.
        """
        silences, now = self._silencer.now(), self._clock.steady_us()
        if silences == self._released_under:
            return True
        try:
            openings = await self._store.silenced_openings(self.lease)
            kept_back = self._silencer.kept_back(openings)
            events = [each.event for each in openings if each.event not in kept_back]
            if events:
                await self._store.release_silenced(self.lease, events, now=now)
        except StoreError as error:
            self._failed(error)
            return False
        self._released_under = silences
        return True

    async def sent_openings(self, *, closed_from: datetime | None = None) -> Sequence[SentOpening]:
        """Return the problems whose opening the sink took; nothing if the store is in trouble."""
        try:
            return await self._store.sent_openings(self.lease, closed_from=closed_from)
        except StoreError as error:
            self._failed(error)
            return ()

    async def give_up(self, *, clock_s: float, after_s: float, skip: frozenset[bytes]) -> int:
        """Make dead letters of what was first due so long ago; return how many are recorded as such."""
        now = self._clock.steady_us()
        try:
            count = await self._store.give_up(self.lease, now=now, clock_s=clock_s, after_s=after_s, skip=skip)
        except StoreError as error:
            self._failed(error)
            return 0
        self._failures = 0
        return count

    async def settle(self, records: AttemptRecords) -> bool:
        """Write how attempts ended; return whether that is recorded."""
        is_recorded = await self._write(self._store.settle(records))
        if is_recorded:
            for record in records.attempts:
                self._reminding.pop(EventKey(record.stream, record.sequence), None)
        return is_recorded

    async def record(self, change: SourceChange) -> bool:
        """Write a new state of the sink and its events; return whether that is recorded."""
        return await self._write(self._store.record(change))

    async def save(self, backoff: BackoffState, *, clock_s: float) -> bool:
        """Write what the sink is going through; return whether that is recorded."""
        return await self._write(self._store.save_sink_state(self.lease, backoff, clock_s=clock_s))

    async def _kept_back(self, deliveries: Sequence[Delivery]) -> set[EventKey]:
        return await self._without_closings(self._silencer.kept_back(deliveries))

    async def _without_closings(self, kept_back: Mapping[EventKey, DeliveryFields]) -> set[EventKey]:
        """Leave out what closes a problem of which the sink was told, or is about to be: a pager waits for it.

        Have `release` look again if other silences hold than it looked under: they may end before the next tick.
        Nothing may be awaited between what the silencer says and this.
        """
        if kept_back and self._silencer.now() != self._released_under:
            self._released_under = None
        ids = {fields.closes for fields in kept_back.values() if fields.closes is not None}
        openings = await self._store.openings(self.lease, ids) if ids else {}
        told = {
            id_
            for id_, opening in openings.items()
            if opening.state in _TOLD
            or (opening.state is DeliveryState.WAITING and opening.event not in kept_back)
            or (opening.state is DeliveryState.SILENCED and opening.tried)
        }
        return {event for event, fields in kept_back.items() if fields.closes not in told}

    async def _untimely(self, deliveries: Sequence[Delivery]) -> tuple[set[EventKey], dict[EventKey, Micros]]:
        """Return what is not to be sent any more, and what is not to be sent before a certain time.

        A reminder of what is over would open the problem again, and nothing would close that. What says that a problem
        is over means nothing to whom a silence kept its opening from. It comes after the opening, for `problem.closed`
        has a stream of its own, and after a reminder that is on its way.
        """
        of_problems = [each for each in deliveries if each.type in CLOSINGS or each.type == EventType.PROBLEM_REMINDER]
        if not of_problems:
            return set(), {}
        ids = [UUID(json.loads(each.body)["data"]["problem"]["id"]) for each in of_problems]
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

    async def _members(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        return batch

    async def _due(self, skip: frozenset[bytes]) -> DueDeliveries:
        while True:
            now = self._clock.steady_us()
            due = await self._store.next_deliveries(self.lease, now=now, limit=BATCH, skip=skip)
            kept_back = await self._kept_back(due.deliveries)
            if not kept_back:
                return due
            await self._silence(kept_back)

    async def _trial(self, skip: frozenset[bytes], *, never_tried: bool) -> Delivery | None:
        if self._silencer.now():
            await self._due(skip)
        now = self._clock.steady_us()
        return await self._store.next_trial(self.lease, now=now, skip=skip, never_tried=never_tried)

    async def _silence(self, events: Collection[EventKey]) -> None:
        """Settle what is kept back."""
        await self._store.silence(self.lease, events, now=self._clock.steady_us(), owned_from=self._owned_from)
        self._metrics.silenced(len(events))

    async def _write(self, writing: Awaitable[None]) -> bool:
        try:
            await writing
        except StoreError as error:
            self._failed(error)
            return False
        self._failures = 0
        return True

    def _failed(self, error: StoreError) -> None:
        """Raise what will not pass; else wait, longer each time.

        Failures within one wait, such as of all that was in flight, are one.
        """
        if isinstance(error, OwnershipLostError | StoreUnusableError):
            raise error
        now = self._clock.monotonic()
        if now >= self.retry_at:
            self._failures += 1
            self.retry_at = Monotonic(now + doubling(self._failures, base_s=WAIT_S, cap_s=WAIT_CAP_S))
