"""The deliveries of one sink that are being sent, and those that are answered and not yet settled."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain

from watcher.delivery.retries import Attempt
from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.timestamps import EARLIEST, LATEST, Monotonic

CONCURRENCY = 16
"""Most requests in flight per sink."""

UNSETTLED_COUNT = 512
"""Most deliveries that were begun and are not settled: a kill repeats no more."""

SETTLE_AFTER_S = 0.1
SETTLE_COUNT = 64
"""Longest time that an answer waits for later ones, and most answers, that are settled together: a commit less each."""


class InFlight:
    """The deliveries of one sink that were begun and are not settled.

    `sending` has those of each request under way. `unsettled` has the attempts whose outcome is not yet in the store,
    those of deliveries that were postponed or silenced among them. Some of these may be due again: it `leaves_waiting`.
    `blocking` are the ordering keys for which other deliveries waited when the store was last asked.
    """

    def __init__(self, *, by_incident: bool) -> None:
        """Begin with none. Where deliveries go `by_incident`, that is an ordering key, too."""
        self.sending: dict[asyncio.Task[None], Sequence[Delivery]] = {}
        self.unsettled: list[Attempt] = []
        self.leaves_waiting = False
        self._unsettled_count = 0  # deliveries
        self.blocking: frozenset[bytes] = frozenset()
        self._by_incident = by_incident

    @property
    def free_count(self) -> int:
        """How many more deliveries may be begun."""
        return 0 if len(self.sending) >= CONCURRENCY else max(0, UNSETTLED_COUNT - self._begun_count())

    def settle_at(self, *, next_at: Monotonic, can_take: bool) -> Monotonic:
        """Return when to settle what was answered: together with later answers, if the next request goes out soon.

        The next one is ready at `next_at`. If the worker `can_take` more, an answer that blocks another delivery is
        settled at once.
        """
        if not self.unsettled:
            return LATEST
        until = Monotonic(self.unsettled[0].at + SETTLE_AFTER_S)
        is_full = len(self.unsettled) >= SETTLE_COUNT or self._begun_count() >= UNSETTLED_COUNT
        goes_on = self.sending or next_at <= until
        return until if goes_on and not (is_full or (can_take and self._is_blocking())) else EARLIEST

    def frees_some(self) -> bool:
        """Return whether something may be due once what was answered is settled."""
        return self.leaves_waiting or self._is_blocking()

    def add(self, attempt: Attempt) -> None:
        """Take in an attempt that is to be settled. The first success after an outage calls all that waits forward."""
        self.unsettled.append(attempt)
        self._unsettled_count += len(attempt.records)
        self.leaves_waiting |= attempt.closes_breaker
        for record in attempt.records:
            self.leaves_waiting |= record.state is DeliveryState.WAITING

    def settled(self, count: int) -> None:
        """Forget the first attempts, which are settled."""
        left = self.unsettled[count:]
        self.unsettled, self._unsettled_count, self.leaves_waiting = [], 0, False
        for attempt in left:
            self.add(attempt)

    def going_keys(self, ready: Iterable[Sequence[Delivery]]) -> frozenset[bytes]:
        """Return the ordering keys of the deliveries that are ready or being sent."""
        return self._keys(chain.from_iterable((*ready, *self.sending.values())))

    def unsettled_keys(self) -> frozenset[bytes]:
        """Return the ordering keys of the deliveries that are answered, postponed or silenced, and not settled."""
        return self._keys(record.delivery for attempt in self.unsettled for record in attempt.records)

    def _is_blocking(self) -> bool:
        return bool(self.blocking) and not self.blocking.isdisjoint(self.unsettled_keys())

    def _begun_count(self) -> int:
        return sum(map(len, self.sending.values())) + self._unsettled_count

    def _keys(self, deliveries: Iterable[Delivery]) -> frozenset[bytes]:
        if not self._by_incident:
            return frozenset(each.lane for each in deliveries)
        both = ((each.lane, each.incident.key.bytes if each.incident else each.lane) for each in deliveries)
        return frozenset(chain.from_iterable(both))
