"""Leases in PostgreSQL: who is alive, who holds what until when, and what is free, all by the server's clock.

Each replica has a row of the kind `replica`, which it renews with its leases. A lease whose `until` has passed is free;
one that was given up has no owner either, so that nobody takes it for one that ran out.

Renewing locks no key, and writers lock nothing else (FOR KEY SHARE), so neither waits for the other. Who takes a lease
locks all of its row and passes over what is locked: nothing is taken while its owner's write is under way.
"""

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    String,
    and_,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from watcher.domain.errors import OwnershipLostError
from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease
from watcher.store.leases import LEASE_S, NO_BUDGETS, LeaseKey, LeaseReport, RenewRequest, TakenLease
from watcher.store.tables import lease as table

CHANNEL = "clerk_watcher_leases"

REPLICA = "replica"
NOBODY = ""

LEASE_US = round(LEASE_S * 1_000_000)

ORPHANED_US = 2_000_000
"""What is free for so long goes to whoever knows it, beyond its share: those it was left to would have taken it.

They may be dead for less time than their rows live, or unable to write, or have a configuration without it.
"""

FORGOTTEN_US = 3_600_000_000
"""The rows of replicas that ended so long ago go."""

_NOW = select(cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger))


class PostgresLeases:
    """The leases of a database that several replicas share. Each method is one transaction, and raises `StoreError`.

    What it raises means that nothing can be believed renewed, taken or released. None of it waits for other writes, nor
    they for it.
    """

    def __init__(
        self,
        write: Callable[[Callable[[Connection], Any]], Awaitable[Any]],
        *,
        follow: Callable[[Callable[[], None]], None],
    ) -> None:
        """Do each transaction by `write`.

        `follow` is given what to call, in the event loop, soon after another replica has released something.
        """
        self._write = write
        self.follow = follow

    async def renew(self, request: RenewRequest) -> LeaseReport:
        """Renew what is held, and take what is free of what is wanted, up to the replica's share of each kind."""
        report: LeaseReport = await self._write(partial(_renew, request=request))
        return report

    async def finds_free(self, wanted: Collection[LeaseKey], *, budgets: Mapping[LeaseKey, str] = NO_BUDGETS) -> bool:
        """Return whether any of these is free, and its budget spent by nobody."""
        return bool(await self._write(partial(_finds_free, wanted=wanted, budgets=budgets)))

    async def retake(self, lease: Lease) -> Lease | None:
        """Return the same lease under another epoch: nothing is written any more under the one it had.

        `None` while something is being written under that: it is to be asked again. Raises `OwnershipLostError` if it
        is held no more.
        """
        taken: Lease | None = await self._write(partial(_retake, lease=lease))
        return taken

    async def release(self, leases: Collection[Lease], *, leaving: str | None) -> None:
        """Let others have these, as far as they are still held, and tell them. A replica that is `leaving` is gone."""
        await self._write(partial(_release, leases=leases, leaving=leaving))


def _renew(connection: Connection, *, request: RenewRequest) -> LeaseReport:
    now = server_time(connection)
    held = _extend(connection, request, now=now)
    _show(connection, request, now=now)
    configurations = _configurations(connection, now=now)
    differs = len(set(configurations)) > 1
    mine = Counter(lease.kind for lease in held)
    taken: list[TakenLease] = []
    surplus: dict[str, int] = {}
    for kind, grouped in groupby(sorted(request.wanted), key=attrgetter("kind")):
        names = [key.name for key in grouped]
        share = share_of(len(names), replica_count=len(configurations))
        if share > mine[kind]:
            _insert_missing(connection, kind, names, now=now)
            free = _free(connection, kind, names, since=now, count=share - mine[kind])
            taken += _take(connection, free, request, now=now)
        orphans = _free(connection, kind, names, since=now - ORPHANED_US)
        taken += _take(connection, orphans, request, now=now)
        if not differs:  # else whoever lacks some may not know the rest
            surplus[kind] = max(0, mine[kind] - share)
    lost = [lease for lease in request.held if lease not in held]
    return LeaseReport(now, lost, taken, surplus, len(configurations), differs)


def server_time(connection: Connection) -> Micros:
    """Return the server's time of this moment: not that of the transaction, which may have waited since."""
    return Micros(connection.scalars(_NOW).one())


def _rows(**columns: tuple[Sequence[object], type[BigInteger] | type[String]]) -> FromClause:
    """Return these columns as a table, each bound as one array."""
    arrays = [bindparam(None, list(values), type_=ARRAY(kind)) for values, kind in columns.values()]
    names = [column(name, kind) for name, (_, kind) in columns.items()]
    return func.unnest(*arrays).table_valued(*names).render_derived(name="given")


