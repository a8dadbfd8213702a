"""structlog, to stderr: coloured on a terminal, JSON otherwise. Other libraries' loggers stay quiet below warning."""

import logging
import sys
from typing import Literal, TextIO

import structlog

LogFormat = Literal["auto", "json", "console"]


def configure_logs(*, level: str, format_: LogFormat, stream: TextIO | None = None) -> None:
    """Send log lines to `stream`, by default stderr. `auto` is console on a terminal, JSON elsewhere.

    What libraries log is dropped below warning at every level: at debug it holds SQL parameters and URLs.
    """
    out = stream or sys.stderr
    console = format_ == "console" or (format_ == "auto" and out.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(console=console, colors=out.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward(logging.WARNING)], force=True)


def _renderers(*, console: bool, colors: bool) -> list[structlog.typing.Processor]:
    if console:
        return [structlog.dev.ConsoleRenderer(colors=colors)]
    return [structlog.processors.JSONRenderer()]


class _Forward(logging.Handler):
    """Passes on who complained and how loudly, not the text: library texts hold addresses and data."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        structlog.get_logger().warning("library.warned", library=record.name, level_name=record.levelname, error=kind)
