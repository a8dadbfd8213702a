"""What the store needs of a database; each kind has a file of its own for all that differs: `sqlite`, `postgresql`."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from watcher.store.db_errors import DatabaseFault
from watcher.store.postgresql_leases import PostgresLeases

T = TypeVar("T")

OnRecorded = Callable[[Collection[str]], None]
"""Hears, in the event loop, the names of the sinks that have something new to send. It must not raise."""


Watched = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Asks a database, notes how it fares, and has its errors come out as `StoreError`."""


class Database(Protocol):
    """A database. Every piece of work is done in a thread, in the order it is asked for, and to its end."""

    where: str
    """Names it in errors. Never a secret."""

    exclusive: bool
    """Whether this process alone uses it, for as long as it runs."""

    ahead_us: int
    """By how much its clock was ahead of this process's steady one when it was prepared; 0 where that is the same."""

    def use_password(self, password: str | None) -> None:
        """Log in with it from the next connection on, where there is a login."""
        ...

    async def prepare(self) -> bool:
        """Bring the schema up to date, and return whether the database was empty. Raises `StoreError`."""
        ...

    def shared(self, on_recorded: OnRecorded) -> OnRecorded:
        """Return what to call after a commit in place of `on_recorded`, so that other processes hear of it as well.

        `on_recorded` is then also called with what they recorded. Neither is called before the schema is prepared.
        """
        ...

    def leases(self, watched: Watched) -> PostgresLeases | None:
        """Return how the processes that use it share what there is to own; `None` where it is but one.

        Whatever is asked of the database for that is passed to `watched`.
        """
        ...

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, whose transaction is committed by then; if it raises, nothing is written."""
        ...

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` returns, which cannot write. Each of its statements may see a later state."""
        ...

    def explain(self, error: Exception) -> DatabaseFault:
        """Say what an error means that came out of a piece of work, or of an attempt to connect."""
        ...

    async def close(self) -> None:
        """Finish what was asked for, then close the connections."""
        ...
