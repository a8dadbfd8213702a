"""Writes log lines to a stream in a thread of its own, in order: whoever logs never waits for a reader or a disk.

It knows nothing of what a line says. What cannot be written is lost, and what comes while too much waits is dropped and
counted: a log is not worth standing still for.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

LINES_COUNT = 10_000
CHARACTERS_COUNT = 8 * 1024 * 1024
FLUSH_S = 0.5


class Scribe:
    """The lines of one stream. `on_dropped` is told how many were dropped, once what had waited is written."""

    def __init__(self, stream: TextIO, *, on_dropped: Callable[[int], None]) -> None:
        """Start no thread before there is a line."""
        self.stream = stream
        self._on_dropped = on_dropped
        self._lines: deque[str] = deque()
        self._length = 0
        self._dropped_count = 0
        self._in_mid_line = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()  # may be entered again by its thread: `on_dropped` writes a line

    def write(self, line: str) -> None:
        """Have a line written soon, or drop it."""
        with self._changed:
            if self._dropped_count or not self._has_room(line):
                self._dropped_count += 1
            else:
                self._lines.append(line)
                self._length += len(line)
            self._changed.notify_all()
            if self._thread is None:
                # A daemon thread: the program may end while it waits for a reader that never reads.
                self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
                self._thread.start()

    def flush(self, *, within_s: float) -> bool:
        """Return whether all that was handed in is written, or given up, by then."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._dropped_count, within_s)

    def close(self) -> None:
        """Let the thread end after what it was given; nobody waits for it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self, line: str) -> bool:
        return len(self._lines) < LINES_COUNT and self._length + len(line) <= CHARACTERS_COUNT

    def _run(self) -> None:
        while (line := self._next()) is not None:
            self._put(line)
            with self._changed:
                self._length -= len(self._lines.popleft())
                self._changed.notify_all()

    def _next(self) -> str | None:
        """Wait for a line and return it; it still counts as waiting."""
        with self._changed:
            while not self._lines:
                if self._dropped_count:
                    count, self._dropped_count = self._dropped_count, 0
                    self._on_dropped(count)
                elif self._closed:
                    return None
                else:
                    self._changed.notify_all()  # `on_dropped` may have had nothing to say, and all is written
                    self._changed.wait()
            return self._lines[0]

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
                _await_room(fd)
            else:
                rest = rest[count:]
                self._in_mid_line = bool(rest)


def _await_room(fd: int) -> None:
    room = select.poll()
    room.register(fd, select.POLLOUT)
    room.poll()


_latest: list[Scribe] = []


def scribe_of(stream: TextIO, *, on_dropped: Callable[[int], None] = lambda _count: None) -> Scribe:
    """Return the scribe of a stream, the same one until another stream is asked for."""
    if not _latest or _latest[0].stream is not stream:
        for scribe in _latest:
            scribe.close()
        _latest[:] = [Scribe(stream, on_dropped=on_dropped)]
    return _latest[0]


def flush_logs(*, within_s: float = FLUSH_S) -> bool:
    """Return whether all that was logged is written, or given up, by then."""
    return all(scribe.flush(within_s=within_s) for scribe in _latest)
