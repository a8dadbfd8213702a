"""Leases as replicas share them: what one asks of the store every few seconds, and what it is told."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease

LEASE_S = 9.0
"""A lease that nobody renews for so long, by the store's clock, is free."""


class LeaseKey(NamedTuple):
    """Names what can be owned: an account, a sink, or the maintenance of the store."""

    kind: str
    name: str


NO_BUDGETS: Mapping[LeaseKey, str] = MappingProxyType({})

MAINTENANCE = LeaseKey("maintenance", "store")
"""Whoever holds this tidies the store."""


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
