"""structlog, to stderr: coloured on a terminal, JSON otherwise. Other libraries' loggers stay quiet below warning.

A call puts its line into a queue and returns; a thread writes it. So nothing waits for whoever reads stderr.
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
"""So many lines may wait; what comes then is dropped and counted: a log is not worth standing still for."""


def configure_logs(
    *,
    level: str,
    format_: LogFormat,
    stream: TextIO | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Send log lines to `stream`, by default stderr. `auto` is console on a terminal, JSON elsewhere.

    What libraries log is dropped below warning at every level: at debug it holds SQL parameters and URLs.
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
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward(logging.WARNING, read=monotonic)], force=True)


def _local_time(_logger: object, _level: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the time as a person at a terminal reads it, and as the lines of events there have it."""
    entry["timestamp"] = datetime.now().astimezone().isoformat(timespec="seconds")
    return entry


class LogLines:
    """The lines of one stream, which a thread writes: structlog hands each rendered line to the name of its level."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._dropped_count = 0
        self._thread = WorkerThreads("log")

    def msg(self, line: str) -> None:
        """Have a line written soon, after one that says how many before it were dropped; or drop it."""
        if self._thread.waiting_count >= LINES_COUNT:
            self._dropped_count += 1
            return
        if self._dropped_count:
            count, self._dropped_count = self._dropped_count, 0
            log.warning("log.dropped", count=count)
        self._thread.put(partial(_write, f"{line}\n", self.stream))

    debug = info = warning = error = critical = msg

    def flush_within(self, limit_s: float) -> bool:
        """Return whether all that was queued is written, or given up, by then."""
        done = Event()
        self._thread.put(done.set)
        return done.wait(limit_s)

    def end(self) -> None:
        """Let the thread end after what is queued; nobody waits for it."""
        self._thread.close()


def _write(line: str, stream: TextIO) -> None:
    # To the file itself: a thread stuck in a stream of Python would keep its lock, which aborts the program at its end.
    with suppress(OSError, ValueError):  # the latter from a stream that was closed
        try:
            fd = stream.fileno()
        except OSError:  # it is in memory
            stream.write(line)
            return
        rest = memoryview(line.encode(stream.encoding, errors="replace"))
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:  # another program that has this terminal or pipe, such as Node, made it so
                select.select([], [fd], [])


_latest: list[LogLines] = []


def log_lines(stream: TextIO) -> LogLines:
    """Return the lines of a stream, the same ones until another stream is asked for."""
    if not _latest or _latest[0].stream is not stream:
        for lines in _latest:
            lines.end()
        _latest[:] = [LogLines(stream)]
    return _latest[0]


def flush_logs(*, within_s: float = 0.5) -> bool:
    """Return whether all that was logged is written, or given up, by then."""
    return all(lines.flush_within(within_s) for lines in _latest)


class _Forward(logging.Handler):
    """Passes on who complained and how loudly, once a minute, not the text: library texts hold addresses and data."""

    def __init__(self, level: int, *, read: Callable[[], float]) -> None:
        super().__init__(level)
        self._read = read
        self._quiet_until: dict[tuple[str, str, str | None], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        if kind == "CancelledError":  # of what still hangs at the end, and is broken off: nothing went wrong
            return
        complaint = (record.name, record.levelname, kind)
        now = self._read()
        if now < self._quiet_until.get(complaint, now):
            return
        self._quiet_until[complaint] = now + 60
        structlog.get_logger().warning("library.warned", library=record.name, level_name=record.levelname, error=kind)
