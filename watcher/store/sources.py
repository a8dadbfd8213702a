"""The keys of the store: 16 bytes for an execution, and a number for an account, a pipeline, a sink or a report."""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection, select, text

from watcher.store.tables import source


class Source(NamedTuple):
    """An account, a pipeline (named `account/pipeline`), a sink or a report. Each has events or deliveries."""

    kind: str
    name: str


@lru_cache(maxsize=1024)  # called for each event
def sink(name: str) -> Source:
    """Return the source for the sink of this name."""
    return Source("sink", name)


@lru_cache(maxsize=1024)
def pipeline(account: str, pipeline_id: str) -> Source:
    """Return the source for a pipeline. In the name, the text after the last slash is the id of the pipeline."""
    return Source("pipeline", f"{account}/{pipeline_id}")


def pipeline_id(name: str) -> str:
    """Return the id of a pipeline from the name of its source."""
    return name.rpartition("/")[2]


def execution_key(execution: str) -> bytes:
    """Return the 16 bytes of an execution's id. Raises `ValueError` if the id is malformed.

    The function is twice as fast as `UUID`.
    """
    key = bytes.fromhex(execution.replace("-", ""))
    if len(key) != 16:
        raise ValueError("an id has 32 hexadecimal digits")
    return key


def execution_id(key: bytes) -> str:
    """Return the id of an execution from its 16 bytes. The function is several times faster than `UUID`."""
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def names_of(connection: Connection, kind: str) -> dict[int, str]:
    """Return the names of all sources of a kind, by their numbers."""
    return dict(connection.execute(select(source.c.id, source.c.name).where(source.c.kind == kind)).all())


_Numbers = dict[Source, int]

_NUMBER = text("INSERT INTO source (kind, name) VALUES (:kind, :name) ON CONFLICT DO NOTHING")
"""Assigns a number to a new source. Does nothing for a source that another process has numbered meanwhile."""


class SourceNumbers(dict[Source, int]):
    """The numbers of sources that this process has assigned or read so far."""

    def __init__(self, write: Callable[[Callable[[Connection], _Numbers]], Awaitable[_Numbers]]) -> None:
        """Start without any number. `write` runs a piece of work in a transaction of its own."""
        super().__init__()
        self._write = write

    async def provide(self, wanted: set[Source]) -> None:
        """Assign a number to each source that has none.

        This takes a transaction of its own, so that no remembered number is ever rolled back.
        """

        def number(connection: Connection) -> _Numbers:
            connection.execute(_NUMBER, [each._asdict() for each in sorted(wanted)])
            rows = connection.execute(select(source.c.kind, source.c.name, source.c.id).order_by(source.c.id))
            return {Source(row.kind, row.name): row.id for row in rows}

        self.update(await self._write(number))
