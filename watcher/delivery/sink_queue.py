"""The deliveries of one sink in the memory of its owner: ready, being sent, or with an outcome that is not settled."""

from collections import deque
from collections.abc import Sequence
from itertools import chain
from math import inf

from watcher.delivery.retries import Request, Unsettled
from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.timestamps import NEVER
from watcher.store.changes import Take, Taken, Trial

CONCURRENCY = 16
"""The most requests in flight per sink."""

UNSETTLED_COUNT = 512
"""The number of started, unsettled deliveries at which a sink starts no further request. It limits how many deliveries
are repeated after the process was killed."""

NOW = NEVER
"""A value of `due_at` that lies in the past: deliveries may be due at once."""


class SinkQueue:
    """The deliveries of one sink that were taken from the store and are not settled.

    `ready` are the batches that were taken and not started. If they were taken while the circuit breaker was open,
    `trial` is how they were chosen. `due_at` is when more deliveries may be due in the store (microseconds UTC,
    steady): `NOW` if some may be due already, infinity if none is pending.

    `sending` are the requests in flight. `unsettled` are the attempts whose outcome is not yet in the store; deliveries
    that were postponed or silenced are among them, although no request was sent. `unsettled_count` is the number of
    deliveries in `unsettled`. `blocking` are the ordering keys that blocked pending deliveries when the store was last
    read. `is_blocking` means that an unsettled attempt has one of these keys. `frees_some` means that more deliveries
    may be due once all unsettled attempts are settled.
    """

    def __init__(self) -> None:
        """Start without deliveries."""
        self.ready: deque[Sequence[Delivery]] = deque()
        self.trial: Trial | None = None
        self.due_at: float = NOW
        self.sending: set[Request] = set()
        self.unsettled: list[Unsettled] = []
        self.unsettled_count = 0  # deliveries
        self.blocking: frozenset[bytes] = frozenset()
        self.is_blocking = False
        self.frees_some = False

    @property
    def is_at_rest(self) -> bool:
        """Return whether nothing is pending, as far as the store was read."""
        return self.due_at == inf and not (self.ready or self.sending or self.unsettled)

    @property
    def free_count(self) -> int:
        """The number of further deliveries that may be started."""
        if len(self.sending) >= CONCURRENCY:
            return 0
        return max(0, UNSETTLED_COUNT - self.unsettled_count - sum([len(each.batch) for each in self.sending]))

    def take_in(self, taken: Taken, take: Take, batches: Sequence[Sequence[Delivery]]) -> None:
        """Add the batches, which the store returned for a request, and note when more may be due."""
        if take.trial is not None and batches:  # only the message of the delivery that the trial is for
            is_other, all_of_them = take.trial == "never_tried", chain.from_iterable(batches)
            first = min(all_of_them, key=lambda each: (bool(each.attempts) is is_other, each.tried_at, each.due_at))
            batches = [batch for batch in batches if first in batch]
        self.ready.extend(batches)
        self.trial = take.trial
        if taken.next_due_at is not None:
            self.due_at = min(self.due_at, taken.next_due_at)
        # More may be due: `count` batches were taken, or this trial read only deliveries that were never tried.
        if len(taken.batches) == take.count or take.trial == "never_tried":
            self.due_at = NOW

    def take_again(self) -> None:
        """Forget the ready deliveries, so that they are taken from the store again."""
        self.ready.clear()
        self.due_at = NOW

    def next_batch(self, count: int) -> Sequence[Delivery]:
        """Remove and return the deliveries of the next request: one batch, or several with at most `count` deliveries.

        A batch that failed before is sent alone.
        """
        batch = list(self.ready.popleft())
        while len(batch) < count and self.ready and not (batch[0].attempts or self.ready[0][0].attempts):
            batch += self.ready.popleft()
        return batch

    def add(self, attempt: Unsettled) -> None:
        """Add an attempt that is to be settled."""
        self.unsettled.append(attempt)
        self.unsettled_count += len(attempt.records)
        self.frees_some |= attempt.closes_breaker  # then all tried deliveries become due within a minute
        for record in attempt.records:
            if self.blocking and not self.blocking.isdisjoint(record.delivery.ordering_keys):
                self.is_blocking = True
            self.frees_some |= self.is_blocking or record.state is DeliveryState.WAITING

    def remove_settled(self, count: int, *, blocking: frozenset[bytes]) -> None:
        """Remove the first `count` attempts, which are settled. `blocking` are the keys that block deliveries now."""
        left = self.unsettled[count:]
        self.unsettled, self.unsettled_count = [], 0
        self.blocking, self.is_blocking, self.frees_some = blocking, False, False
        for attempt in left:
            self.add(attempt)

    def sending_keys(self) -> frozenset[bytes]:
        """Return the ordering keys of the deliveries that are ready or being sent."""
        batches = chain(self.ready, [each.batch for each in self.sending])
        return frozenset([key for batch in batches for each in batch for key in each.ordering_keys])

    def unsettled_keys(self) -> frozenset[bytes]:
        """Return the ordering keys of the deliveries that are answered, postponed or silenced, and not settled."""
        return frozenset(
            [key for attempt in self.unsettled for record in attempt.records for key in record.delivery.ordering_keys]
        )
