"""Stdout of the commands that print data for programs: a reader may leave early, a disk may be full."""

import os
import sys
from typing import NoReturn

from watcher.errors import Exit, WatcherError


class OutputFailedError(WatcherError):
    """Stdout takes nothing more."""


def put(*fields: str) -> None:
    """Print one line, its fields separated by tabs."""
    try:
        print(*fields, sep="\t")  # noqa: T201 (the data of a command)
    except OSError as error:
        _give_up(error)


def put_all_out() -> None:
    """Write what stdout still holds; Python would do so at its very end, and complain."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _give_up(error)


def _give_up(error: OSError) -> NoReturn:
    """End the command: quietly for a reader that left, as `head` does. What is still held goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        sys.exit(Exit.FAILED)
    reason = (error.strerror or "I/O error").lower()
    raise OutputFailedError(f"cannot write to stdout ({reason})") from None
