"""Leases as their holders have them, and the rules by which replicas share them: who may take and keep what.

An account's owner holds two rows, taken and renewed as one: the account's name says who writes, the hash of its API key
who spends. So an account that is renamed, or given another key, on one replica before the other never has two owners
that spend one key.
"""

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from watcher.domain.errors import LeaseExpiredError, OwnershipLostError
from watcher.domain.timestamps import LATEST, BootTime, Micros
from watcher.runtime.clock import Clock
from watcher.store.changes import Lease

FOR_EVER = BootTime(LATEST)
LONG_AGO = BootTime(float("-inf"))

LEASE_S = 9.0
"""A lease that nobody renews for so long, by the store's clock, is free."""

LEASE_US = round(LEASE_S * 1_000_000)

ORPHANED_US = 2_000_000
"""What is free for so long goes to whoever knows it, beyond its share: those it was left to would have taken it.

They may be dead for less time than their rows live, or unable to write, or have a configuration without it.
"""

REPLICA = "replica"
"""The kind of the row by which a replica shows that it is alive."""

API_KEY = "api_key"
"""The kind of the row of a key's hash."""

NOBODY = ""
"""The owner of what was given up; what ran out keeps its last one."""


class LeaseKey(NamedTuple):
    """Names what can be owned: an account, a sink, or the maintenance of the store."""

    kind: str
    name: str


MAINTENANCE = LeaseKey("maintenance", "store")
"""Its holder tidies the store."""


class HeldLease:
    """A lease that is trusted until a moment of this machine's boot time, which each renewal puts off.

    Its holder asks before each request: whatever is written under it the store checks itself, but it cannot call
    a request back. `spends` is the hash of the API key that it was taken with, if any.
    """

    def __init__(self, lease: Lease, *, clock: Clock, trusted_until: BootTime = FOR_EVER, spends: str = "") -> None:
        """Trust it until then: for ever where nobody else can own anything."""
        self.lease = lease
        self.trusted_until = trusted_until
        self.spends = spends
        self.is_used = False  # whether an owner has had it
        self._clock = clock

    def is_trusted(self) -> bool:
        """Return whether nobody else can own this yet."""
        return self.trusted_until == FOR_EVER or self._clock.boot_time() < self.trusted_until

    def check(self) -> None:
        """Raise `LeaseExpiredError` if somebody else may own this by now."""
        if not self.is_trusted():
            name = f"{self.lease.kind} {self.lease.name}"
            raise LeaseExpiredError(f"the lease on {name} was not renewed in time; another process may own it by now")


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """What a replica holds, has given up since it asked last, and would own.

    `held` and `wanted` say with each account the hash of its API key, "" with all else. `fingerprint` stands for the
    replica's configuration; one that takes part no more has none, and wants nothing.
    """

    replica: str
    fingerprint: str | None
    held: Mapping[Lease, str]
    wanted: Mapping[LeaseKey, str]
    released: Collection[Lease] = ()


class TakenLease(NamedTuple):
    """A lease that was taken, and whether from a replica that did not give it up: it died, or lost touch."""

    lease: Lease
    is_takeover: bool


class LeaseRow(NamedTuple):
    """A row of the store: of a lease, of an API key, or of a replica, whose `fingerprint` is its configuration's."""

    owner: str
    epoch: int
    until: int
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Sharing:
    """What a replica keeps, may take, and is to give up, one at a time (`surplus`), and what it has taken of that.

    `may_take` has for each lease the rows that belong to it; what of it is not `taken` its last owner is still writing.
    In `next_free_us` something may be free that is wanted. `differs` says whether the configurations of the
    `replica_count` replicas that are alive do. What was taken `is_for_ever` where no other process may use the store.
    """

    kept: Collection[Lease]
    may_take: Mapping[LeaseKey, Collection[LeaseKey]]
    surplus: LeaseKey | None
    next_free_us: int
    replica_count: int
    differs: bool
    taken: Collection[TakenLease] = ()
    is_for_ever: bool = False


