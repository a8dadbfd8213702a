"""A statement that is asked many times a second: compiled once for each kind of database, its values given by position.

SQLAlchemy looks a statement up at every call and binds each value by its name, at several times the cost.
"""

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from sqlalchemy import CompoundSelect, Connection, CursorResult, Insert, Update

Row = Mapping[str, Any]


class HotStatement:
    """A statement all of whose values are bound by name, and are plain enough for a driver: no list, no JSON."""

    def __init__(self, statement: CompoundSelect[Any] | Insert | Update) -> None:
        """Compile nothing yet."""
        self.statement = statement
        self._compiled: dict[str, tuple[str, Callable[[Row], tuple[Any, ...]]]] = {}

    def run(self, connection: Connection, row: Row) -> CursorResult[Any]:
        """Carry it out with these values."""
        text, values_of = self._of(connection)
        return connection.exec_driver_sql(text, values_of(row))

    def run_many(self, connection: Connection, rows: Iterable[Row]) -> CursorResult[Any]:
        """Carry it out with each of these, of which there is at least one."""
        text, values_of = self._of(connection)
        return connection.exec_driver_sql(text, [values_of(row) for row in rows])

    def _of(self, connection: Connection) -> tuple[str, Callable[[Row], tuple[Any, ...]]]:
        dialect: Any = connection.dialect
        if dialect.name not in self._compiled:
            positional = type(dialect)(paramstyle="qmark" if dialect.name == "sqlite" else "format")
            compiled: Any = self.statement.compile(dialect=positional)
            names = compiled.positiontup
            assert len(names) > 1, "one value alone would come out as no tuple"
            fixed = {name: compiled.binds[name].value for name in names if not compiled.binds[name].required}
            values_of = itemgetter(*names)
            self._compiled[dialect.name] = (
                str(compiled),
                (lambda row: values_of({**fixed, **row})) if fixed else values_of,
            )
        return self._compiled[dialect.name]
