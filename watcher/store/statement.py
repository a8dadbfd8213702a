"""A statement that is asked many times a second: compiled once for each kind of database, its values given by position.

SQLAlchemy looks a statement up at every call and binds each value by its name, at several times the cost.
"""

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from sqlalchemy import CompoundSelect, Connection, CursorResult, Insert, Update

from watcher.domain.errors import SequenceConflictError

_Values = Callable[[Mapping[str, Any]], tuple[Any, ...]]


class HotStatement:
    """A statement all of whose values are bound by name, and are plain enough for a driver: no list, no JSON."""

    def __init__(self, statement: CompoundSelect[Any] | Insert | Update) -> None:
        """Compile nothing yet."""
        self.statement = statement
        self._compiled: dict[str, tuple[str, _Values]] = {}

    def run(self, connection: Connection, row: Mapping[str, Any]) -> CursorResult[Any]:
        """Carry it out with these values."""
        text, values_of = self._compiled.get(connection.dialect.name) or self._compile(connection.dialect)
        return connection.exec_driver_sql(text, values_of(row))

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> CursorResult[Any]:
        """Carry it out with each of these, of which there is at least one."""
        text, values_of = self._compiled.get(connection.dialect.name) or self._compile(connection.dialect)
        return connection.exec_driver_sql(text, list(map(values_of, rows)))

    def _compile(self, dialect: Any) -> tuple[str, _Values]:
        compiled: Any = self.statement.compile(
            dialect=type(dialect)(paramstyle="qmark" if dialect.name == "sqlite" else "format")
        )
        binds, names = compiled.binds, compiled.positiontup
        given = itemgetter(*names)  # several: for one alone it would return no tuple
        fixed = {name: binds[name].value for name in names if not binds[name].required}
        values_of: _Values = (lambda row: given({**fixed, **row})) if fixed else given
        self._compiled[dialect.name] = (str(compiled), values_of)
        return self._compiled[dialect.name]


def expect_written(count: int, *, wanted: int) -> None:
    """Raise `SequenceConflictError` when fewer rows than wanted were as their writer believed them recorded."""
    if count != wanted:
        raise SequenceConflictError("the store holds another sequence than its owner believes, who begins anew")
