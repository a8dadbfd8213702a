"""The database's file: its lock, which one daemon holds, and whether it is still there.

The operating system lets go of the lock when its holder dies. SQLite goes on writing into a file that was deleted, and
all of it is gone with the program.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from watcher.domain.errors import StoreError, StoreHeldError, StoreUnusableError
from watcher.runtime.clock import Clock

_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE})
"""Why a file cannot be opened now and may be later. Of the rest (no such folder, no permission) a person must correct
something."""


@contextmanager
def file_lock(database: Path, *, now: datetime) -> Iterator[None]:
    """Hold `<database>.lock`. Raises `StoreHeldError`, saying who holds it, if somebody else does.

    The lock file stays: deleting it would let two daemons lock two files of the same name.
    """
    fd = os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 300, 0).decode(errors="replace").partition("\n")[0] or "another process"
            remedy = "one daemon per file: stop that one, or set store.url to another file"
            raise StoreHeldError(f"{database} is in use by {holder}; {remedy}") from None
        holder = f"pid {os.getpid()} on {socket.gethostname()} since {now.isoformat(timespec='seconds')}\n"
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder.encode(), 0)
        yield
    finally:
        os.close(fd)


class DatabaseFile:
    """The path of a database, and which file was opened there."""

    def __init__(self, path: Path, *, opened: os.stat_result) -> None:
        """Remember the file by its device and inode."""
        self._path = path
        self._opened = opened

    def check(self) -> None:
        """Raise `StoreUnusableError` if the file is no longer there, or is another."""
        try:
            found = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise self._error("was deleted or moved") from None
        except OSError:  # a directory that was closed to us, say: the file itself goes on
            return
        if not os.path.samestat(found, self._opened):
            raise self._error("was replaced by another file")

    def _error(self, what: str) -> StoreUnusableError:
        name = self._path.name
        return StoreUnusableError(
            f"{self._path} {what} while it was in use, so nothing can be kept; put the file back, or remove {name}-wal"
            f" and {name}-shm and restore a copy, then start again (else everything is reported again), and change it"
            " only while the daemon is stopped"
        )


@contextmanager
def hold_file(path: Path, *, clock: Clock) -> Iterator[DatabaseFile]:
    """Hold the lock of the file, which is made if it is not there. Raises `StoreError`."""
    with ExitStack() as stack:
        try:
            if path.exists() and not path.is_file() and not path.is_dir():  # a device stays open to everybody
                raise StoreUnusableError(f"{path} is not a file; write sqlite:///watcher.db")
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
        yield DatabaseFile(path, opened=opened)
