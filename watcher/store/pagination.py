"""Pages of a list in the store. The cursor of a page names the row after which the next page begins.

A page reads a bounded number of rows along an index, its window. The other columns are read only for the rows of the
page.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select, true, tuple_

from watcher.domain.timestamps import NEVER
from watcher.store.tables import AnyRow

LOOKED_AT_COUNT = 5_000
"""Most rows in the window of a page. A longer search ends early, with a cursor."""

FEW_COUNT = 5_000
"""Most rows that a page sorts itself: rows that are pending, dead or open, found by an index of their own.

If there are more, the page reads its window instead.
"""

TOP = 2**63 - 1
"""A number above all times and numbers of rows."""


class Position(NamedTuple):
    """The place where a list continues: after the row with this key and this time, or number, in `at`.

    `part` names the part of the list.
    """

    part: str
    at: int
    key: Any


Rows = tuple[Sequence[AnyRow], Position | None]
"""A page of a list, and the position of the next page, if there is one."""


class Listing(NamedTuple):
    """A list in descending order of the columns `at` and `key`. Its rows have `columns`, too."""

    at: Any
    key: Any
    part: str = ""
    columns: tuple[Any, ...] = ()


def position_of(row: AnyRow, part: str = "") -> Position:
    """Return the position after a row."""
    return Position(part, row.at, row.key)


def cut_page(rows: Sequence[AnyRow], end: Position | None, limit: int, part: str = "") -> Rows:
    """Return the first `limit` rows and the position of the next page: after the last of them, otherwise `end`."""
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
    """Return the wanted rows among the next `count` rows of a list, down to `lowest`.

    `scope` are conditions that an index covers; `wanted` are conditions that each row of the window is checked for.
    """
    at, key = list_.at, list_.key
    rows = select(at.label("at"), key.label("key"), *list_.columns, and_(true(), *wanted).label("is_wanted"))
    rows = rows.where(*scope, at.between(lowest, TOP if after is None else after.at))
    if after is not None:
        rows = rows.where(tuple_(at, key) < tuple_(bindparam("at", after.at), bindparam("key", after.key)))
    window = rows.order_by(at.desc(), key.desc()).limit(count).subquery("window")
    nth = func.row_number().over(order_by=(window.c.at.desc(), window.c.key.desc())).label("nth")
    looked_at = select(window, nth).subquery("looked_at")
    wanted_or_last = looked_at.c.is_wanted | (looked_at.c.nth == count)  # the database keeps all other rows
    found = connection.execute(select(looked_at).where(wanted_or_last).limit(limit + 2)).all()
    end = position_of(found[-1], list_.part) if found and found[-1].nth == count else None
    return cut_page([row for row in found if row.is_wanted], end, limit, list_.part)


def read_page(
    connection: Connection,
    list_: Listing,
    scopes: Iterable[Iterable[ColumnElement[bool]]] | None,
    wanted: Iterable[Any],
    after: Position | None,
    limit: int,
    lowest: int = NEVER,
) -> Rows:
    """Return a page of a list.

    If `scopes` are given, conditions that an index covers, the page is cut from all rows that meet any of them, unless
    these are more than `FEW_COUNT`. Otherwise it is found in the window of the list, down to `lowest`.
    """
    is_wanted = and_(true(), *wanted).label("is_wanted")
    all_ = select(list_.at.label("at"), list_.key.label("key"), is_wanted).limit(FEW_COUNT + 1)
    found = [row for scope in scopes or () for row in connection.execute(all_.where(*scope))]
    if scopes is None or len(found) > FEW_COUNT:
        return search(connection, list_, (), wanted, after, limit, LOOKED_AT_COUNT, lowest)
    found = [row for row in found if row.is_wanted and (after is None or position_of(row) < after)]
    return cut_page(sorted(found, key=position_of, reverse=True), None, limit)
