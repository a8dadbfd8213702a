"""The deliveries of one sink that are being sent, or whose outcome is not yet in the store."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain

from watcher.delivery.retries import Unsettled
from watcher.domain.delivery import Delivery, DeliveryState

CONCURRENCY = 16
"""The most requests in flight per sink."""

UNSETTLED_COUNT = 512
"""The number of started, unsettled deliveries at which a sink starts no further request. It limits how many deliveries
are repeated after the process was killed."""

SETTLE_AFTER_S = 0.1
SETTLE_COUNT = 64
"""An answer waits for up to 0.1 s to be settled together with later ones, which saves commits. None waits while 64 or
more deliveries are unsettled."""


class InFlight:
    """The deliveries of one sink that were started and are not settled.

    `sending` maps the task of each request in flight to its deliveries. `unsettled` are the attempts whose outcome is
    not yet in the store; deliveries that were postponed or silenced are among them, although no request was sent.
    `unsettled_count` is the number of deliveries in `unsettled`. `blocking` are the ordering keys that blocked pending
    deliveries when the store was last read. `is_blocking` means that an unsettled attempt has one of these keys.
    `frees_some` means that more deliveries may be due once all unsettled attempts are settled.
    """

    def __init__(self) -> None:
        """Start without deliveries."""
        self.sending: dict[asyncio.Task[None], Sequence[Delivery]] = {}
        self.unsettled: list[Unsettled] = []
        self.blocking: frozenset[bytes] = frozenset()
        self.is_blocking = False
        self.frees_some = False
        self.unsettled_count = 0  # deliveries

    @property
    def free_count(self) -> int:
        """The number of further deliveries that may be started."""
        if len(self.sending) >= CONCURRENCY:
            return 0
        return max(0, UNSETTLED_COUNT - self.unsettled_count - sum(map(len, self.sending.values())))

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

    def sending_keys(self, ready: Iterable[Sequence[Delivery]]) -> frozenset[bytes]:
        """Return the ordering keys of the deliveries that are ready or being sent."""
        deliveries = chain.from_iterable((*ready, *self.sending.values()))
        return frozenset(key for each in deliveries for key in each.ordering_keys)

    def unsettled_keys(self) -> frozenset[bytes]:
        """Return the ordering keys of the deliveries that are answered, postponed or silenced, and not settled."""
        return frozenset(
            key for attempt in self.unsettled for record in attempt.records for key in record.delivery.ordering_keys
        )
