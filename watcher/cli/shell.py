"""What commands share: the option that names the file, the standard streams, and signals.

A reader of stdout may leave early, a disk be full, a stream be closed. A first signal asks what runs on an event loop
to stop, a second one ends it at once.
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
    """Stdout takes nothing more."""


def write_file(path: Path, text: str) -> None:
    """Write a new file. Raises `UsageError`."""
    try:
        with path.open("x", encoding="utf-8") as file:
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


Result = TypeVar("Result")

ONE_SIGNAL_S = 0.05
"""The same signal twice within so long is one: `timeout` of the coreutils signals a program and then its group."""


def exit_at_signals() -> None:
    """Let a signal end the command as an exit: what it shows is put in order, and what it printed is written."""
    for signum in ENDING:
        signal.signal(signum, lambda number, _frame: sys.exit(128 + number))


def run_until_stopped(work: Callable[[asyncio.Event], Awaitable[Result]]) -> tuple[Result, signal.Signals | None]:
    """Run something whose end a first signal asks for, and a second one forces; return its result, and which did."""

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
        end_at_signals()  # the loop gave the signals back to Python, which would end with a traceback


def run_interruptible(work: Callable[[asyncio.Event], Awaitable[Result]]) -> Result:
    """Run something that a signal breaks off, and return its result. Interrupted it exits with 128 + signal."""
    result, signum = run_until_stopped(work)
    if signum is not None:
        raise typer.Exit(128 + signum)
    return result
