"""Leases as their holders have them, and the rules by which replicas share them: who may take and keep what.

In PostgreSQL each replica renews, gives up and takes in one transaction, by the server's clock. Renewals take turns.
They lock no key, and writers lock nothing else (FOR KEY SHARE), so neither waits for the other. Who takes a lease locks
all of its rows and passes over what is locked: nothing is taken while its owner is writing. An account's owner holds
two rows as one: the account's name says who writes, the hash of its API key who spends, so no key has two owners.
"""

import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from operator import attrgetter
from typing import Any, NamedTuple

import structlog
from sqlalchemy import BigInteger, Connection, cast, delete, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from watcher.domain.errors import LeaseExpiredError, OwnershipLostError
from watcher.domain.timestamps import LATEST, BootTime, Micros
from watcher.runtime.clock import Clock
from watcher.store.changes import Lease
from watcher.store.tables import lease as table

log = structlog.get_logger()

FOR_EVER = BootTime(LATEST)
LONG_AGO = BootTime(float("-inf"))

LEASE_S = 9.0
"""A lease that nobody renews for so long, by the store's clock, is free."""

LEASE_US = round(LEASE_S * 1_000_000)

ORPHANED_US = 2_000_000
"""What is free for so long goes to whoever knows it, beyond its share: others may be dead, or not know it."""

REPLICA = "replica"
"""The kind of the row by which a replica shows that it is alive."""

API_KEY = "api_key"
"""The kind of the row of a key's hash."""

NOBODY = ""
"""The owner of what was given up; what ran out keeps its last one."""

CHANNEL = "clerk_watcher_leases"

FORGOTTEN_US = 3_600_000_000
"""The rows of replicas that ended so long ago go, and those of what nobody has owned since."""

_RENEWING = 7_141_983_064_512_391
"""The number of the advisory lock under which a replica renews, so that no two go by the same state."""

_NOW = select(cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger))


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
    `taken` says of each lease whether it was taken over from a replica that never gave it up: it died, or lost touch.
    In `next_free_us` something may be free that is wanted. `differs` says whether the configurations of the
    `replica_count` replicas that are alive do. What was taken `is_for_ever` where no other process may use the store.
    """

    kept: Collection[Lease]
    may_take: Mapping[LeaseKey, Collection[LeaseKey]]
    surplus: LeaseKey | None
    next_free_us: int
    replica_count: int
    differs: bool
    taken: Mapping[Lease, bool] = field(default_factory=dict)
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
        taken = {self.claim(*key): False for key in request.wanted if key not in held}
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
    """Return the error of a write under a lease that is not valid any more."""
    return OwnershipLostError(f"the lease on {lease.kind} {lease.name} is lost")


def key_of(lease: Lease) -> LeaseKey:
    """Return what a lease is on."""
    return LeaseKey(lease.kind, lease.name)


class PostgresLeases:
    """The leases of a database that several replicas share."""

    def __init__(
        self,
        write: Callable[[Callable[[Connection], Any]], Awaitable[Any]],
        *,
        on_lost: Callable[[], object],
    ) -> None:
        """Do each transaction by `write`. `on_lost` hears, in any thread, that all leases taken so far are lost.

        `renew_now` is called, in the event loop, after that, and when another replica has released something.
        """
        self.renew_now: Callable[[], None] = lambda: None
        self._write = write
        self._on_lost = on_lost
        self._valid: set[int] = set()  # the epochs of the leases taken since a connection that writes broke

    async def renew(self, request: RenewRequest) -> Sharing:
        """Renew what is held, let go of what is released, and take what is free of what is wanted, up to the share.

        Raises `StoreError`: then nothing can be believed renewed, taken or released. It waits for no other write, nor
        they for it. What `lose_all` has lost is taken under another epoch.
        """
        sharing: Sharing = await self._write(partial(self._renew, request))
        return sharing

    def lose_all(self) -> None:
        """Lose all leases taken so far, because a connection that writes broke. Called in the connection's thread.

        Whether its last COMMIT was done is not known, and another server may be the primary by now that lacks the last
        commits. So nothing that the owners believe is written: they reload from the store. What a broken connection was
        still writing is over by then, for a lease cannot be taken meanwhile.
        """
        if self._valid:
            log.warning("store.connection_lost", note="accounts and sinks reload from the store")
        self._valid = set()
        self._on_lost()

    def check(self, connection: Connection, held: Iterable[Lease]) -> None:
        """Raise `OwnershipLostError` unless each lease is valid and the stored one, until the transaction ends."""
        # Sorted, so that two writers never wait for each other.
        for lease in sorted(set(held), key=attrgetter("kind", "name")):
            key = {"kind": lease.kind, "name": lease.name, "epoch": lease.epoch}
            if lease.epoch not in self._valid or connection.execute(_HELD, key).first() is None:
                raise lost(lease)

    def _renew(self, request: RenewRequest, connection: Connection) -> Sharing:
        connection.execute(select(func.pg_advisory_xact_lock(_RENEWING)))
        now, valid = server_time(connection), self._valid
        request = replace(request, held={each: key for each, key in request.held.items() if each.epoch in valid})
        _let_go(connection, request, now=now)
        _show(connection, request, now=now)
        rows = _read(connection, request.wanted, now=now)
        sharing = share(rows, request, now=now)
        if sharing.kept:
            mine = table.c.epoch.in_([lease.epoch for lease in sharing.kept])
            connection.execute(update(table).where(mine).values(until=now + LEASE_US))
        epochs = _take(connection, sharing.may_take, owner=request.replica, now=now)
        former = {NOBODY, request.replica}
        taken = {Lease(*key, epoch): rows[key].owner not in former for key, epoch in epochs.items()}
        valid.intersection_update(each.epoch for each in sharing.kept)
        valid.update(epochs.values())
        return replace(sharing, taken=taken)


def server_time(connection: Connection) -> Micros:
    """Return the server's time of this moment: not that of the transaction, which may have waited since."""
    return Micros(connection.scalars(_NOW).one())


def _let_go(connection: Connection, request: RenewRequest, *, now: Micros) -> None:
    if not request.released:
        return
    of_it = table.c.epoch.in_([lease.epoch for lease in request.released])
    letting_go = update(table).where(table.c.owner == request.replica, of_it)
    connection.execute(letting_go.values(owner=NOBODY, epoch=0, until=now))
    connection.execute(select(func.pg_notify(CHANNEL, "")))


def _show(connection: Connection, request: RenewRequest, *, now: Micros) -> None:
    is_row = (table.c.kind == REPLICA, table.c.name == request.replica)
    connection.execute(delete(table).where(table.c.until < now - FORGOTTEN_US))
    if request.fingerprint is None:
        connection.execute(delete(table).where(*is_row))
        return
    values = {"until": now + LEASE_US, "fingerprint": request.fingerprint}
    key = {"kind": REPLICA, "name": request.replica}
    inserting = insert(table).values(**key, owner=request.replica, epoch=0, **values)
    connection.execute(inserting.on_conflict_do_update(index_elements=list(key), set_=values))


def _read(connection: Connection, wanted: Mapping[LeaseKey, str], *, now: Micros) -> dict[LeaseKey, LeaseRow]:
    rows = {
        LeaseKey(row.kind, row.name): LeaseRow(row.owner, row.epoch, row.until or 0, row.fingerprint)
        for row in connection.execute(select(table))
    }
    needed = {each for key, spends in wanted.items() for each in rows_of(key, spends)}
    missing = dict.fromkeys(sorted(needed - rows.keys()), LeaseRow(NOBODY, 0, now))
    if missing:
        connection.execute(
            insert(table).on_conflict_do_nothing(),
            [{**key._asdict(), "owner": NOBODY, "epoch": 0, "until": now} for key in missing],
        )
    return rows | missing


def _take(
    connection: Connection, may_take: Mapping[LeaseKey, Collection[LeaseKey]], *, owner: str, now: Micros
) -> dict[LeaseKey, int]:
    """Take these, but for what somebody is writing under; return the epoch of each that was taken."""
    epochs: dict[LeaseKey, int] = {}
    for key, rows in may_take.items():
        is_row = tuple_(table.c.kind, table.c.name).in_(rows)
        locked = connection.execute(select(table.c.name).where(is_row).with_for_update(skip_locked=True)).all()
        if len(locked) == len(rows):
            epochs[key] = secrets.randbits(62)
            taking = update(table).where(is_row)
            connection.execute(taking.values(owner=owner, epoch=epochs[key], until=now + LEASE_US))
    return epochs


_HELD = text("SELECT epoch FROM lease WHERE kind = :kind AND name = :name AND epoch = :epoch FOR KEY SHARE")
"""Nobody takes it meanwhile, but it may be renewed. One at a time: a list is expanded anew, at twice the cost."""
