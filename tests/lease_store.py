"""Leases in memory, which several replicas of a test share, by a clock that is set by hand."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from watcher.domain.errors import OwnershipLostError, StoreError
from watcher.domain.timestamps import Micros
from watcher.runtime.clock import Clock
from watcher.store.changes import Lease
from watcher.store.leases import LEASE_S, NO_BUDGETS, LeaseKey, LeaseReport, RenewRequest, TakenLease
from watcher.store.postgresql_leases import share_of

Claim = Callable[[str, str], Awaitable[Lease]]


async def claim_alone(kind: str, name: str) -> Lease:
    return Lease(kind, name, secrets.randbits(62))


@dataclass(slots=True)
class Row:
    owner: str
    lease: Lease
    until_s: float
    budget: str | None = None


@dataclass
class LeaseTable:
    """What is stored. `claim` makes each new lease; what is `written` has a write under way."""

    clock: Clock
    claim: Claim = claim_alone
    rows: dict[LeaseKey, Row] = field(default_factory=dict)
    replicas: dict[str, tuple[float, str]] = field(default_factory=dict)
    written: set[LeaseKey] = field(default_factory=set)
    ahead_us: int = 0

    @property
    def server_us(self) -> Micros:
        """Return the time of its server, which may be ahead of the clock."""
        return Micros(self.clock.steady_us() + self.ahead_us)

    def now(self) -> float:
        return self.clock.monotonic()

    def owned(self, kind: str = "account") -> Counter[str]:
        """Return how many leases of a kind each owner has that have not run out."""
        return Counter(row.owner for key, row in self.rows.items() if key.kind == kind and row.until_s > self.now())

    def is_free(self, key: LeaseKey, budget: str | None = None) -> bool:
        """Return whether nobody has it, and nobody spends that budget."""
        held = [(other, row.budget) for other, row in self.rows.items() if row.until_s > self.now()]
        return all(other != key and (budget is None or budget != spent) for other, spent in held)

    async def give(self, key: LeaseKey, *, owner: str, budget: str | None = None) -> Lease:
        """Have that owner take it, whoever has it."""
        lease = await self.claim(*key)
        self.rows[key] = Row(owner, lease, self.now() + LEASE_S, budget)
        return lease

    def holds(self, lease: Lease) -> bool:
        key = LeaseKey(lease.kind, lease.name)
        return key in self.rows and self.rows[key].lease == lease


class FakeLeaseStore:
    """The table as one replica sees it. `trouble` is raised instead of an answer; what `hangs` is set for waits."""

    def __init__(self, table: LeaseTable) -> None:
        self.table = table
        self.trouble: StoreError | None = None
        self.forgets_to_say = False  # the trouble comes after the commit
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked: list[str] = []
        self.tell: Callable[[], None] = lambda: None

    def follow(self, on_released: Callable[[], None]) -> None:
        self.tell = on_released

    async def renew(self, request: RenewRequest) -> LeaseReport:
        await self._ask("renew", before_commit=True)
        table, now = self.table, self.table.now()
        held = [lease for lease in request.held if table.holds(lease)]
        for lease in held:
            table.rows[LeaseKey(lease.kind, lease.name)].until_s = now + LEASE_S
        if request.fingerprint is None:
            table.replicas.pop(request.replica, None)
        else:
            table.replicas[request.replica] = (now + LEASE_S, request.fingerprint)
        alive = {name: print_ for name, (until_s, print_) in table.replicas.items() if until_s > now}
        taken: list[TakenLease] = []
        surplus: dict[str, int] = {}
        for kind in sorted({key.kind for key in request.wanted}):
            wanted = sorted(key for key in request.wanted if key.kind == kind)
            mine = sum(lease.kind == kind for lease in held)
            share = share_of(len(wanted), replica_count=len(alive))
            free = [key for key in wanted if table.is_free(key, request.budgets.get(key))]
            for key in free[: max(0, share - mine)]:
                is_takeover = key in table.rows and bool(table.rows[key].owner)
                lease = await table.give(key, owner=request.replica, budget=request.budgets.get(key))
                taken.append(TakenLease(lease, is_takeover))
            surplus[kind] = max(0, mine - share)
        await self._ask("renewed", before_commit=False)
        lost = [lease for lease in request.held if lease not in held]
        return LeaseReport(table.server_us, lost, taken, surplus, len(alive), len(set(alive.values())) > 1)

    async def finds_free(self, wanted: Collection[LeaseKey], *, budgets: Mapping[LeaseKey, str] = NO_BUDGETS) -> bool:
        await self._ask("finds_free", before_commit=True)
        return any(self.table.is_free(key, budgets.get(key)) for key in wanted)

    async def retake(self, lease: Lease) -> Lease | None:
        await self._ask("retake", before_commit=True)
        if not self.table.holds(lease):
            raise OwnershipLostError("by the test")
        key = LeaseKey(lease.kind, lease.name)
        if key in self.table.written:
            return None
        row = self.table.rows[key]
        row.lease = await self.table.claim(lease.kind, lease.name)
        return row.lease

    async def release(self, leases: Collection[Lease], *, leaving: str | None) -> None:
        await self._ask("release", before_commit=True)
        for lease in filter(self.table.holds, leases):
            row = self.table.rows[LeaseKey(lease.kind, lease.name)]
            row.owner, row.until_s = "", self.table.now()
        if leaving is not None:
            self.table.replicas.pop(leaving, None)

    async def _ask(self, what: str, *, before_commit: bool) -> None:
        if before_commit:
            self.asked.append(what)
            await self.may_answer.wait()
        if self.trouble is not None and before_commit is not self.forgets_to_say:
            raise self.trouble
