"""Reads a list page by page from the store. The cursor of a page names the row after which the next page begins.

The rows of a page are searched in its window: a bounded number of rows, read along an index. Columns outside the index
are read only for the rows of the page.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, func, null, select, true, tuple_

from watcher.domain.timestamps import NEVER

EXAMINED_COUNT = 5_000
"""Most rows in the window of a page. A page that finds too few rows there ends early, with a cursor.

PostgreSQL would compile the plan of a larger window.
"""

FEW_COUNT = 5_000
"""Most rows that a page reads and sorts in memory, if an index holds only such rows: pending, dead or open ones.

If there are more, the page searches its window instead.
"""

TOP = 2**63 - 1
"""A number above all times and numbers of rows."""

WITHOUT_EXECUTION = (
    " FROM (SELECT id, type, problem_id FROM event WHERE execution IS NULL AND recorded_at >= :since"
    f" ORDER BY recorded_at %s LIMIT {EXAMINED_COUNT}) AS looked_at JOIN event ON event.id = looked_at.id"
)
"""The part of a statement that selects events without an execution since a time, in the order `ASC` or `DESC`."""


class Position(NamedTuple):
    """The place where a list continues: after the row with this `key` and this `at` (a time or a number).

    `part` names the part of the list that the row belongs to.
    """

    part: str
    at: int
    key: Any


class ListedRow(NamedTuple):
    """The place of a row in its list, and the number of its account if the list has accounts."""

    at: int
    key: Any
    account_id: int | None = None


ListedRows = tuple[Sequence[ListedRow], Position | None]
"""The rows of a page, and the position at which the next page begins; `None` after the last page."""


class Listing(NamedTuple):
    """A list in descending order of the columns `at` and `key`, perhaps with a column `account_id`.

    A row whose `at` is below `lowest` is on no page.
    """

    at: Any
    key: Any
    part: str = ""
    account_id: Any = null()
    lowest: int = NEVER


def position_of(row: Any, part: str = "") -> Position:
    """Return the position after a row, which has `at` and `key`."""
    return Position(part, row.at, row.key)


def cut_page(rows: Sequence[ListedRow], end: Position | None, limit: int, part: str = "") -> ListedRows:
    """Return the first `limit` rows and the next page's position: after these rows if more are left, else `end`."""
    return rows[:limit], position_of(rows[limit - 1], part) if len(rows) > limit else end


class PageReader(NamedTuple):
    """The reader of one page: at most `limit` rows after a position, or from the beginning of the list."""

    connection: Connection
    after: Position | None
    limit: int

    def search(
        self, list_: Listing, scope: Iterable[Any], wanted: Iterable[Any], count: int = EXAMINED_COUNT
    ) -> ListedRows:
        """Return a page of the wanted rows among the next `count` rows of a list.

        `scope` are conditions that an index covers. Each row of the window is checked for the conditions `wanted`.
        """
        at, key, after = list_.at, list_.key, self.after
        columns = at.label("at"), key.label("key"), list_.account_id.label("account_id")
        rows = select(*columns, and_(true(), *wanted).label("is_wanted"))
        rows = rows.where(*scope, at.between(list_.lowest, TOP if after is None else after.at))
        if after is not None:
            rows = rows.where(tuple_(at, key) < tuple_(bindparam("at", after.at), bindparam("key", after.key)))
        window = rows.order_by(at.desc(), key.desc()).limit(count).subquery("window")
        nth = func.row_number().over(order_by=(window.c.at.desc(), window.c.key.desc())).label("nth")
        looked_at = select(window, nth).subquery("looked_at")
        wanted_or_last = looked_at.c.is_wanted | (looked_at.c.nth == count)  # the database returns no other rows
        found = self.connection.execute(select(looked_at).where(wanted_or_last).limit(self.limit + 2)).all()
        listed = [ListedRow(row.at, row.key, row.account_id) for row in found if row.is_wanted]
        end = position_of(found[-1], list_.part) if found and found[-1].nth == count else None
        return cut_page(listed, end, self.limit, list_.part)

    def read(self, list_: Listing, scopes: Iterable[Iterable[Any]] | None, wanted: Iterable[Any]) -> ListedRows:
        """Return a page of a list.

        `scopes` are conditions that an index covers. If they are given, the page is cut from all rows that meet one of
        them, unless there are more than `FEW_COUNT` such rows. Otherwise the page is searched in the window of the
        list.
        """
        is_wanted = and_(true(), *wanted).label("is_wanted")
        all_ = select(list_.at.label("at"), list_.key.label("key"), is_wanted).limit(FEW_COUNT + 1)
        found = [row for scope in scopes or () for row in self.connection.execute(all_.where(*scope))]
        if scopes is None or len(found) > FEW_COUNT:
            return self.search(list_, (), wanted, EXAMINED_COUNT)
        after, part = self.after, list_.part
        listed = [ListedRow(row.at, row.key) for row in found if row.is_wanted]
        listed = [row for row in listed if after is None or position_of(row, part) < after]
        return cut_page(sorted(listed, key=position_of, reverse=True), None, self.limit, part)

    def read_parts(self, parts: str, read_part: "Callable[[PageReader, str], ListedRows]") -> ListedRows:
        """Return a page of a list with several parts, one after the other. `read_part` reads a page of one part."""
        found: list[ListedRow] = []
        for part in parts if self.after is None else "".join(parts.partition(self.after.part)[1:]):
            after = self.after if self.after and self.after.part == part else None
            rows, position = read_part(self._replace(after=after, limit=self.limit - len(found)), part)
            found += rows
            if position is None and len(found) == self.limit and part != parts[-1]:
                position = position_of(found[-1], part)
            if position is not None:
                return found, position
        return found, None
