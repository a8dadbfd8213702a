"""The deliveries of one sink that are being sent, and those that are answered and not yet settled."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain

from watcher.delivery.retries import Unsettled
from watcher.domain.delivery import Delivery, DeliveryState

CONCURRENCY = 16
"""The most requests in flight per sink."""

UNSETTLED_COUNT = 512
"""The number of deliveries, started and not settled, from which on no further request is started. It bounds how many
deliveries a kill repeats."""

SETTLE_AFTER_S = 0.1
SETTLE_COUNT = 64
"""The longest time that an answer waits for later answers, and the most deliveries that are settled together. It saves
a commit for each."""


class InFlight:
    """The deliveries of one sink that were started and are not settled.

    `sending` has the deliveries of each request under way. `unsettled` has the attempts whose outcome is not yet in the
    store, including deliveries that were postponed or silenced before they were sent, and `unsettled_count` the number
    of their deliveries. `blocking` are the ordering keys for which later deliveries waited when the store was last
    read. `is_blocking` says that an unsettled attempt has one of these keys, `frees_some` that further deliveries may
    be due once all attempts are settled.
    """

    def __init__(self) -> None:
        """Begin with none."""
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
        """Add an attempt that is to be settled. The first success after an outage makes all that waits due."""
        self.unsettled.append(attempt)
        self.unsettled_count += len(attempt.records)
        self.frees_some |= attempt.closes_breaker
        for record in attempt.records:
            if self.blocking and not self.blocking.isdisjoint(record.delivery.ordering_keys):
                self.is_blocking = True
            self.frees_some |= self.is_blocking or record.state is DeliveryState.WAITING

    def settled(self, count: int, *, blocking: frozenset[bytes]) -> None:
        """Remove the first `count` attempts: they are settled. `blocking` are the keys that block deliveries now."""
        left = self.unsettled[count:]
        self.unsettled, self.unsettled_count = [], 0
        self.blocking, self.is_blocking, self.frees_some = blocking, False, False
        for attempt in left:
            self.add(attempt)

    def sending_keys(self, ready: Iterable[Sequence[Delivery]]) -> frozenset[bytes]:
        """Return the ordering keys of the deliveries that are ready or being sent."""
        keys: set[bytes] = set()
        for each in chain.from_iterable((*ready, *self.sending.values())):
            keys.update(each.ordering_keys)
        return frozenset(keys)

    def unsettled_keys(self) -> frozenset[bytes]:
        """Return the ordering keys of the deliveries that are answered, postponed or silenced, and not settled."""
        return frozenset(
            key for attempt in self.unsettled for record in attempt.records for key in record.delivery.ordering_keys
        )
