"""That no two accounts spend the budget of one API key, whatever each is called where it is owned.

A lease says whose budget its owner spends. While replicas have different configurations, one may call an account by
another name: that one is free once nobody spends its budget any more.
"""

import secrets
from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, tuple_, update

from watcher.domain.timestamps import Micros
from watcher.store.lease_protocol import LeaseKey
from watcher.store.tables import lease as table

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
        connection.execute(update(table).where(_is_of(ends)).values(epoch=secrets.randbits(62), fingerprint=None))
    for key in claimed.values():
        if key not in refused:
            connection.execute(update(table).where(_is_of([key])).values(fingerprint=budgets[key]))
    return refused


def _is_of(keys: Collection[tuple[str, str]]) -> ColumnElement[bool]:
    return tuple_(table.c.kind, table.c.name).in_(keys)
