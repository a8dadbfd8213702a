"""Leases as their holders have them, and what replicas that share them ask of the store every few seconds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from watcher.domain.errors import LeaseExpiredError
from watcher.domain.timestamps import LATEST, BootTime, Micros
from watcher.runtime.clock import Clock
from watcher.store.changes import Lease

FOR_EVER = BootTime(LATEST)

LEASE_S = 9.0
"""A lease that nobody renews for so long, by the store's clock, is free."""


class LeaseKey(NamedTuple):
    """Names what can be owned: an account, a sink, or the maintenance of the store."""

    kind: str
    name: str


NO_BUDGETS: Mapping[LeaseKey, str] = MappingProxyType({})

MAINTENANCE = LeaseKey("maintenance", "store")
"""Its holder tidies the store."""


class HeldLease:
    """A lease that is trusted until a moment of this machine's boot time, which each renewal puts off.

    Its holder asks before each request: whatever is written under it the store checks itself, but it cannot call
    a request back.
    """

    def __init__(self, lease: Lease, *, clock: Clock, trusted_until: BootTime = FOR_EVER) -> None:
        """Trust it until then: for ever where nobody else can own anything."""
        self.lease = lease
        self.trusted_until = trusted_until
        self._clock = clock

    def is_trusted(self) -> bool:
        """Return whether nobody else can own this yet."""
        return self.trusted_until == FOR_EVER or self._clock.boot_time() < self.trusted_until

    def check(self) -> None:
        """Raise `LeaseExpiredError` if somebody else may own this by now."""
        if self.trusted_until != FOR_EVER and not self.is_trusted():
            name = f"{self.lease.kind} {self.lease.name}"
            raise LeaseExpiredError(f"the lease on {name} was not renewed in time; another process may own it by now")


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """What a replica holds, and would own. One that takes part no more wants nothing, and has no `fingerprint`.

    `fingerprint` stands for its configuration, each of the `budgets` for the API key that an account spends: nothing is
    taken, or kept, whose budget is spent by another replica, under whatever name.
    """

    replica: str
    fingerprint: str | None
    held: Collection[Lease]
    wanted: Collection[LeaseKey]
    budgets: Mapping[LeaseKey, str]


class TakenLease(NamedTuple):
    """A lease that was taken, and whether from a replica that did not give it up: it died, or lost touch."""

    lease: Lease
    is_takeover: bool


@dataclass(frozen=True, slots=True)
class LeaseReport:
    """What came of a renewal; whatever was held and is not `lost` is renewed.

    `server_us` is the store's time as it was asked. `surplus` is how many the replica holds of a kind beyond its share.
    `differs` says whether the configurations of the `replica_count` replicas that are alive do.
    """

    server_us: Micros
    lost: Collection[Lease]
    taken: Sequence[TakenLease]
    surplus: Mapping[str, int]
    replica_count: int
    differs: bool
