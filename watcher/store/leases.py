"""Leases on accounts and sinks: the holder's view of a lease, and the rules by which replicas share the leases.

In PostgreSQL each replica renews, releases and takes its leases in one transaction, by the server's clock, one replica
at a time. A renewal changes no key, and a write locks only the key of a row (FOR KEY SHARE), so neither blocks the
other. Taking a lease locks all of its rows and skips rows that are locked, so no lease is taken while its owner writes.
The lease of an account has two rows: the row of the account's name for the right to write, and the row of the hash of
its API key for the right to send requests. Both are taken together or not at all, so no API key has two owners.
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
"""The time for which a lease lasts after its last renewal, by the server's clock."""

LEASE_US = round(LEASE_S * 1_000_000)

ORPHANED_US = 2_000_000
"""Time for which a lease must have been free before a replica takes it beyond its share.

The other replicas may be dead, or their configuration may lack the account or the sink.
"""

REPLICA = "replica"
"""The kind of the row by which a replica shows that it is alive."""

API_KEY = "api_key"
"""The kind of the row for the hash of an API key."""

NOBODY = ""
"""The owner of a released lease. The row of a lease that ran out still names its last owner."""

FORGOTTEN_US = 3_600_000_000
"""Time after which the rows of dead replicas and of leases without an owner are deleted."""

_RENEWING = 7_141_983_064_512_391
"""The number of the advisory lock that each renewal takes, so that no two renewals decide by the same rows."""

_NOW = select(cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger))


class LeaseKey(NamedTuple):
    """The key of a row: of a lease (on an account, a sink or the maintenance), of an API key, or of a replica."""

    kind: str
    name: str


MAINTENANCE = LeaseKey("maintenance", "store")
"""The key of the lease of the one process that does the maintenance of the store."""


class HeldLease:
    """A lease that this process holds. The process trusts the lease until a time that each renewal moves on.

    The store checks the lease of each write itself. A request cannot be called back, so an owner checks its lease
    before each request.
    """

    def __init__(
        self, lease: Lease, *, clock: Clock, trusted_until: BootTime = FOR_EVER, api_key_hash: str = ""
    ) -> None:
        """Trust the lease until `trusted_until`: for ever if no other process can use the store.

        `api_key_hash` is the hash of the API key for the lease of an account, and "" for any other lease.
        """
        self.lease = lease
        self.trusted_until = trusted_until
        self.api_key_hash = api_key_hash
        self.is_used = False  # whether an owner was made for this lease
        self._clock = clock

    def is_trusted(self) -> bool:
        """Return whether no other process can hold this lease yet."""
        return self.trusted_until == FOR_EVER or self._clock.boot_time() < self.trusted_until

    def check(self) -> None:
        """Raise `LeaseExpiredError` if another process may hold this lease by now."""
        if not self.is_trusted():
            name = f"{self.lease.kind} {self.lease.name}"
            raise LeaseExpiredError(f"the lease on {name} was not renewed in time; another process may own it by now")


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """The request of a replica: the leases that it holds, wants and has released."""

    replica: str
    fingerprint: str | None
    """The fingerprint of the replica's configuration; `None` for a replica that stops, and wants no lease."""
    held: Mapping[Lease, str]
    """The held leases. The value is the hash of the API key for the lease of an account, and "" for any other lease."""
    wanted: Mapping[LeaseKey, str]
    """The keys of the leases on all configured accounts and sinks, and on the maintenance. Values as in `held`."""
    released: Collection[Lease] = ()
    """The leases released since the last request."""


