"""The leases that this replica holds: which of them are in use, which others are to have. It asks nobody anything."""

from collections.abc import Collection, Iterator, Mapping
from functools import partial

import structlog

from watcher.domain.timestamps import BootTime
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.store.changes import Lease
from watcher.store.held_lease import HeldLease
from watcher.store.lease_protocol import MAINTENANCE, LeaseKey, LeaseReport

log = structlog.get_logger()

SHOWN_COUNT = 50
"""What was taken, in one line of the log."""

LONG_AGO = BootTime(float("-inf"))
"""Before every other moment: what was trusted until then is not."""

KINDS = ("account", "sink", MAINTENANCE.kind)


def key_of(lease: Lease) -> LeaseKey:
    """Return what a lease is on."""
    return LeaseKey(lease.kind, lease.name)


class Holdings:
    """What is held, by name."""

    def __init__(self, *, clock: Clock, metrics: Metrics) -> None:
        """Hold nothing yet."""
        self._surplus: set[LeaseKey] = set()  # what others are to have, and is still held
        self._clock = clock
        self._metrics = metrics
        self._held: dict[LeaseKey, HeldLease] = {}
        self._used: set[LeaseKey] = set()  # whose lease an owner has had
        for kind in KINDS:
            metrics.leases_held.labels(kind).set_function(partial(self._count, kind))
            metrics.lease_takeovers.labels(kind)

    def __contains__(self, key: LeaseKey) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[LeaseKey]:
        return iter(self._held)

    def get(self, key: LeaseKey) -> HeldLease | None:
        """Return what is held on this."""
        return self._held.get(key)

    def leases(self, keys: Collection[LeaseKey] | None = None) -> list[Lease]:
        """Return what is held, of these keys if they are given."""
        return [held.lease for key, held in self._held.items() if keys is None or key in keys]

    def surplus(self) -> Collection[LeaseKey]:
        """Return what others are to have, as soon as its owner here has ended."""
        return self._surplus

    def give_up(self, key: LeaseKey) -> None:
        """Let others have this, though it is not too much."""
        self._surplus.add(key)

    def is_used(self, key: LeaseKey) -> bool:
        """Return whether an owner has had this lease."""
        return key in self._used

    def use(self, key: LeaseKey) -> None:
        """Note that an owner is given this lease."""
        self._used.add(key)

    def replace(self, held: HeldLease, lease: Lease) -> None:
        """Hold the same under another epoch; nobody acts under the one before any more."""
        self._held[key_of(lease)] = HeldLease(lease, clock=self._clock, trusted_until=held.trusted_until)
        held.trusted_until = LONG_AGO

    def take_in(self, report: LeaseReport, *, trusted_until: BootTime) -> list[LeaseKey]:
        """Take in what came of a renewal; return what was not trusted before it."""
        for lease in report.lost:
            self.lose(lease)
        again = [key for key, held in self._held.items() if not held.is_trusted()]
        for held in self._held.values():
            held.trusted_until = trusted_until
        for lease, is_takeover in report.taken:
            self._held[key_of(lease)] = HeldLease(lease, clock=self._clock, trusted_until=trusted_until)
            self._metrics.lease_takeovers.labels(lease.kind).inc(is_takeover)
        self._choose_surplus(report.surplus)
        if report.taken:
            self._say_taken(report)
        return again

    def lose(self, lease: Lease) -> None:
        """Let go of what somebody else owns by now, which is ordinary."""
        if self.drop(lease):
            log.info("ownership.lost", **{lease.kind: lease.name})

    def drop(self, lease: Lease) -> bool:
        """Hold this no more; return whether it was held under that epoch."""
        key = key_of(lease)
        held = self._held.get(key)
        if held is None or held.lease != lease:
            return False
        held.trusted_until = LONG_AGO
        del self._held[key]
        self._used.discard(key)
        self._surplus.discard(key)
        return True

    def _choose_surplus(self, counts: Mapping[str, int]) -> None:
        """Choose one that others are to have, unless one was chosen before: that may still be in use."""
        if not self._surplus:
            candidates = [key for key in self._held if counts.get(key.kind, 0) > 0]
            self._surplus.update(candidates[-1:])

    def _say_taken(self, report: LeaseReport) -> None:
        taken = [f"{lease.kind} {lease.name}" for lease, _ in report.taken]
        log.info(
            "ownership.taken",
            taken=taken[:SHOWN_COUNT],
            more=max(0, len(taken) - SHOWN_COUNT),
            takeovers=sum(is_takeover for _, is_takeover in report.taken),
            replicas=report.replica_count,
        )

    def _count(self, kind: str) -> int:
        """Return how many of a kind are trusted: what ran out may be another's by now."""
        return sum(key.kind == kind and held.is_trusted() for key, held in self._held.items())
