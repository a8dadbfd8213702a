"""structlog, to stderr: coloured on a terminal, JSON otherwise. Other libraries' loggers stay quiet below warning.

A call hands its line to the writer and returns: nothing waits for whoever reads stderr.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Literal, TextIO

import structlog

from watcher.runtime.log_writer import BackgroundLogWriter, log_writer_of

LogFormat = Literal["auto", "json", "console"]

log = structlog.get_logger()

REPEATED_AFTER_S = 60.0


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
    lines = _Lines(log_writer_of(out, on_dropped=_report_dropped))
    console = format_ == "console" or (format_ == "auto" and out.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward(logging.WARNING, read=monotonic)], force=True)


def _report_dropped(count: int) -> None:
    log.warning("log.dropped", count=count)


class _Lines:
    """What structlog hands a rendered line to, by the name of its level."""

    def __init__(self, writer: BackgroundLogWriter) -> None:
        self._writer = writer

    def msg(self, line: str) -> None:
        self._writer.write(f"{line}\n")

    debug = info = warning = error = critical = msg


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
