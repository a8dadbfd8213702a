"""Stores of both kinds, full ones and empty ones, and what is in them."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from time import time_ns
from typing import Any

import psycopg
from postgres import EMPTY, PostgresServer
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    String,
    create_engine,
    insert,
    select,
    text,
)
from stores import SetClock, open_soon

from watcher.store.copying import StoreEnd, copy_all
from watcher.store.sql_store import SqlStore
from watcher.store.tables import metadata

COPIED = [table for table in metadata.sorted_tables if table.name not in {"meta", "lease"}]

KINDS = ("sqlite", "postgresql")

ODD = "\t\n\\N \\. ü \N{SNOWMAN}\r"
"""What stands for something else in many a format."""


def engine_of(url: str) -> Engine:
    if url.startswith("sqlite"):
        return create_engine(url)
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))


def rows_of(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables but those that stay behind, by table."""
    engine = engine_of(url)
    with engine.connect() as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
            for table in COPIED
        }
    engine.dispose()
    return found


def fill(url: str, *, count: int) -> None:
    """Put so many rows with odd values into each table that is copied."""
    engine = engine_of(url)
    with engine.begin() as connection:
        for table in COPIED:
            rows = [{column.key: value_of(column, number) for column in table.columns} for number in range(count)]
            connection.execute(insert(table), rows)
        if not url.startswith("sqlite"):  # the server counts only what it numbers itself
            connection.exec_driver_sql(f"SELECT setval('source_id_seq', {count}), setval('event_id_seq', {count})")
    engine.dispose()


def value_of(column: Column[Any], number: int) -> Any:
    """Return the value of a column in the row of that number: what refers to another row has the value of that."""
    if column.foreign_keys:
        return value_of(next(iter(column.foreign_keys)).column, number)
    if column.nullable and number % 3 == 0:
        return None
    if column is column.table.autoincrement_column:
        return number + 1
    return next(make(number) for kind, make in _VALUES.items() if isinstance(column.type, kind))


_VALUES: dict[type, Callable[[int], Any]] = {
    Boolean: lambda number: number % 2 == 0,
    BigInteger: lambda number: (1 << 62) + number,
    Integer: lambda number: (1 << 30) + number,
    Float: lambda number: number + 0.1,
    LargeBinary: lambda number: number.to_bytes(8) + b"\0\n\\\t'\xff",
    String: lambda number: f"{number} {ODD}",
}
"""Of a column's type the first of these."""


@dataclass
class Heard:
    """Remembers how a copy went on."""

    tables: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0
    meanwhile: Callable[[], object] = lambda: None
    """Done once rows are under way."""

    def __call__(self, table: str, done: int, total: int) -> None:
        if not self.tables:
            self.meanwhile()
        self.tables.append(table)
        self.done, self.total = done, total


def copy(source: str, target: str, *, heard: Heard | None = None, stopped: Callable[[], bool] = bool) -> Any:
    ends = [StoreEnd(url, None, SetClock()) for url in (source, target)]
    return copy_all(*ends, copied=heard or Heard(), stopped=stopped)


async def opened(url: str, clock: SetClock | None = None) -> SqlStore:
    return await open_soon(url, clock=clock or SetClock())


class Databases:
    """Makes as many as a test asks for."""

    def __init__(self, folder: Path, stack: ExitStack, postgres: PostgresServer) -> None:
        self._folder = folder
        self._stack = stack
        self._postgres = postgres
        self._made: list[str] = []

    def nothing(self, kind: str) -> str:
        """Return the URL of a file that is not there, or of a database without tables."""
        if kind == "sqlite":
            url = f"sqlite:///{self._folder}/{len(self._made)}.db"
        else:
            url = self._stack.enter_context(self._postgres.database(EMPTY))
        self._made.append(url)
        return url

    async def without_rows(self, kind: str) -> str:
        """Return the URL of a store that was opened once."""
        if kind == "postgresql":  # each database has the tables, unless it is to be an empty one
            return self._stack.enter_context(self._postgres.database())
        url = self.nothing(kind)
        await (await opened(url)).close()
        return url

    async def full(self, kind: str, *, count: int = 7) -> str:
        """Return the URL of a store with rows in every table."""
        url = await self.without_rows(kind)
        fill(url, count=count)
        return url


FIRST_STORE = Path(__file__).parent / "fixtures" / "store-1.0.0"
_TIME = re.compile(r"\b17\d{14}\b")


def first_store(url: str, *, stopped_s_ago: float = 60.0) -> str:
    """Put the store that version 1.0.0 left into an empty database, as if it had been left so long ago; return its URL.

    All times in its rows are moved. The events keep theirs.
    """
    is_sqlite = url.startswith("sqlite")
    script = (FIRST_STORE / f"{'sqlite' if is_sqlite else 'postgresql'}.sql").read_text()
    left = _TIME.search(script)  # its first line says when
    assert left is not None
    by_us = time_ns() // 1000 - round(stopped_s_ago * 1e6) - int(left[0])
    script = _TIME.sub(lambda found: str(int(found[0]) + by_us), script)
    if is_sqlite:
        with closing(sqlite3.connect(path_of(url))) as database:
            database.executescript(script)
    else:
        with psycopg.connect(url) as connection:
            connection.execute(script.encode())
    return url


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def run(url: str, statement: str, **values: Any) -> list[Any]:
    """Run a statement in a database of either kind, with values for its names, if it has any."""
    engine = engine_of(url)
    with engine.begin() as connection:
        result = connection.execute(text(statement), values) if values else connection.exec_driver_sql(statement)
        rows = list(result) if result.returns_rows else []
    engine.dispose()
    return rows


def nothing_is_left(url: str) -> bool:
    if url.startswith("sqlite"):
        return run(url, "SELECT 1 FROM sqlite_master") == []
    return run(url, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []
