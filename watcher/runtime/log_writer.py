"""Writes log lines to a stream in a thread of its own, in order: whoever logs never waits for a reader or a disk.

It knows nothing of what a line says. What cannot be written is lost, and what comes while too much waits is dropped and
counted: a log is not worth standing still for.
"""

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TextIO

from watcher.runtime.threads import WorkerThreads

LINES_COUNT = 10_000
CHARACTERS_COUNT = 8 * 1024 * 1024
FLUSH_S = 0.5


class BackgroundLogWriter:
    """The lines of one stream. `on_dropped` is given how many were dropped, once what had waited is written."""

    def __init__(self, stream: TextIO, *, on_dropped: Callable[[int], None]) -> None:
        """Start no thread before there is a line."""
        self.stream = stream
        self._on_dropped = on_dropped
        self._count = 0  # of the lines that wait, with what is being written
        self._length = 0
        self._dropped_count = 0
        self._in_mid_line = False
        self._thread: WorkerThreads | None = None
        self._changed = threading.Condition()  # may be entered again by the thread: `on_dropped` writes a line

    def write(self, line: str) -> None:
        """Have a line written soon, or drop it."""
        with self._changed:
            self._thread = self._thread or WorkerThreads("logs")
            has_capacity = self._count < LINES_COUNT and self._length + len(line) <= CHARACTERS_COUNT
            if not self._dropped_count and has_capacity:
                self._count += 1
                self._length += len(line)
                self._thread.put(partial(self._write, line))
                return
            if not self._dropped_count:
                self._thread.put(self._report_dropped)  # behind all that waits
            self._dropped_count += 1

    def flush(self, *, within_s: float) -> bool:
        """Return whether all that was handed in is written, or given up, by then."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count and not self._dropped_count, within_s)

    def close(self) -> None:
        """Let the thread end after what it was given; nobody waits for it."""
        with self._changed:
            if self._thread is not None:
                self._thread.close()

    def _write(self, line: str) -> None:
        self._put(line)
        with self._changed:
            self._count -= 1
            self._length -= len(line)
            self._changed.notify_all()

    def _report_dropped(self) -> None:
        with self._changed:
            count, self._dropped_count = self._dropped_count, 0
            self._on_dropped(count)
            self._changed.notify_all()  # `on_dropped` may have had nothing to say

    def _put(self, line: str) -> None:
        """Write a line. Whether the disk is full or the reader gone, the next one is tried again."""
        with suppress(OSError, ValueError):  # the latter from a stream that was closed
            try:
                fd = self.stream.fileno()
            except OSError:  # it is in memory
                self.stream.write(line)
            else:
                self._put_out(line.encode(self.stream.encoding, errors="replace"), fd=fd)

    def _put_out(self, data: bytes, *, fd: int) -> None:
        """Write to the file itself: a thread stuck in a stream of Python would keep its lock past the program's end."""
        rest = memoryview(b"\n" + data if self._in_mid_line else data)
        while rest:
            try:
                count = os.write(fd, rest)
            except BlockingIOError:
                room = select.poll()
                room.register(fd, select.POLLOUT)
                room.poll()
            else:
                rest = rest[count:]
                self._in_mid_line = bool(rest)


_latest: list[BackgroundLogWriter] = []


def log_writer_of(stream: TextIO, *, on_dropped: Callable[[int], None] = lambda _count: None) -> BackgroundLogWriter:
    """Return the writer of a stream, the same one until another stream is asked for."""
    if not _latest or _latest[0].stream is not stream:
        for writer in _latest:
            writer.close()
        _latest[:] = [BackgroundLogWriter(stream, on_dropped=on_dropped)]
    return _latest[0]


def flush_logs(*, within_s: float = FLUSH_S) -> bool:
    """Return whether all that was logged is written, or given up, by then."""
    return all(writer.flush(within_s=within_s) for writer in _latest)