class LocalLeases:
    """The leases of a store that this process alone uses: it takes what it wants, for ever."""

    def __init__(self) -> None:
        """Have nothing taken yet. Nobody else releases anything, so `renew_now` is called by nobody."""
        self.renew_now: Callable[[], None] = lambda: None
        self._epochs: dict[tuple[str, str], int] = {}

    def claim(self, kind: str, name: str) -> Lease:
        """Take ownership, whoever had it. The epoch is random, not a count: a count repeats after a lost commit."""
        lease = Lease(kind, name, secrets.randbits(62))
        self._epochs[kind, name] = lease.epoch
        return lease

    def check(self, _connection: object, held: Iterable[Lease]) -> None:
        """Raise `OwnershipLostError` unless each lease is the last one that was taken."""
        for lease in held:
            if self._epochs.get((lease.kind, lease.name)) != lease.epoch:
                raise lost(lease)

    async def renew(self, request: RenewRequest) -> Sharing:
        """Take what is wanted and not held."""
        held = {key_of(lease) for lease in request.held}
        taken = [TakenLease(self.claim(*key), is_takeover=False) for key in request.wanted if key not in held]
        return Sharing(request.held.keys(), {}, None, 0, 1, differs=False, taken=taken, is_for_ever=True)


def share(rows: Mapping[LeaseKey, LeaseRow], request: RenewRequest, *, now: Micros) -> Sharing:
    """Return what a replica may have of these rows, among which there is one for each lease and key that it wants.

    Of each kind it takes what is free up to its share, rounded up. What the store says is its own, though it does not
    hold it, is free to it: the answer to a renewal was lost.
    """
    kept = {
        lease
        for lease, spends in request.held.items()
        if all(key in rows and rows[key].epoch == lease.epoch for key in rows_of(key_of(lease), spends))
    }
    epochs = {lease.epoch for lease in kept}
    alive = [row.fingerprint for key, row in rows.items() if key.kind == REPLICA and row.until > now]
    differs = len(set(alive)) > 1

    def free_from(row: LeaseRow) -> int:
        if row.epoch in epochs:
            return now + LEASE_US
        return now if row.owner == request.replica else row.until

    may_take: list[LeaseKey] = []
    free_later = [now + LEASE_US]
    surplus: LeaseKey | None = None
    for kind in sorted({key.kind for key in request.wanted}):
        keys = sorted(key for key in request.wanted if key.kind == kind)
        mine = sorted(key_of(lease) for lease in kept if lease.kind == kind)
        since = {key: max(free_from(rows[each]) for each in rows_of(key, request.wanted[key])) for key in keys}
        free = [key for key in keys if since[key] <= now and key not in mine]
        free.sort(key=lambda key: since[key] > now - ORPHANED_US)  # orphans first
        orphans_count = sum(since[key] <= now - ORPHANED_US for key in free)
        share_count = ceil(len(keys) / len(alive))
        count = max(orphans_count, share_count - len(mine))
        may_take += free[:count]
        free_later += [since[key] + ORPHANED_US for key in free[count:]] + [at for at in since.values() if at > now]
        if surplus is None and len(mine) > share_count and not differs:  # else whoever lacks some may not know the rest
            surplus = mine[-1]
    rows_to_take = {key: rows_of(key, request.wanted[key]) for key in may_take}
    return Sharing(kept, rows_to_take, surplus, min(free_later) - now, len(alive), differs)


def rows_of(key: LeaseKey, spends: str) -> list[LeaseKey]:
    """Return the rows that belong to a lease."""
    return [key, LeaseKey(API_KEY, spends)] if spends else [key]


def lost(lease: Lease) -> OwnershipLostError:
    """Return what a write under a lease comes to that is the stored one no more."""
    return OwnershipLostError(f"another process owns {lease.kind} {lease.name} by now")


def key_of(lease: Lease) -> LeaseKey:
    """Return what a lease is on."""
    return LeaseKey(lease.kind, lease.name)
