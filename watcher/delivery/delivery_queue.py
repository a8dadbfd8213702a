"""The store as one worker uses it: what a store error means there. It decides nothing about deliveries.

A store error means that nothing was read or written, so the same work comes due again, after a growing wait. Two kinds
will not pass and come through: somebody else owns the sink by now, or the store cannot be used at all.
"""

import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from uuid import UUID

from watcher.delivery.silencing import Silencer
from watcher.domain.delivery import Delivery
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.domain.event import EventKey, EventType
from watcher.domain.silences import Silence
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.backoff import doubling
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.store.changes import AttemptRecords, BackoffState, Lease, SourceChange
from watcher.store.records import DueDeliveries
from watcher.store.sink_protocol import SentOpening, SinkStore

BATCH = 256
"""All that is due is taken from the store at once, but no more than so many."""

WAIT_S = 1.0
WAIT_CAP_S = 30.0


def hold_key(delivery: Delivery) -> bytes:
    """Return what is left alone while a delivery is on its way: its group, else its stream."""
    return delivery.stream if delivery.group_id is None else delivery.group_id.bytes


def _key_of(delivery: Delivery) -> EventKey:
    return EventKey(delivery.stream, delivery.sequence)


class DeliveryQueue:
    """The deliveries of one sink in the store. `retry_at` is the monotonic moment before which it is not asked.

    `is_trusted` says whether the lease is: else another process may be sending them by now.
    """

    def __init__(
        self,
        store: SinkStore,
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

    async def members(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        """Return all that goes with what was taken, itself included, to be sent now.

        Nothing if the store is in trouble, or the lease is trusted no more.

        What a silence keeps back by now is settled, and left out: it may have waited long for its turn. So is a
        reminder of what is over: after the closing it would open the problem again, and nothing would close that.
        """
        try:
            members = await self._members(batch)
            kept_back = {_key_of(each) for each in self._silencer.kept_back(members)}
            kept_back |= await self._outdated(members)
            if kept_back:
                await self._silence(kept_back)
        except StoreError as error:
            self._failed(error)
            return ()
        if not self.is_trusted():  # as late as can be
            return ()
        return [each for each in members if _key_of(each) not in kept_back] if kept_back else members

    async def release(self) -> bool:
        """Let the openings go that no silence keeps back any more; return `False` if the store is in trouble.

        It is asked at the start, and again whenever other silences hold than when it was asked last.
        """
        silences, now = self._silencer.now(), self._clock.steady_us()
        if silences == self._released_under:
            return True
        try:
            openings = await self._store.silenced_openings(self.lease)
            kept_back = {_key_of(each) for each in self._silencer.kept_back(openings)}
            events = [key for key in map(_key_of, openings) if key not in kept_back]
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
        return await self._write(self._store.settle(records))

    async def record(self, change: SourceChange) -> bool:
        """Write a new state of the sink and its events; return whether that is recorded."""
        return await self._write(self._store.record(change))

    async def save(self, backoff: BackoffState, *, clock_s: float) -> bool:
        """Write what the sink is going through; return whether that is recorded."""
        return await self._write(self._store.save_sink_state(self.lease, backoff, clock_s=clock_s))

    async def _outdated(self, deliveries: Sequence[Delivery]) -> set[EventKey]:
        reminders = [each for each in deliveries if each.type == EventType.PROBLEM_REMINDER]
        if not reminders:
            return set()
        problems = {_key_of(each): UUID(json.loads(each.body)["data"]["problem"]["id"]) for each in reminders}
        still_open = await self._store.open_among(self.lease, set(problems.values()))
        return {key for key, problem in problems.items() if problem not in still_open}

    async def _members(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        return batch

    async def _due(self, skip: frozenset[bytes]) -> DueDeliveries:
        while True:
            now = self._clock.steady_us()
            due = await self._store.next_deliveries(self.lease, now=now, limit=BATCH, skip=skip)
            kept_back = self._silencer.kept_back(due.deliveries)
            if not kept_back:
                return due
            await self._silence([_key_of(each) for each in kept_back])

    async def _trial(self, skip: frozenset[bytes], *, never_tried: bool) -> Delivery | None:
        if self._silencer.now():
            await self._due(skip)
        now = self._clock.steady_us()
        return await self._store.next_trial(self.lease, now=now, skip=skip, never_tried=never_tried)

    async def _silence(self, events: Collection[EventKey]) -> None:
        """Settle what is kept back, and look for openings among that when other silences hold."""
        self._released_under = None
        await self._store.silence(self.lease, events, now=self._clock.steady_us())
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