def _given(leases: Collection[Lease]) -> FromClause:
    ordered = sorted(leases, key=attrgetter("kind", "name"))
    return _rows(
        kind=([each.kind for each in ordered], String),
        name=([each.name for each in ordered], String),
        epoch=([each.epoch for each in ordered], BigInteger),
    )


def _is_of(given: FromClause) -> list[ColumnElement[bool]]:
    return [table.c[key] == given.c[key] for key in ("kind", "name", "epoch")]


def _extend(connection: Connection, request: RenewRequest, *, now: Micros) -> set[Lease]:
    """Renew what is still held; return it, but for what has another key by now that somebody else uses still."""
    if not request.held:
        return set()
    extending = update(table).where(*_is_of(_given(request.held))).values(until=now + LEASE_US)
    columns = (table.c.kind, table.c.name, table.c.epoch)
    rows = connection.execute(extending.returning(*columns, table.c.fingerprint)).all()
    keys = [LeaseKey(row.kind, row.name) for row in rows]
    changed = [key for key, row in zip(keys, rows, strict=True) if request.budgets.get(key) != row.fingerprint]
    refused = claim_budgets(connection, changed, budgets=request.budgets, owner=request.replica, now=now)
    return {Lease(*key, row.epoch) for key, row in zip(keys, rows, strict=True) if key not in refused}


def _show(connection: Connection, request: RenewRequest, *, now: Micros) -> None:
    """Show that this replica is alive, or is gone; clear away those that were killed long ago."""
    gone = select(table.c.name).where(table.c.kind == REPLICA, table.c.until < now - FORGOTTEN_US)
    connection.execute(
        delete(table).where(table.c.kind == REPLICA, table.c.name.in_(gone.with_for_update(skip_locked=True)))
    )
    if request.fingerprint is None:
        _leave(connection, request.replica)
        return
    values = {"until": now + LEASE_US, "fingerprint": request.fingerprint}
    key = {"kind": REPLICA, "name": request.replica}
    inserting = insert(table).values(**key, owner=request.replica, epoch=0, **values)
    connection.execute(inserting.on_conflict_do_update(index_elements=list(key), set_=values))


def _leave(connection: Connection, replica: str) -> None:
    connection.execute(delete(table).where(table.c.kind == REPLICA, table.c.name == replica))


def _configurations(connection: Connection, *, now: Micros) -> list[str | None]:
    """Return the fingerprint of the configuration of each replica that is alive."""
    return list(connection.scalars(select(table.c.fingerprint).where(table.c.kind == REPLICA, table.c.until > now)))


def _insert_missing(connection: Connection, kind: str, names: Sequence[str], *, now: Micros) -> None:
    """Make the rows that are not there yet; they are free. In order, so that two that do so never wait in a circle.

    Only those: to insert one that is there waits for whoever updates it, who may wait for this transaction.
    """
    there = set(connection.scalars(select(table.c.name).where(table.c.kind == kind)))
    rows = [
        {"kind": kind, "name": name, "owner": NOBODY, "epoch": 0, "until": now} for name in names if name not in there
    ]
    if rows:
        connection.execute(insert(table).on_conflict_do_nothing(), rows)


def _free(
    connection: Connection, kind: str, names: Sequence[str], *, since: int, count: int | None = None
) -> list[TakenLease]:
    """Lock what has been free since that moment, at most so many; return what it is to become."""
    given = _rows(name=(names, String))
    free = (
        select(table.c.name, table.c.owner)
        .where(table.c.kind == kind, table.c.name == given.c.name, or_(table.c.until.is_(None), table.c.until <= since))
        .order_by(table.c.name)
        .limit(count)
        .with_for_update(skip_locked=True, of=table)
    )
    return [
        TakenLease(Lease(kind, row.name, secrets.randbits(62)), bool(row.owner)) for row in connection.execute(free)
    ]


def _take(
    connection: Connection, free: Sequence[TakenLease], request: RenewRequest, *, now: Micros
) -> Sequence[TakenLease]:
    """Take what is free and locked, but for what nobody may spend the budget of yet; return what was taken."""
    keys, owner = [LeaseKey(each.lease.kind, each.lease.name) for each in free], request.replica
    refused = claim_budgets(connection, keys, budgets=request.budgets, owner=owner, now=now)
    taken = [each for key, each in zip(keys, free, strict=True) if key not in refused]
    if taken:
        new = _given([each.lease for each in taken])
        taking = update(table).where(table.c.kind == new.c.kind, table.c.name == new.c.name)
        connection.execute(taking.values(owner=owner, epoch=new.c.epoch, until=now + LEASE_US))
    return taken


