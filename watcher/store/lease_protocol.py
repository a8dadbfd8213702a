"""Leases as replicas share them: what one asks of the store every few seconds, and what it is told."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

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


class LeaseStore(Protocol):
    """The leases of a store that several replicas share. Each method is one transaction, and raises `StoreError`.

    What it raises means that nothing can be believed renewed, taken or released. None of it waits for other writes, nor
    they for it.
    """

    def follow(self, on_released: Callable[[], None]) -> None:
        """Call this, in the event loop, soon after another replica has released something, if that can be heard."""
        ...

    async def renew(self, request: RenewRequest) -> LeaseReport:
        """Renew what is held, and take what is free of what is wanted, up to the replica's share of each kind."""
        ...

    async def finds_free(self, wanted: Collection[LeaseKey], *, budgets: Mapping[LeaseKey, str] = NO_BUDGETS) -> bool:
        """Return whether any of these is free, and its budget spent by nobody."""
        ...

    async def retake(self, lease: Lease) -> Lease | None:
        """Return the same lease under another epoch: nothing is written any more under the one it had.

        `None` while something is being written under that: it is to be asked again. Raises `OwnershipLostError` if it
        is held no more.
        """
        ...

    async def release(self, leases: Collection[Lease], *, leaving: str | None) -> None:
        """Let others have these, as far as they are still held, and tell them. A replica that is `leaving` is gone."""
        ...