class LeaseRow(NamedTuple):
    """A row of the store: of a lease, of an API key, or of a replica with the `fingerprint` of its configuration."""

    owner: str
    epoch: int
    until: int
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Sharing:
    """The result of a renewal: the leases that a replica keeps, may take, has taken, and must release."""

    kept: Collection[Lease]
    may_take: Mapping[LeaseKey, Collection[LeaseKey]]
    """The free leases that the replica may take, each with the rows that belong to it.

    A lease that is missing in `taken` was locked: its last owner was still writing.
    """
    surplus: LeaseKey | None
    """A lease that the replica must release, because it holds more than its share; at most one per renewal."""
    next_free_us: int
    """Microseconds until the first of the other wanted leases may become free."""
    replica_count: int
    """The number of replicas that are alive."""
    differs: bool
    """Whether the replicas that are alive have different configurations."""
    taken: Mapping[Lease, bool] = field(default_factory=dict)
    """The new leases. `True`: the last owner did not release the lease, because it died or did not reach the store."""
    is_for_ever: bool = False
    """Whether the taken leases never run out, because no other process can use the store."""


class LocalLeases:
    """The leases of a store that only this process uses. A lease is taken once it is wanted, and never runs out."""

    def __init__(self) -> None:
        """Start without any lease. Nobody calls `renew_now`, because no other process can release a lease."""
        self.renew_now: Callable[[], None] = lambda: None
        self._epochs: dict[LeaseKey, int] = {}

    def claim(self, kind: str, name: str) -> Lease:
        """Take a lease, even from another owner. Its epoch is random: a counter could repeat after a lost commit."""
        lease = Lease(kind, name, secrets.randbits(62))
        self._epochs[key_of(lease)] = lease.epoch
        return lease

    def check(self, _connection: object, held: Iterable[Lease]) -> None:
        """Raise `OwnershipLostError` unless each lease is the last one that was taken of its account or sink."""
        for lease in held:
            if self._epochs.get(key_of(lease)) != lease.epoch:
                raise lost(lease)

    async def renew(self, request: RenewRequest) -> Sharing:
        """Take the leases that are wanted and not held."""
        held = {key_of(lease) for lease in request.held}
        taken = {self.claim(*key): False for key in request.wanted if key not in held}
        return Sharing(request.held.keys(), {}, None, 0, 1, differs=False, taken=taken, is_for_ever=True)


