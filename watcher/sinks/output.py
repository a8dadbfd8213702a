"""The program's stdout, which all sinks that write to it share.

Its one thread writes; a reader that is slow or hangs holds up that thread alone, and never the end of the program. A
line may be left half written by that end. In a file the next start ends it; out of a pipe it cannot be taken back.
"""

import errno
import fcntl
import os
import select
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import structlog

from watcher.domain.errors import OutputClosedError
from watcher.runtime.threads import WorkerThreads

log = structlog.get_logger()

FULL_DISK_WAIT_S = 1.0
FULL_DISK_NOTE = "stdout is on a full disk, so events wait; make room there"

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StdoutOutput:
    """Writes lines to a file descriptor, blocking or not. All sinks share one, or their lines would mix."""

    def __init__(self, fd: int, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Start the thread."""
        self.fd = fd
        self._sleep = sleep
        self._thread = WorkerThreads("stdout")
        self._thread.put(self._end_half_line)

    @property
    def is_terminal(self) -> bool:
        """Whether people read it."""
        return os.isatty(self.fd)

    async def write(self, lines: Iterable[bytes], *, sink: str, retried: Callable[[str], None]) -> None:
        """Return once the lines, which are `sink`'s, are written in full.

        The thread takes the lines from the iterable, and calls `retried` at each further try on a full disk. Raises
        `OutputClosedError`, which says why, if they can never be written.
        """
        if error := await self._thread.run(partial(self._write, lines, sink=sink, retried=retried)):
            is_closed = error.errno == errno.EPIPE
            why = "was closed by its reader" if is_closed else f"cannot be written: {error.strerror}"
            raise OutputClosedError(f"stdout {why}")

    def close(self) -> None:
        """Let the thread end after what it was given; nobody waits for it."""
        self._thread.close()

    def _end_half_line(self) -> None:
        if _stands_in_mid_line(self.fd):
            self._write([b""], sink="", retried=lambda _why: None)  # it is no delivery that is written

    def _write(self, lines: Iterable[bytes], *, sink: str, retried: Callable[[str], None]) -> OSError | None:
        """Write all of them, however long that takes. Return why that is impossible, if it is."""
        rest, full = memoryview(b"\n".join([*lines, b""])), False
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                space = select.poll()
                space.register(self.fd, select.POLLOUT)
                space.poll()
            except OSError as error:
                if error.errno not in _DISK_FULL:
                    return error
                if not full:
                    log.warning("stdout.full", sink=sink, note=FULL_DISK_NOTE)
                full = True
                self._sleep(FULL_DISK_WAIT_S)
                retried("disk_full")
        if full:
            log.info("stdout.recovered", sink=sink)
        return None


def _stands_in_mid_line(fd: int) -> bool:
    """Return whether fd is a file that goes on right after half a line. One that cannot be read counts as whole."""
    with suppress(OSError):
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode):
            appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
            position = found.st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
            return position > 0 and _byte_at(position - 1, fd=fd) != b"\n"
    return False


def _byte_at(position: int, *, fd: int) -> bytes:
    """Read from an open file, which may be open for writing alone."""
    reading = os.open(f"/dev/fd/{fd}", os.O_RDONLY)
    try:
        return os.pread(reading, 1, position)
    finally:
        os.close(reading)
