"""Copies one store into another, empty one: all of it in one transaction of the target, or nothing.

So a target is never half full: whatever breaks a copy off, it is as empty as before. An older schema is copied as it
is, and brought up to date in the target: the source is only read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from sqlalchemy import Connection, MetaData, Table, func, select

from watcher.domain.errors import StoreError, StoreUnusableError, WatcherError
from watcher.store import schema_version
from watcher.store.copying.store_end import StoreEnd
from watcher.store.tables import SCHEMA_VERSION, lease, meta, metadata

_COPIED = frozenset(metadata.tables.keys() - {lease.name, meta.name})
"""What stays behind is of the database itself: its schema, and the processes that use it or did."""

PAGE_ROWS = 2_000
"""So few that memory stays small whatever the rows hold (an event has at most 16 KiB), and so many that it is fast."""


class CopyProgress(Protocol):
    """Hears how far a copy is, in the copy's own thread."""

    def begin(self, counts: Mapping[str, int]) -> None:
        """Hear how many rows there are to copy, by table and in this order."""
        ...

    def copied(self, table: str, count: int) -> None:
        """Hear that so many more rows of a table are written."""
        ...

    def finish(self) -> None:
        """Hear that all rows are written; to make them last takes another moment."""
        ...


class CopyStoppedError(WatcherError):
    """Somebody asked for an end of the copy before it was done."""


def copy_all(
    source: StoreEnd, target: StoreEnd, *, progress: CopyProgress, stopped: Callable[[], bool]
) -> Mapping[str, int]:
    """Copy everything; return how many rows of which table. The source stays as it is.

    Raises `StoreError`, and `CopyStoppedError` once `stopped` says so: then nothing is written.
    """
    with _asking(source):
        identity = source.identity()
    with _asking(target):
        if target.identity() == identity:
            raise StoreUnusableError(f"{source.where} and {target.where} are the same store; name two")
    with _asking(source), source.reading() as reading, _asking(target), target.writing() as writing:
        with _asking(source):
            version = _version_to_copy(reading, where=source.where)
        _make_ready(writing, version=version, target=target, source=source)
        counts = _Copy(source, target, reading, writing, progress=progress, stopped=stopped).run()
        schema_version.prepare(writing, where=target.where)
    return counts


class _Copy:
    """The two transactions of one copy, both open."""

    def __init__(
        self,
        source: StoreEnd,
        target: StoreEnd,
        reading: Connection,
        writing: Connection,
        *,
        progress: CopyProgress,
        stopped: Callable[[], bool],
    ) -> None:
        self._source, self._target = source, target
        self._reading, self._writing = reading, writing
        self._progress = progress
        self._stopped = stopped
        self._tables = _tables(writing)  # of the target, for they have its types; the source has the same columns

    def run(self) -> Mapping[str, int]:
        with _asking(self._source):
            counts = {table.name: _count(self._reading, table) for table in self._tables}
        self._progress.begin(counts)
        for table in self._tables:
            self._copy_table(table)
            self._number_on(table)
        self._check(counts)
        self._progress.finish()
        return counts

    def _copy_table(self, table: Table) -> None:
        """Copy all rows by key, which is how they lie on disk in SQLite: then each page goes behind the last one."""
        statement = select(table).order_by(*table.primary_key.columns)
        with _asking(self._source):
            result = self._reading.execution_options(yield_per=PAGE_ROWS).execute(statement)
            pages = result.partitions()
        while True:
            if self._stopped():
                raise CopyStoppedError("interrupted")
            with _asking(self._source):
                page = next(pages, None)
            if page is None:
                return
            self._target.write_rows(self._writing, table, page)
            self._progress.copied(table.name, len(page))

    def _number_on(self, table: Table) -> None:
        column = table.autoincrement_column
        if column is not None:
            with _asking(self._source):
                last = self._source.last_number(self._reading, column)
            self._target.go_on_from(self._writing, column, last)

    def _check(self, counts: Mapping[str, int]) -> None:
        for table in self._tables:
            count = _count(self._writing, table)
            if count != counts[table.name]:
                raise StoreError(
                    f"{self._source.where} has {counts[table.name]:,} rows of {table.name}, but {count:,} arrived in"
                    f" {self._target.where}, so nothing is kept there; this is a bug: report it"
                )


@contextmanager
def _asking(end: StoreEnd) -> Iterator[None]:
    """Raise what an error means in the end's own words."""
    try:
        yield
    except end.errors as error:
        meaning = end.explain(error)
    else:
        return
    raise meaning  # outside the clause, so that the text of the database's error does not come along


def _version_to_copy(connection: Connection, *, where: str) -> int:
    version = schema_version.found_version(connection, where=where)
    if not version:
        raise StoreUnusableError(f"{where} is empty, so there is nothing to copy")
    if version > SCHEMA_VERSION:
        raise StoreUnusableError(
            f"{where} was written by a newer version of clerk-watcher (schema {version}; this one knows"
            f" {SCHEMA_VERSION}); copy it with that version"
        )
    return version


def _make_ready(connection: Connection, *, version: int, target: StoreEnd, source: StoreEnd) -> None:
    """Make the target's tables as the source's are. They may be there, but empty."""
    found = schema_version.found_version(connection, where=target.where)
    if found > version:
        raise StoreUnusableError(
            f"{target.where} has tables of schema {found}, and {source.where} of schema {version}; name a target"
            " without tables"
        )
    full: Sequence[str] = [table.name for table in _tables(connection) if _count(connection, table)] if found else ()
    if full:
        raise StoreUnusableError(
            f"{target.where} is not empty, it has rows of {', '.join(full)}; name an empty one (a copy adds to nothing)"
        )
    schema_version.prepare(connection, where=target.where, version=version)


def _tables(connection: Connection) -> list[Table]:
    """Return what there is to copy, in an order in which each row finds what it refers to."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name in _COPIED)
    return found.sorted_tables


def _count(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0