def share(rows: Mapping[LeaseKey, LeaseRow], request: RenewRequest, *, now: Micros) -> Sharing:
    """Return which leases a replica keeps, may take and must release.

    `rows` has all leases and API keys that the replica wants. The share of a kind is the number of wanted leases of
    this kind divided by the number of live replicas, rounded up. The replica may take free leases up to its share, and
    beyond it those that have been free for `ORPHANED_US`. A lease also counts as free if the store names this replica
    as the owner, but the replica does not hold the lease: the answer to an earlier renewal was lost.
    """
    kept = {
        lease
        for lease, api_key_hash in request.held.items()
        if all(key in rows and rows[key].epoch == lease.epoch for key in rows_of(key_of(lease), api_key_hash))
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
        if surplus is None and len(mine) > share_count and not differs:  # otherwise the others may not want it
            surplus = mine[-1]
    rows_to_take = {key: rows_of(key, request.wanted[key]) for key in may_take}
    return Sharing(kept, rows_to_take, surplus, min(free_later) - now, len(alive), differs)


def rows_of(key: LeaseKey, api_key_hash: str) -> list[LeaseKey]:
    """Return the keys of the rows of a lease. `api_key_hash` is the hash of its API key, or ""."""
    return [key, LeaseKey(API_KEY, api_key_hash)] if api_key_hash else [key]


def lost(lease: Lease) -> OwnershipLostError:
    """Return the error for a write under a lease that is no longer valid."""
    return OwnershipLostError(f"the lease on {lease.kind} {lease.name} is lost")


def key_of(lease: Lease) -> LeaseKey:
    """Return the key of a lease."""
    return LeaseKey(lease.kind, lease.name)


class PostgresLeases:
    """The leases of a database that several replicas share."""

    def __init__(
        self, write: Callable[[Callable[[Connection], Any]], Awaitable[Any]], *, on_lost: Callable[[], object]
    ) -> None:
        """Run each transaction by `write`. `on_lost` is called, in any thread, when all leases taken so far are lost.

        `renew_now` is called in the event loop after such a loss.
        """
        self.renew_now: Callable[[], None] = lambda: None
        self._write = write
        self._on_lost = on_lost
        self._valid: set[int] = set()  # epochs of the leases taken since a writing connection last broke

    async def renew(self, request: RenewRequest) -> Sharing:
        """Renew the held leases, release the released ones, and take free ones up to the replica's share.

        After a `StoreError` it is unknown which leases were renewed, taken or released. A renewal blocks no other
        write, and no write blocks a renewal. Leases that `lose_all` has made invalid are taken again with new epochs.
        """
        sharing: Sharing = await self._write(partial(self._renew, request))
        return sharing

    def lose_all(self) -> None:
        """Make all leases taken so far invalid, because a connection that writes broke.

        It is called in the thread of that connection. Two things are unknown then: whether the last COMMIT was done,
        and whether another server, which lacks the last commits, is the primary by now. No owner may write by what it
        remembers, so all owners reload from the store. A lease cannot be taken while a transaction under it is open, so
        all writes of the broken connection are over before an owner reloads.
        """
        if self._valid:
            log.warning("store.connection_lost", note="accounts and sinks reload from the store")
        self._valid = set()
        self._on_lost()

    def check(self, connection: Connection, held: Iterable[Lease]) -> None:
        """Raise `OwnershipLostError` unless each lease is valid and stored.

        No replica can take any of these leases before the transaction ends.
        """
        # Sorted, so that two writers cannot deadlock.
        for lease in sorted(set(held), key=attrgetter("kind", "name")):
            key = {"kind": lease.kind, "name": lease.name, "epoch": lease.epoch}
            if lease.epoch not in self._valid or connection.execute(_HELD, key).first() is None:
                raise lost(lease)

    def _renew(self, request: RenewRequest, connection: Connection) -> Sharing:
        connection.execute(select(func.pg_advisory_xact_lock(_RENEWING)))
        now, valid = server_time(connection), self._valid
        request = replace(request, held={each: key for each, key in request.held.items() if each.epoch in valid})
        _release(connection, request, now=now)
        _show_alive(connection, request, now=now)
        rows = _load_rows(connection, request.wanted, now=now)
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
    """Return the time now by the server's clock. SQL's `now()` would be the start of the transaction."""
    return Micros(connection.scalars(_NOW).one())


def _release(connection: Connection, request: RenewRequest, *, now: Micros) -> None:
    if not request.released:
        return
    of_released = table.c.epoch.in_([lease.epoch for lease in request.released])
    releasing = update(table).where(table.c.owner == request.replica, of_released)
    connection.execute(releasing.values(owner=NOBODY, epoch=0, until=now))


def _show_alive(connection: Connection, request: RenewRequest, *, now: Micros) -> None:
    is_row = (table.c.kind == REPLICA, table.c.name == request.replica)
    connection.execute(update(table).where(table.c.until > now + LEASE_US).values(until=now + LEASE_US))
    connection.execute(delete(table).where(table.c.until < now - FORGOTTEN_US))
    if request.fingerprint is None:
        connection.execute(delete(table).where(*is_row))
        return
    values = {"until": now + LEASE_US, "fingerprint": request.fingerprint}
    key = {"kind": REPLICA, "name": request.replica}
    inserting = insert(table).values(**key, owner=request.replica, epoch=0, **values)
    connection.execute(inserting.on_conflict_do_update(index_elements=list(key), set_=values))


def _load_rows(connection: Connection, wanted: Mapping[LeaseKey, str], *, now: Micros) -> dict[LeaseKey, LeaseRow]:
    rows = {
        LeaseKey(row.kind, row.name): LeaseRow(row.owner, row.epoch, row.until or 0, row.fingerprint)
        for row in connection.execute(select(table))
    }
    needed = {each for key, api_key_hash in wanted.items() for each in rows_of(key, api_key_hash)}
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
    """Take these leases, except those under which an owner is writing; return the epoch of each taken lease."""
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
"""Locks a lease until the transaction ends: no replica can take it, but its owner can renew it.

The statement runs once for each lease: SQLAlchemy would expand a list on each call, at twice the cost.
"""
