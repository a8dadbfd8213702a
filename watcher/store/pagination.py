"""Pages of a list in the store: a cursor says behind which row the next page begins.

A page looks at a window of a list along its index: a bounded number of rows. All else that is shown of a row is read
for the rows of the page alone.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select, true, tuple_

from watcher.domain.timestamps import NEVER
from watcher.store.tables import AnyRow

LOOKED_AT_COUNT = 5_000
"""Rows that a page looks at, at most: then it ends early, with a cursor."""

FEW_COUNT = 5_000
"""What waits, is dead or is open is found by an index of that alone, and sorted here, unless it is more than that."""

TOP = 2**63 - 1
"""Later, and higher, than all."""


class Position(NamedTuple):
    """Where a list goes on: behind the row of this time, or number, and key. `part` is which part of the list."""

    part: str
    at: int
    key: Any


Rows = tuple[Sequence[AnyRow], Position | None]
"""A page of a list, and where the list goes on, if there is more."""


class Listing(NamedTuple):
    """A list that goes down by the columns `at` and `key`; its rows have `columns`, too."""

    at: Any
    key: Any
    part: str = ""
    columns: tuple[Any, ...] = ()


def position_of(row: AnyRow, part: str = "") -> Position:
    """Return the position behind a row."""
    return Position(part, row.at, row.key)


def cut_page(rows: Sequence[AnyRow], end: Position | None, limit: int, part: str = "") -> Rows:
    """Return the first `limit` rows, and where the list goes on: behind the last of these, or else at `end`."""
    return rows[:limit], position_of(rows[limit - 1], part) if len(rows) > limit else end


def search(
    connection: Connection,
    list_: Listing,
    scope: Iterable[Any],
    wanted: Iterable[Any],
    after: Position | None,
    limit: int,
    count: int = LOOKED_AT_COUNT,
    lowest: int = NEVER,
) -> Rows:
    """Return what is wanted among the next `count` rows of a list, down to `lowest`; `scope` is a part of its index."""
    at, key = list_.at, list_.key
    rows = select(at.label("at"), key.label("key"), *list_.columns, and_(true(), *wanted).label("is_wanted"))
    rows = rows.where(*scope, at.between(lowest, TOP if after is None else after.at))
    if after is not None:
        rows = rows.where(tuple_(at, key) < tuple_(bindparam("at", after.at), bindparam("key", after.key)))
    window = rows.order_by(at.desc(), key.desc()).limit(count).subquery("window")
    nth = func.row_number().over(order_by=(window.c.at.desc(), window.c.key.desc())).label("nth")
    looked_at = select(window, nth).subquery("looked_at")
    wanted_or_last = looked_at.c.is_wanted | (looked_at.c.nth == count)  # all other rows stay in the database
    found = connection.execute(select(looked_at).where(wanted_or_last).limit(limit + 2)).all()
    end = position_of(found[-1], list_.part) if found and found[-1].nth == count else None
    return cut_page([row for row in found if row.is_wanted], end, limit, list_.part)


def read_page(
    connection: Connection,
    list_: Listing,
    few: Iterable[Iterable[ColumnElement[bool]]] | None,
    wanted: Iterable[Any],
    after: Position | None,
    limit: int,
    lowest: int = NEVER,
) -> Rows:
    """Return a page of a list: of the rows that the scopes `few` have, unless these are many, else of its window.

    The window ends at `lowest`.
    """
    is_wanted = and_(true(), *wanted).label("is_wanted")
    all_ = select(list_.at.label("at"), list_.key.label("key"), is_wanted).limit(FEW_COUNT + 1)
    found = [row for scope in few or () for row in connection.execute(all_.where(*scope))]
    if few is None or len(found) > FEW_COUNT:
        return search(connection, list_, (), wanted, after, limit, LOOKED_AT_COUNT, lowest)
    found = [row for row in found if row.is_wanted and (after is None or position_of(row) < after)]
    return cut_page(sorted(found, key=position_of, reverse=True), None, limit)
