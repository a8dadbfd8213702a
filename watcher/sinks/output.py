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
from pathlib import Path

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
        self.thread = WorkerThreads("stdout")
        self.thread.put(self._end_half_line)

    @property
    def is_terminal(self) -> bool:
        """Whether people read it."""
        return os.isatty(self.fd)

    def close(self) -> None:
        """Let the thread end after what it was given; nobody waits for it."""
        self.thread.close()

    def write(self, lines: Iterable[bytes], *, sink: str, retried: Callable[[str], None]) -> None:
        """Write the lines, which are `sink`'s, in full, however long that takes. For `thread` alone.

        Calls `retried` at each further try on a full disk. Raises `OutputClosedError`, which says why, if they can
        never be written.
        """
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
                    is_closed = error.errno == errno.EPIPE
                    why = "was closed by its reader" if is_closed else f"cannot be written: {error.strerror}"
                    raise OutputClosedError(f"stdout {why}") from None
                if not full:
                    log.warning("stdout.full", sink=sink, note=FULL_DISK_NOTE)
                full = True
                self._sleep(FULL_DISK_WAIT_S)
                retried("disk_full")
        if full:
            log.info("stdout.recovered", sink=sink)

    def _end_half_line(self) -> None:
        """End what an earlier process left half written; what is wrong with stdout shows with the first event."""
        with suppress(OSError, OutputClosedError):
            if _stands_in_mid_line(self.fd):
                self.write([b""], sink="", retried=lambda _why: None)  # it is no delivery that is written


def _stands_in_mid_line(fd: int) -> bool:
    """Return whether fd is a file that goes on right after half a line."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        return False
    appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    position = found.st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
    with Path(f"/dev/fd/{fd}").open("rb", buffering=0) as reading:  # it may be open for writing alone
        reading.seek(max(0, position - 1))
        return position > 0 and reading.read(1) != b"\n"
