"""The store in a SQLite file: one connection that writes, two that read, the settings of each, and the file's lock.

The writer sends BEGIN IMMEDIATE itself. The driver would begin a transaction only before the first row is written. Then
a transaction that reads first could fail at once when it writes, whatever the timeout, and a CREATE TABLE would be
outside of any transaction. Readers begin no transaction: each statement is a short read of its own, so no reader keeps
the write-ahead log from being emptied.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

from watcher.domain.errors import StoreError, StoreHeldError, StoreUnusableError
from watcher.runtime.clock import Clock
from watcher.store.database import Database, Meanings, explain, prepare_schema

_WRITER = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # NORMAL may lose a commit at a power loss, after the webhook was sent
    "PRAGMA wal_autocheckpoint=4000",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA cache_size=-8192",  # as fast as 64 MB for 150,000 executions in random order, within the memory we promise
    "PRAGMA temp_store=MEMORY",
    "PRAGMA foreign_keys=ON",
)
BEGIN = "BEGIN IMMEDIATE"
"""The statement that begins a transaction that writes."""

_READER = ("PRAGMA query_only=ON", "PRAGMA cache_size=-2048", "PRAGMA temp_store=MEMORY")

_MEANINGS: Meanings = {
    "SQLITE_BUSY": (StoreError, "is locked by another program; close the other program"),
    "SQLITE_FULL": (StoreError, "cannot grow, the disk is full; make room"),
    "SQLITE_IOERR": (StoreError, "cannot be read or written, the disk reports an error; check its room and health"),
    "SQLITE_READONLY": (StoreError, "is read-only; allow this user to write it and its directory"),
    "SQLITE_CANTOPEN": (StoreError, "cannot be opened; check that it and its directory exist and may be written"),
    "SQLITE_CORRUPT": (StoreUnusableError, "is damaged; restore a backup, or move the file away to start empty"),
    "SQLITE_NOTADB": (StoreUnusableError, "is not a SQLite database, or is damaged; name another file"),
}

explain_error = partial(
    explain,
    name_of=lambda cause: getattr(cause, "sqlite_errorname", None),
    meanings=_MEANINGS,
    taken=("SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE"),
)
"""Returns the meaning of an error. `where` names the database."""


class SqliteDatabase(Database):
    """A database file, whose lock keeps every other process out."""

    def __init__(self, file: "DatabaseFile", *, busy_timeout_s: float) -> None:
        path = file.path
        self.check_file = file.check
        writer = make_engine(path, busy_timeout_s=busy_timeout_s, pragmas=_WRITER, begin=BEGIN)
        reader = make_engine(path, busy_timeout_s=busy_timeout_s, pragmas=_READER)
        super().__init__(str(path), writer=writer, reader=reader, explain_error=explain_error)

    def _prepare(self) -> Awaitable[bool]:
        return self.write(partial(prepare_schema, where=self.where))


def make_engine(path: Path, *, busy_timeout_s: float, pragmas: tuple[str, ...], begin: str | None = None) -> Engine:
    """Return an engine: `pragmas` set up each of its connections, and `begin`, if given, begins each transaction."""
    engine = create_engine(
        # rw: a later connection must not create a new file in place of a deleted one.
        URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"}),
        poolclass=NullPool,
        hide_parameters=True,
        # isolation_level=None: the driver begins nothing by itself. A thread may close the connection of another.
        connect_args={"isolation_level": None, "timeout": busy_timeout_s, "check_same_thread": False},
    )

    def set_up(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    event.listen(engine, "connect", set_up)
    if begin is not None:
        event.listen(engine, "begin", partial(Connection.exec_driver_sql, statement=begin))
    return engine


_TEMPORARY = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE})
"""Errors of opening a file that may pass. After any other (no such folder, no permission) a person must act."""


class DatabaseFile:
    """The path of a database, and the file that was opened there."""

    def __init__(self, path: Path, *, opened: os.stat_result) -> None:
        self.path = path
        self._opened = opened

    def check(self) -> None:
        """Raise `StoreUnusableError` if the opened file is no longer at its path."""
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise self._error("was deleted or moved") from None
        except OSError:  # for example, this user may no longer read the directory: the open file still works
            return
        if not os.path.samestat(found, self._opened):
            raise self._error("was replaced by another file")

    def _error(self, what: str) -> StoreUnusableError:
        name = self.path.name
        return StoreUnusableError(
            f"{self.path} {what} while it was in use, so nothing can be saved; put the file back, or remove {name}-wal"
            f" and {name}-shm and restore a backup, then start again (else everything is reported again), and change it"
            " only while the daemon is stopped"
        )


@contextmanager
def hold_file(path: Path, *, clock: Clock) -> Iterator[DatabaseFile]:
    """Hold the lock of the file, and create the file if it does not exist.

    Raises `StoreHeldError`, which names the holder, if another process has the lock, and `StoreError` for other
    trouble. The lock file stays: deleting it would let two daemons lock two files of the same name.
    """
    with ExitStack() as stack:
        try:
            if path.exists() and not path.is_file() and not path.is_dir():  # a device, perhaps readable by all
                raise StoreUnusableError(f"{path} is not a file; write sqlite:///watcher.db")
            lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder = f"pid {os.getpid()} on {socket.gethostname()} since {clock.now().isoformat(timespec='seconds')}\n"
            os.ftruncate(lock, 0)
            os.pwrite(lock, holder.encode(), 0)
            # Created here and not by SQLite, so that nobody else may read it. Its -wal and -shm get the same mode.
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            opened = os.fstat(fd)
            if not opened.st_size:  # an empty file, perhaps of another program
                os.fchmod(fd, 0o600)
            os.close(fd)  # before SQLite opens it: closing any descriptor of a file releases all locks on it
        except BlockingIOError:
            holder = os.pread(lock, 300, 0).decode(errors="replace").partition("\n")[0] or "another process"
            remedy = "one daemon per file: stop that one, or set store.url to another file"
            raise StoreHeldError(f"{path} is in use by {holder}; {remedy}") from None
        except OSError as error:
            kind = StoreError if error.errno in _TEMPORARY else StoreUnusableError
            raise kind(
                f"{path} cannot be used: {error.strerror}; this user must be able to write the file and its directory"
            ) from None
        yield DatabaseFile(path, opened=opened)
