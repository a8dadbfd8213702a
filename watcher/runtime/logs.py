"""Logs to stderr by structlog: coloured on a terminal, JSON otherwise.

A call puts its line into a queue and returns; a thread writes the line. The event loop therefore never waits for the
reader of stderr.
"""

import logging
import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from threading import Event
from typing import Literal, TextIO

import structlog

from watcher.runtime.threads import WorkerThreads

LogFormat = Literal["auto", "json", "console"]

log = structlog.get_logger()

LINES_COUNT = 2_000
"""The most lines in the queue. Further lines are dropped and counted, because the program must not wait for its log."""


def configure_logs(
    *,
    level: str,
    format_: LogFormat,
    stream: TextIO | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Send log lines to `stream`, by default stderr. `auto` is console on a terminal, JSON elsewhere.

    Lines of libraries below warning are always dropped, because at debug they hold SQL parameters and URLs.
    """
    out = stream or sys.stderr
    lines = log_lines(out)
    console = format_ == "console" or (format_ == "auto" and out.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _local_time if console else structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler(logging.WARNING, read=monotonic)], force=True)


def _local_time(_logger: object, _level: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the local time, in the same format as in the lines of events on a terminal."""
    entry["timestamp"] = datetime.now().astimezone().isoformat(timespec="seconds")
    return entry


class LogLines:
    """The log lines of one stream, written by a thread. structlog calls the method named like a line's level."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._dropped_count = 0
        self._thread = WorkerThreads("log")

    def msg(self, line: str) -> None:
        """Queue a line, or drop it if the queue is full. After drops, log the number of dropped lines first."""
        if self._thread.waiting_count >= LINES_COUNT:
            self._dropped_count += 1
            return
        if self._dropped_count:
            count, self._dropped_count = self._dropped_count, 0
            log.warning("log.dropped", count=count)
        self._thread.put(partial(_write, f"{line}\n", self.stream))

    debug = info = warning = error = critical = msg

    def flush_within(self, limit_s: float) -> bool:
        """Wait until the lines that are queued now are written, at most `limit_s`. Return whether they are written."""
        done = Event()
        self._thread.put(done.set)
        return done.wait(limit_s)

    def end(self) -> None:
        """Let the thread end after the queued lines. Do not wait for it."""
        self._thread.close()


def _write(line: str, stream: TextIO) -> None:
    # To the file descriptor, because a thread that hangs in a Python stream keeps its lock. Python aborts at the end of
    # the program if it cannot get this lock.
    with suppress(OSError, ValueError):  # ValueError: the stream is closed
        try:
            fd = stream.fileno()
        except OSError:  # a stream in memory
            stream.write(line)
            return
        rest = memoryview(line.encode(stream.encoding, errors="replace"))
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:  # another program with this terminal or pipe made it non-blocking, as Node does
                select.select([], [fd], [])


_latest: list[LogLines] = []


def log_lines(stream: TextIO) -> LogLines:
    """Return the `LogLines` of a stream, and end the one of the previous stream."""
    if not _latest or _latest[0].stream is not stream:
        for lines in _latest:
            lines.end()
        _latest[:] = [LogLines(stream)]
    return _latest[0]


def flush_logs(*, within_s: float = 0.5) -> bool:
    """Wait until all log lines are written, at most `within_s`. Return whether they are written."""
    return all(lines.flush_within(within_s) for lines in _latest)


class _LibraryHandler(logging.Handler):
    """Logs the library, level and error class of a library's line, each combination once a minute.

    The text of the line is left out, because it may hold addresses and data.
    """

    def __init__(self, level: int, *, read: Callable[[], float]) -> None:
        super().__init__(level)
        self._read = read
        self._quiet_until: dict[tuple[str, str, str | None], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        if kind == "CancelledError":  # a task that was cancelled at the end of the program: no error
            return
        complaint = (record.name, record.levelname, kind)
        now = self._read()
        if now < self._quiet_until.get(complaint, now):
            return
        self._quiet_until[complaint] = now + 60
        structlog.get_logger().warning("library.warned", library=record.name, level_name=record.levelname, error=kind)
