"""One daemon per database file: a lock beside it, which the operating system lets go of when its holder dies."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from watcher.errors import StoreUnusableError


@contextmanager
def file_lock(database: Path, *, now: datetime) -> Iterator[None]:
    """Hold `<database>.lock`. Raises `StoreUnusableError`, saying who holds it, if somebody else does.

    The lock file stays: deleting it would let two daemons lock two files of the same name.
    """
    fd = os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(fd, database=database)
        holder = f"pid {os.getpid()} on {socket.gethostname()} since {now.isoformat(timespec='seconds')}"
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder.encode(), 0)
        yield
    finally:
        os.close(fd)


def _take(fd: int, *, database: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 300, 0).decode(errors="replace") or "another process"
        raise StoreUnusableError(
            f"{database} is in use by {holder}; one daemon per file: stop that one, or set store.url to another file"
        ) from None
