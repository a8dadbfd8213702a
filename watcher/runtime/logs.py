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
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from typing import Literal, TextIO

import structlog

LogFormat = Literal["auto", "json", "console"]

log = structlog.get_logger()

REPEATED_AFTER_S = 60.0

LINES_COUNT = 2_000
"""So many lines may wait; what comes then is dropped and counted: a log is not worth standing still for."""

FLUSH_S = 0.5


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


class LogLines(QueueHandler):
    """The lines of one stream: where structlog hands a rendered line, by the name of its level."""

    queue: Queue[logging.LogRecord]

    def __init__(self, stream: TextIO) -> None:
        """Start the thread that writes them."""
        super().__init__(Queue(LINES_COUNT))
        self.stream = stream
        self._dropped_count = 0
        self._listener = _Writer(self.queue, stream)
        self._listener.start()

    def msg(self, line: str) -> None:
        """Have a line written soon, or drop it."""
        self.handle(logging.makeLogRecord({"msg": line}))

    debug = info = warning = error = critical = msg

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a line, after one that says how many before it were dropped."""
        if self._dropped_count and not self.queue.full():
            count, self._dropped_count = self._dropped_count, 0
            log.warning("log.dropped", count=count)
        try:
            self.queue.put_nowait(record)
        except Full:
            self._dropped_count += 1

    def flush_within(self, limit_s: float) -> bool:
        """Return whether all that was queued is written, or given up, by then."""
        with self.queue.all_tasks_done:
            return self.queue.all_tasks_done.wait_for(lambda: not self.queue.unfinished_tasks, limit_s)

    def end(self) -> None:
        """Let the thread end after what is queued; nobody waits for it."""
        with suppress(Full):
            self._listener.enqueue_sentinel()


class _Writer(QueueListener):
    """The thread that writes lines. Whether the disk is full or the reader is gone, the next line is tried again.

    It writes to the file itself: a thread stuck in a stream of Python would keep its lock, which aborts the program at
    its end.
    """

    def __init__(self, queue: Queue[logging.LogRecord], stream: TextIO) -> None:
        super().__init__(queue)
        self._stream = stream

    def handle(self, record: logging.LogRecord) -> None:
        line = f"{record.msg}\n"
        with suppress(OSError, ValueError):  # the latter from a stream that was closed
            try:
                fd = self._stream.fileno()
            except OSError:  # it is in memory
                self._stream.write(line)
                return
            rest = memoryview(line.encode(self._stream.encoding, errors="replace"))
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


def flush_logs(*, within_s: float = FLUSH_S) -> bool:
    """Return whether all that was logged is written, or given up, by then."""
    return all(lines.flush_within(within_s) for lines in _latest)


class _Forward(logging.Handler):
    """Passes on who complained and how loudly, not the text: library texts hold addresses and data.

    The same complaint is passed on once a minute: asyncio makes thousands of them when there are no files left.
    """

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
        self._quiet_until[complaint] = now + REPEATED_AFTER_S
        structlog.get_logger().warning("library.warned", library=record.name, level_name=record.levelname, error=kind)
