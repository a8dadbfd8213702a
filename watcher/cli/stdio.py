"""What commands write: stdout, stderr and new files. A reader may leave early, a disk be full, a stream be closed."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from watcher.domain.errors import Exit, UsageError, WatcherError


class OutputFailedError(WatcherError):
    """Stdout takes nothing more."""


def write_file(path: Path, text: str, *, force: bool = False) -> None:
    """Write a new file, or with `force` any. Raises `UsageError`."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already; name another file, or remove it") from None
    except OSError as error:
        reason = (error.strerror or "I/O error").lower()
        raise UsageError(f"cannot write {path} ({reason}); name a file in a folder of yours") from None


def fill_gaps() -> None:
    """Lead closed standard streams nowhere: what is opened next would get their numbers, and be written into.

    Raises `OutputFailedError` if stdout is one of them.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # it takes the lowest free number
        pass
    os.close(fd)
    if sys.__stderr__ is None:
        sys.stderr = os.fdopen(2, "w")
    if sys.__stdout__ is None:
        sys.stdout = os.fdopen(1, "w")
        raise OutputFailedError("stdout is closed; send it to a file, a pipe or /dev/null")


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


def put_error(message: str) -> None:
    """Print a message on stderr, if that takes anything."""
    try:
        print(message, file=sys.stderr)  # noqa: T201 (this is the command line)
    except OSError:  # what is still held goes nowhere: Python would try again at its very end, and change the exit code
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _give_up(error: OSError) -> NoReturn:
    """End the command: quietly for a reader that left, as `head` does. What is still held goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        sys.exit(Exit.FAILED)
    reason = (error.strerror or "I/O error").lower()
    raise OutputFailedError(f"cannot write to stdout ({reason})") from None
