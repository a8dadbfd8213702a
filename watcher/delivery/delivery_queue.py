"""The store as one worker uses it: what a store error means there. It decides nothing about deliveries.

A store error means that nothing was read or written, so the same work comes due again, after a growing wait. Two kinds
will not pass and come through: somebody else owns the sink by now, or the store cannot be used at all.
"""

from collections.abc import Awaitable

from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.domain.models import Delivery
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.backoff import doubling
from watcher.runtime.clock import Clock
from watcher.store.protocol import AttemptRecords, BackoffState, DueDeliveries, Lease, SourceChange, Store

BATCH = 256
"""All that is due is taken from the store at once, but no more than so many."""

WAIT_S = 1.0
WAIT_CAP_S = 30.0


class DeliveryQueue:
    """The deliveries of one sink in the store. `retry_at` is the monotonic moment before which it is not asked."""

    def __init__(self, store: Store, *, lease: Lease, clock: Clock) -> None:
        """Take the store to be well."""
        self.lease = lease
        self.retry_at = EARLIEST
        self._store = store
        self._clock = clock
        self._failures = 0

    @property
    def failing(self) -> bool:
        """Whether the store is in trouble as far as this worker knows."""
        return self._failures > 0

    async def take(self, *, skip: frozenset[bytes]) -> DueDeliveries | None:
        """Return what may be sent now, leaving out the streams in `skip`; `None` if the store is in trouble."""
        now = self._clock.steady_us()
        try:
            due = await self._store.next_deliveries(self.lease, now=now, limit=BATCH, skip=skip)
        except StoreError as error:
            self._failed(error)
            return None
        if not due.deliveries:  # else what is taken shows whether the store can be written, too
            self._failures = 0
        return due

    async def take_trial(self, *, skip: frozenset[bytes], never_tried: bool) -> Delivery | None:
        """Return what is to show whether the sink works again; `None` also if the store is in trouble."""
        now = self._clock.steady_us()
        try:
            trial = await self._store.next_trial(self.lease, now=now, skip=skip, never_tried=never_tried)
        except StoreError as error:
            self._failed(error)
            return None
        if trial is None:
            self._failures = 0
        return trial

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