def _finds_free(connection: Connection, *, wanted: Collection[LeaseKey], budgets: Mapping[LeaseKey, str]) -> bool:
    ordered = sorted(wanted)
    given = _rows(
        kind=([each.kind for each in ordered], String),
        name=([each.name for each in ordered], String),
        budget=([budgets.get(each) for each in ordered], String),
    )
    is_it = or_(table.c.name == given.c.name, table.c.fingerprint == given.c.budget)
    is_held = exists().where(table.c.kind == given.c.kind, is_it, table.c.until > server_time(connection))
    return bool(connection.scalar(select(exists(select(given.c.name).where(~is_held)))))


def _retake(connection: Connection, *, lease: Lease) -> Lease | None:
    is_held = and_(table.c.kind == lease.kind, table.c.name == lease.name, table.c.epoch == lease.epoch)
    found = select(table.c.name).where(is_held)
    if connection.execute(found).first() is None:
        raise lost(lease)
    if connection.execute(found.with_for_update(skip_locked=True)).first() is None:
        return None  # its last owner is writing; renewals wait for this connection, so it does not wait for that
    taken = Lease(lease.kind, lease.name, secrets.randbits(62))
    connection.execute(update(table).where(is_held).values(epoch=taken.epoch))
    return taken


def _release(connection: Connection, *, leases: Collection[Lease], leaving: str | None) -> None:
    if leaving is not None:
        _leave(connection, leaving)
    if leases:
        given = _given(leases)
        connection.execute(update(table).where(*_is_of(given)).values(owner=NOBODY, until=server_time(connection)))
    connection.execute(select(func.pg_notify(CHANNEL, "")))


_CLAIMING = 7_141_983_064_512_391
"""The number of the advisory lock under which budgets are claimed: of two at once, neither would see the other."""


def claim_budgets(
    connection: Connection, keys: Collection[LeaseKey], *, budgets: Mapping[LeaseKey, str], owner: str, now: Micros
) -> set[LeaseKey]:
    """Note what budgets are spent under these leases; return those whose budget somebody else may be spending.

    The leases are that owner's, or locked and about to be. Another lease on the same budget that has run out is ended
    for good: else its owner, should it still be alive, could renew it.
    """
    claimed = {budgets[key]: key for key in keys if key in budgets}
    if not claimed:
        return set()
    connection.execute(select(func.pg_advisory_xact_lock(_CLAIMING)))
    spent = and_(table.c.fingerprint.in_(claimed), table.c.kind.in_({key.kind for key in keys}), table.c.owner != owner)
    columns = (table.c.kind, table.c.name, table.c.fingerprint)
    spending = connection.execute(select(*columns).where(spent)).all()
    # What is being renewed, or written under, is locked, and passed over.
    has_ended = or_(table.c.until.is_(None), table.c.until <= now)
    ended = set(connection.execute(select(*columns).where(spent, has_ended).with_for_update(skip_locked=True)))
    refused = {claimed[row.fingerprint] for row in spending if row not in ended}
    ends = [(row.kind, row.name) for row in ended if claimed[row.fingerprint] not in refused]
    if ends:
        connection.execute(update(table).where(_named(ends)).values(epoch=secrets.randbits(62), fingerprint=None))
    for key in claimed.values():
        if key not in refused:
            connection.execute(update(table).where(_named([key])).values(fingerprint=budgets[key]))
    return refused


def _named(keys: Collection[tuple[str, str]]) -> ColumnElement[bool]:
    return tuple_(table.c.kind, table.c.name).in_(keys)


def share_of(count: int, *, replica_count: int) -> int:
    """Return how many of these a replica may hold: its part, rounded up."""
    return -(-count // replica_count)


_HELD = (
    select(table.c.epoch)
    .where(table.c.kind == bindparam("kind"), table.c.name == bindparam("name"), table.c.epoch == bindparam("epoch"))
    .with_for_update(read=True, key_share=True)
)
"""Nobody takes it meanwhile, but it may be renewed. One lease at a time: a list of any length is expanded anew each
time, at the cost of two of these."""


def claim(connection: Connection, lease: Lease, *, owner: str) -> None:
    """Take ownership, whoever had it."""
    values = {"owner": owner, "epoch": lease.epoch, "until": None}
    of_lease = (table.c.kind == lease.kind, table.c.name == lease.name)
    if not connection.execute(update(table).where(*of_lease).values(**values)).rowcount:
        connection.execute(insert(table).values(kind=lease.kind, name=lease.name, **values))


def check(connection: Connection, leases: Iterable[Lease]) -> None:
    """Raise `OwnershipLostError` unless each lease is the stored one, until the transaction ends."""
    # Sorted, so that two writers never wait for each other.
    for lease in sorted(set(leases), key=attrgetter("kind", "name")):
        if connection.execute(_HELD, {"kind": lease.kind, "name": lease.name, "epoch": lease.epoch}).first() is None:
            raise lost(lease)


def lost(lease: Lease) -> OwnershipLostError:
    """Return what a write under a lease comes to that is the stored one no more."""
    return OwnershipLostError(f"another process owns {lease.kind} {lease.name} by now")
