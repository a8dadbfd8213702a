"""Leases in memory, which several replicas of a test share, by a clock that is set by hand."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import cast

from stores import claim
from virtual import FakeClock

from watcher.daemon.ownership import Ownership
from watcher.domain.errors import StoreError
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.store.changes import Lease
from watcher.store.leases import (
    API_KEY,
    LEASE_US,
    NOBODY,
    REPLICA,
    HeldLease,
    LeaseKey,
    LeaseRow,
    PostgresLeases,
    RenewRequest,
    Sharing,
    key_of,
    rows_of,
    share,
)
from watcher.store.sql_store import SqlStore

Claim = Callable[[str, str], Awaitable[Lease]]


async def claim_alone(kind: str, name: str) -> Lease:
    return Lease(kind, name, secrets.randbits(62))


@dataclass
class LeaseTable:
    """What is stored. `claim` makes each new lease; what is `written` has a write under way."""

    clock: FakeClock
    claim: Claim = claim_alone
    rows: dict[LeaseKey, LeaseRow] = field(default_factory=dict)
    written: set[LeaseKey] = field(default_factory=set)

    def owned(self, kind: str = "account") -> Counter[str]:
        """Return how many leases of a kind each owner has that have not run out."""
        return Counter(row.owner for key, row in self.rows.items() if key.kind == kind and not self.is_free(key))

    def is_free(self, key: LeaseKey) -> bool:
        return key not in self.rows or self.rows[key].until <= self.clock.steady_us()

    def spent(self) -> set[str]:
        """Return the hashes of the API keys that are spent."""
        return {key.name for key in self.rows if key.kind == API_KEY and not self.is_free(key)}

    async def give(self, key: LeaseKey, *, owner: str, api_key_hash: str = "") -> Lease:
        """Have that owner take it, whoever has it."""
        lease = await self.claim(*key)
        for each in rows_of(key, api_key_hash):
            self.rows[each] = LeaseRow(owner, lease.epoch, self.clock.steady_us() + LEASE_US)
        return lease

    def take_away(self, key: LeaseKey) -> None:
        """Have it run out."""
        self.rows[key] = self.rows[key]._replace(until=self.clock.steady_us())

    def show(self, replica: str, fingerprint: str | None) -> None:
        """Have a replica show that it is alive."""
        self.rows[LeaseKey(REPLICA, replica)] = LeaseRow(replica, 0, self.clock.steady_us() + LEASE_US, fingerprint)

    def replicas(self) -> set[str]:
        return {key.name for key in self.rows if key.kind == REPLICA}


class FakeLeaseStore:
    """The table as one replica sees it. `trouble` is raised instead of an answer; what `hangs` is set for waits."""

    def __init__(self, table: LeaseTable) -> None:
        self.table = table
        self.trouble: StoreError | None = None
        self.forgets_to_say = False  # the trouble comes after the commit
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[RenewRequest] = []
        self.renew_now: Callable[[], None] = lambda: None

    def as_of_postgresql(self) -> PostgresLeases:
        """Return it as what it stands for."""
        return cast("PostgresLeases", self)

    async def renew(self, request: RenewRequest) -> Sharing:
        self.asked.append(request)
        await self.may_answer.wait()
        if self.trouble is not None and not self.forgets_to_say:
            raise self.trouble
        table, now = self.table, self.table.clock.steady_us()
        released = {lease.epoch for lease in request.released}
        for key, row in table.rows.items():
            if row.owner == request.replica and row.epoch in released:
                table.rows[key] = LeaseRow(NOBODY, 0, now)
        if request.fingerprint is None:
            table.rows.pop(LeaseKey(REPLICA, request.replica), None)
        else:
            table.show(request.replica, request.fingerprint)
        for key, api_key_hash in request.wanted.items():
            for each in rows_of(key, api_key_hash):
                table.rows.setdefault(each, LeaseRow(NOBODY, 0, now))
        sharing = share(table.rows, request, now=now)
        kept = {lease.epoch for lease in sharing.kept}
        for key, row in table.rows.items():
            if row.epoch in kept:
                table.rows[key] = row._replace(until=now + LEASE_US)
        taken: dict[Lease, bool] = {}
        for key in sharing.may_take:
            if key not in table.written:
                is_takeover = table.rows[key].owner not in {NOBODY, request.replica}
                lease = await table.give(key, owner=request.replica, api_key_hash=request.wanted[key])
                taken[lease] = is_takeover
        if self.trouble is not None:
            raise self.trouble
        return replace(sharing, taken=taken)


class Alone(Ownership):
    """Owns whatever it is asked for, for ever: what is wanted it does not ask."""

    def __init__(self, store: SqlStore, *, clock: Clock) -> None:
        super().__init__(store.leases, replica="one", clock=clock, metrics=Metrics(), fatal=lambda _error: None)
        self._alone_with = store
        self.is_agreed = True

    def may_own(self, key: LeaseKey) -> bool:
        return True

    async def take(self, key: LeaseKey) -> HeldLease:
        self._held[key] = HeldLease(await claim(self._alone_with, *key), clock=self._clock)
        return self._held[key]


def released(requests: list[RenewRequest]) -> list[LeaseKey]:
    """Return what was let go of by these."""
    return [key_of(lease) for request in requests for lease in request.released]
