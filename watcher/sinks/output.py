"""The program's stdout, shared by all sinks that write to it.

One thread writes: a slow or hanging reader of stdout holds up only this thread. The program can end at any time, also
with a line half written. If stdout is a file, the next start ends that line.
"""

import errno
import fcntl
import os
import select
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from watcher.domain.errors import OutputClosedError
from watcher.runtime.threads import WorkerThreads

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StdoutOutput:
    """The writer of lines to a file descriptor, blocking or not. All sinks share one: else their lines would mix."""

    def __init__(self, fd: int) -> None:
        """Start the thread that writes to the file descriptor."""
        self.fd = fd
        self._rest = b""  # the rest of a line that is partly written
        self.thread = WorkerThreads("stdout")
        self.thread.put(self._end_half_line)

    @property
    def is_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return os.isatty(self.fd)

    def close(self) -> None:
        """Let the thread finish the work that it already has, and then end. Do not wait for its end."""
        self.thread.close()

    def write(self, lines: Iterable[bytes]) -> bool:
        """Write the lines, however long that takes. Return `False` if the disk is full. Call this in `thread` only.

        If a line is partly written when the disk is full, the next call completes it first. Raises `OutputClosedError`
        with the reason if the lines can never be written.
        """
        text, done = self._rest + b"\n".join([*lines, b""]), 0
        while done < len(text):
            try:
                done += os.write(self.fd, memoryview(text)[done:])
            except BlockingIOError:
                space = select.poll()
                space.register(self.fd, select.POLLOUT)
                space.poll()
            except OSError as error:
                if error.errno in _DISK_FULL:
                    is_begun = text[done - 1 : done] != b"\n" if done else bool(self._rest)
                    self._rest = text[done : text.index(b"\n", done) + 1] if is_begun else b""
                    return False
                is_closed = error.errno == errno.EPIPE
                why = "was closed by its reader" if is_closed else f"cannot be written: {error.strerror}"
                raise OutputClosedError(f"stdout {why}") from None
        self._rest = b""
        return True

    def _end_half_line(self) -> None:
        """Write a line end before the first event if an earlier process left a line half written in the file."""
        with suppress(OSError):
            found = os.fstat(self.fd)
            if not stat.S_ISREG(found.st_mode):
                return
            appends = fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_APPEND
            position = found.st_size if appends else os.lseek(self.fd, 0, os.SEEK_CUR)
            with Path(f"/dev/fd/{self.fd}").open("rb", buffering=0) as reading:  # `fd` may be open for writing only
                reading.seek(max(0, position - 1))
                if position and reading.read(1) != b"\n":
                    self._rest = b"\n"
