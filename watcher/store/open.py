"""Opens a store: the lock, the file, the schema. What is wrong with any of them is said here, before anything runs.

What PostgreSQL needs is loaded only for a store that is there.
"""

import errno
import os
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from watcher.domain.errors import StoreError, StoreUnusableError
from watcher.runtime.clock import Clock
from watcher.store.database import Database
from watcher.store.database_file import DatabaseFile, file_lock
from watcher.store.sql_store import SqlStore
from watcher.store.sqlite import SqliteDatabase

_RIGHT = "write sqlite:///watcher.db (beside the working directory) or sqlite:////var/lib/watcher/watcher.db"

_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE})
"""Why a file cannot be opened now and may be later. Of the rest (no such folder, no permission) a person must correct
something."""

BUSY_TIMEOUT_S = 2.0
"""Short, for nothing interrupts it: a few of these in a row must fit into the 8 s an ending may take."""


async def open_store(
    url: str,
    *,
    clock: Clock,
    on_recorded: Callable[[Collection[str]], None],
    password: str | None = None,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
) -> SqlStore:
    """Open the store at `url`, a valid `store.url`, making or migrating it as needed, and hold it until it is closed.

    `on_recorded` is called after a commit, of this process or another, with the names of the sinks that have something
    new to send; it must not raise. `password` is PostgreSQL's, `busy_timeout_s` how long a write waits for another
    program's lock on a file. Raises `StoreHeldError` when the file is in use, `StoreUnusableError` when a person must
    correct something (it is unwritable, damaged, somebody else's, newer, or refuses the login), `StoreNotReadyError`
    for a server that is not ready yet, and `StoreError` for what else may pass (locked, full).
    """
    async with AsyncExitStack() as stack:
        database_file: DatabaseFile | None = None
        database: Database
        if is_postgresql(url):
            from watcher.store.postgresql import PostgresDatabase  # noqa: PLC0415 (of an extra)

            database = PostgresDatabase(url, password=password, clock=clock)
        else:
            path = path_of(url)
            database_file = take_file(path, clock=clock, stack=stack)
            database = SqliteDatabase(path, busy_timeout_s=busy_timeout_s)
        stack.push_async_callback(database.close)
        created = await database.prepare()
        return SqlStore(
            database=database,
            database_file=database_file,
            created=created,
            clock=clock,
            on_recorded=database.shared(on_recorded),
            resources=stack.pop_all(),
        )


def is_postgresql(url: str) -> bool:
    """Return whether a store's URL names a PostgreSQL database."""
    return url.startswith(("postgresql:", "postgres:"))


def path_of(url: str) -> Path:
    """Return the file, links resolved, so that one file has one lock whatever it is called."""
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreUnusableError(f"store.url is not a URL; {_RIGHT}") from None
    if parts.drivername != "sqlite":
        raise StoreUnusableError(f"store.url names {parts.drivername}, not SQLite or PostgreSQL; {_RIGHT}")
    if parts.database in {None, "", ":memory:"} or parts.query:
        raise StoreUnusableError(f"store.url names no file to keep; {_RIGHT}")
    return Path(str(parts.database)).resolve()


def take_file(path: Path, *, clock: Clock, stack: AsyncExitStack | ExitStack) -> DatabaseFile:
    """Hold the file, made if it is not there, until the stack is closed. Raises `StoreError`."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a device stays open to everybody
            raise StoreUnusableError(f"{path} is not a file; {_RIGHT}")
        stack.enter_context(file_lock(path, now=clock.now()))
        # Made here rather than by SQLite, so that nobody else may read it; its companions get the same mode.
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        opened = os.fstat(fd)
        if not opened.st_size:  # as good as new, whoever made it
            os.fchmod(fd, 0o600)
        os.close(fd)  # before SQLite opens it: to close any descriptor of a file lets go of all locks on it
    except OSError as error:
        kind = StoreError if error.errno in _PASSING else StoreUnusableError
        raise kind(
            f"{path} cannot be used: {error.strerror}; this user must be able to write the file and its directory"
        ) from None
    return DatabaseFile(path, opened=opened)
