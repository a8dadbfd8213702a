"""Helpers of all commands: the option `--config`, new files, and the standard streams.

A write to stdout may fail: its reader may leave early, the disk may be full, and stdout may be closed.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from watcher.domain.errors import Exit, UsageError, WatcherError
from watcher.runtime.signals import ENDING

CONFIG_HELP = (
    "The YAML file, or a folder of *.yaml; default: $WATCHER_CONFIG, else ./watcher.yaml, else "
    "/etc/watcher/watcher.yaml."
)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help=CONFIG_HELP)]


class OutputFailedError(WatcherError):
    """The error of a command whose stdout cannot be written to."""


def write_file(path: Path, text: str) -> None:
    """Write a new file. Raises `UsageError` if it exists or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already; name another file, or remove it") from None
    except OSError as error:
        reason = (error.strerror or "I/O error").lower()
        raise UsageError(f"cannot write {path} ({reason}); name a file in a folder of yours") from None


def fill_gaps() -> None:
    """Open /dev/null for each standard stream that is closed.

    Otherwise the next file that is opened would get the stream's number, and receive its output. Raises
    `OutputFailedError` if stdout is closed.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # `os.open` takes the lowest free number
        pass
    os.close(fd)
    if sys.__stderr__ is None:
        sys.stderr = os.fdopen(2, "w")
    if sys.__stdout__ is None:
        sys.stdout = os.fdopen(1, "w")
        raise OutputFailedError("stdout is closed; send it to a file, a pipe or /dev/null")


def put(*fields: str) -> None:
    """Print one line of fields, separated by tabs, to stdout."""
    try:
        print(*fields, sep="\t")  # noqa: T201 (the data of a command)
    except OSError as error:
        _give_up(error)


def put_all_out() -> None:
    """Flush stdout; end the command if that fails. A later flush, by Python at its exit, would print another error."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _give_up(error)


def put_error(message: str) -> None:
    """Print a message to stderr; ignore it if stderr cannot be written."""
    try:
        print(message, file=sys.stderr)  # noqa: T201 (this is the command line)
    except OSError:  # at its exit Python flushes the buffer again: a second error would change the exit code
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _give_up(error: OSError) -> NoReturn:
    """End the command after an error of stdout. If the reader has left, as `head` does, print no message."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        sys.exit(Exit.FAILED)
    reason = (error.strerror or "I/O error").lower()
    raise OutputFailedError(f"cannot write to stdout ({reason})") from None


def exit_at_signals() -> None:
    """Let a signal raise `SystemExit`, so that the terminal is restored and the output is flushed."""
    for signum in ENDING:
        signal.signal(signum, lambda number, _frame: sys.exit(128 + number))
