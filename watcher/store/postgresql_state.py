"""Looks at a PostgreSQL store from outside, for `check --online`: whether it can be opened, and what it records.

Writes nothing, and brings nothing up to date. Needs psycopg, as `watcher.store.postgresql` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from watcher.domain.errors import StoreError, StoreUnusableError
from watcher.runtime.clock import Clock
from watcher.store import schema
from watcher.store.database_file import DISABLED
from watcher.store.postgresql import LACKS_SCHEMA, READ, REFUSES_USER, make_engine, opening_error, require_utf8
from watcher.store.postgresql_connector import Connector

_SCHEMA = "SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE')"


@dataclass(frozen=True, slots=True)
class StoreState:
    """What was found. `disabled` has the sinks recorded as disabled, as `disabled_sinks` of a file."""

    is_empty: bool
    disabled: Mapping[str, str]


def state_of(url: str, *, password: str | None, clock: Clock) -> StoreState:
    """Return the state of the store at a valid URL. Raises `StoreError` if it cannot be had."""
    where = url.partition("?")[0]
    connector = Connector(url, password=password, clock=clock)
    engine = make_engine(connector, begin=lambda: READ, connections=1, is_limited=True)
    try:
        with engine.begin() as connection:
            require_utf8(connection, where=where)
            is_empty = not schema.found_version(connection, where=where)
            if is_empty:
                _require_room(connection, where=where)
            disabled = {} if is_empty else {row.name: row.fingerprint for row in connection.execute(text(DISABLED))}
            return StoreState(is_empty, disabled)
    except SQLAlchemyError as error:
        meaning: StoreError = opening_error(error, where=where)
    finally:
        engine.dispose()
    raise meaning


def _require_room(connection: Connection, *, where: str) -> None:
    """Raise `StoreUnusableError` where no table could be made."""
    schema, may_create = connection.exec_driver_sql(_SCHEMA).one()
    if schema is None:
        raise StoreUnusableError(f"{where} {LACKS_SCHEMA}")
    if not may_create:
        raise StoreUnusableError(f"{where} {REFUSES_USER}")
