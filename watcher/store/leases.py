"""Who owns an account or a sink: taking ownership, and the check every write begins with."""

import secrets
from collections.abc import Iterable
from operator import attrgetter

from sqlalchemy import Connection, bindparam, insert, select, update

from watcher.domain.errors import OwnershipLostError, SequenceConflictError
from watcher.store.changes import Lease
from watcher.store.tables import lease as table

_HELD = select(table.c.epoch).where(
    table.c.kind == bindparam("kind"), table.c.name == bindparam("name"), table.c.epoch == bindparam("epoch")
)
"""One lease at a time: a list of any length is expanded anew each time, at the cost of two of these."""

_HELD_TO_THE_END = _HELD.with_for_update(read=True, key_share=True)
"""Nobody takes it meanwhile, but it may be renewed. The same as the other on SQLite, whose writer is alone."""


def claim(connection: Connection, *, kind: str, name: str, owner: str) -> Lease:
    """Take ownership, whoever had it. The epoch is random, not a count: a count repeats after a lost commit."""
    taken = Lease(kind, name, secrets.randbits(62))
    values = {"owner": owner, "epoch": taken.epoch, "until": None}
    replaced = connection.execute(update(table).where(table.c.kind == kind, table.c.name == name).values(**values))
    if not replaced.rowcount:
        connection.execute(insert(table).values(kind=kind, name=name, **values))
    return taken


def check(connection: Connection, leases: Iterable[Lease], *, for_write: bool = True) -> None:
    """Raise `OwnershipLostError` unless each lease is the stored one, `for_write` until the transaction ends."""
    statement = _HELD_TO_THE_END if for_write else _HELD
    # Sorted, so that two writers never wait for each other.
    lost = [
        f"{lease.kind} {lease.name}"
        for lease in sorted(set(leases), key=attrgetter("kind", "name"))
        if connection.execute(statement, {"kind": lease.kind, "name": lease.name, "epoch": lease.epoch}).first() is None
    ]
    if lost:
        raise OwnershipLostError(f"another process owns {', '.join(lost)} by now")


def expect_written(count: int, *, wanted: int) -> None:
    """Raise `SequenceConflictError` when fewer rows than wanted were as their writer believed them recorded."""
    if count != wanted:
        raise SequenceConflictError(
            "the store holds another sequence than its owner believes; this is a bug: start again, and report it"
        )
