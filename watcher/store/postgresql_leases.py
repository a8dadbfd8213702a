"""Leases in PostgreSQL: each replica renews, gives up and takes in one transaction, by the server's clock.

Renewals take turns. They lock no key, and writers lock nothing else (FOR KEY SHARE), so neither waits for the other.
Who takes a lease locks all of its rows and passes over what is locked: nothing is taken while its owner is writing.
"""

import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, cast, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease
from watcher.store.leases import (
    LEASE_US,
    NOBODY,
    REPLICA,
    LeaseKey,
    LeaseRow,
    RenewRequest,
    Sharing,
    TakenLease,
    lost,
    rows_of,
    share,
)
from watcher.store.tables import lease as table

CHANNEL = "clerk_watcher_leases"

FORGOTTEN_US = 3_600_000_000
"""The rows of replicas that ended so long ago go, and those of what nobody has owned since."""

_RENEWING = 7_141_983_064_512_391
"""The number of the advisory lock under which a replica renews, so that no two go by the same state."""

_NOW = select(cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger))


class PostgresLeases:
    """The leases of a database that several replicas share."""

    def __init__(
        self,
        write: Callable[[Callable[[Connection], Any]], Awaitable[Any]],
        *,
        went_back: Callable[[Connection, Micros], bool],
    ) -> None:
        """Do each transaction by `write`.

        Whether the database went back `went_back` says, and puts right what it says it by. `renew_now` is called, in
        the event loop, when another replica has released something, or the database went back.
        """
        self.renew_now: Callable[[], None] = lambda: None
        self._write = write
        self._went_back = went_back

    async def renew(self, request: RenewRequest) -> Sharing:
        """Renew what is held, let go of what is released, and take what is free of what is wanted, up to the share.

        Raises `StoreError`: then nothing can be believed renewed, taken or released. It waits for no other write, nor
        they for it. After the database went back everything is lost, and taken under another epoch.
        """
        sharing: Sharing = await self._write(partial(_renew, request=request, went_back=self._went_back))
        return sharing

    def check(self, connection: Connection, held: Iterable[Lease]) -> None:
        """Raise `OwnershipLostError` unless each lease is the stored one, until the transaction ends."""
        # Sorted, so that two writers never wait for each other.
        for lease in sorted(set(held), key=attrgetter("kind", "name")):
            key = {"kind": lease.kind, "name": lease.name, "epoch": lease.epoch}
            if connection.execute(_HELD, key).first() is None:
                raise lost(lease)


def _renew(
    connection: Connection, *, request: RenewRequest, went_back: Callable[[Connection, Micros], bool]
) -> Sharing:
    connection.execute(select(func.pg_advisory_xact_lock(_RENEWING)))
    now = server_time(connection)
    _let_go(connection, request, now=now, of_all=went_back(connection, now))
    _show(connection, request, now=now)
    rows = _read(connection, request.wanted, now=now)
    sharing = share(rows, request, now=now)
    if sharing.kept:
        mine = table.c.epoch.in_([lease.epoch for lease in sharing.kept])
        connection.execute(update(table).where(mine).values(until=now + LEASE_US))
    epochs = _take(connection, sharing.may_take, owner=request.replica, now=now)
    former = {NOBODY, request.replica}
    taken = [TakenLease(Lease(*key, epoch), rows[key].owner not in former) for key, epoch in epochs.items()]
    return replace(sharing, taken=taken)


def server_time(connection: Connection) -> Micros:
    """Return the server's time of this moment: not that of the transaction, which may have waited since."""
    return Micros(connection.scalars(_NOW).one())


def _let_go(connection: Connection, request: RenewRequest, *, now: Micros, of_all: bool) -> None:
    """Let others have what is released, or all that this replica had, and tell them. Nothing is written under it."""
    if not of_all and not request.released:
        return
    of_it = (table.c.kind != REPLICA) if of_all else table.c.epoch.in_([lease.epoch for lease in request.released])
    letting_go = update(table).where(table.c.owner == request.replica, of_it)
    connection.execute(letting_go.values(owner=NOBODY, epoch=0, until=now))
    connection.execute(select(func.pg_notify(CHANNEL, "")))


def _show(connection: Connection, request: RenewRequest, *, now: Micros) -> None:
    """Show that this replica is alive, or is gone; clear away what nobody has had for long."""
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
    """Return all rows, and make those that are not there yet of what is wanted; they are free."""
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


_HELD = (
    select(table.c.epoch)
    .where(table.c.kind == bindparam("kind"), table.c.name == bindparam("name"), table.c.epoch == bindparam("epoch"))
    .with_for_update(read=True, key_share=True)
)
"""Nobody takes it meanwhile, but it may be renewed. One lease at a time: a list of any length is expanded anew each
time, at the cost of two of these."""
