"""Helpers of all commands: the option `--config`, the standard streams, and signals.

A write to stdout may fail: its reader may leave early, the disk may be full, and stdout may be closed. While an event
loop runs, the first signal asks the command to stop, and the second signal ends the program at once.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from watcher.domain.errors import Exit, UsageError, WatcherError
from watcher.runtime.signals import ENDING, end_at_signals

CONFIG_HELP = "The YAML file; default: $WATCHER_CONFIG, else ./watcher.yaml, else /etc/watcher/watcher.yaml."

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


Result = TypeVar("Result")

ONE_SIGNAL_S = 0.05
"""Two equal signals within this time count as one: coreutils' `timeout` signals a program, then its process group."""


def exit_at_signals() -> None:
    """Let a signal raise `SystemExit`, so that the terminal is restored and the output is flushed."""
    for signum in ENDING:
        signal.signal(signum, lambda number, _frame: sys.exit(128 + number))


def run_until_stopped(work: Callable[[asyncio.Event], Awaitable[Result]]) -> tuple[Result, signal.Signals | None]:
    """Run `work`; return its result, and the signal that asked `work` to stop, `None` without a signal.

    The first signal sets the event that `work` gets, the second signal ends the program at once.
    """

    async def interruptible() -> tuple[Result, signal.Signals | None]:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        first: tuple[signal.Signals, float] | None = None

        def receive(signum: signal.Signals) -> None:
            nonlocal first
            if first is None:
                first = signum, loop.time()
                stop.set()
            elif signum is not first[0] or loop.time() - first[1] > ONE_SIGNAL_S:
                os._exit(128 + signum)

        for signum in ENDING:
            loop.add_signal_handler(signum, receive, signum)
        return await work(stop), first and first[0]

    try:
        return asyncio.run(interruptible())
    finally:
        end_at_signals()  # without the loop Python would answer a signal with a traceback


def run_interruptible(work: Callable[[asyncio.Event], Awaitable[Result]]) -> Result:
    """Run `work` and return its result. If a signal asked `work` to stop, exit with 128 + the signal's number."""
    result, signum = run_until_stopped(work)
    if signum is not None:
        raise typer.Exit(128 + signum)
    return result
