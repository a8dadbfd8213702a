"""Leases in the database: taking one, and the check every write begins with. On SQLite a lock takes their place."""

from collections.abc import Iterable
from operator import attrgetter

from sqlalchemy import Connection, bindparam, insert, select, update

from watcher.domain.errors import OwnershipLostError, SequenceConflictError
from watcher.store.changes import Lease
from watcher.store.tables import lease as table

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


def expect_written(count: int, *, wanted: int) -> None:
    """Raise `SequenceConflictError` when fewer rows than wanted were as their writer believed them recorded."""
    if count != wanted:
        raise SequenceConflictError(
            "the store holds another sequence than its owner believes; this is a bug: start again, and report it"
        )
