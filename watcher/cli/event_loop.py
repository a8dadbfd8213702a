"""The event loop of a command, and the signals that end it.

The first signal asks the command to stop, and the second signal ends the program at once.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from watcher.runtime.signals import ENDING, end_at_signals

Result = TypeVar("Result")

ONE_SIGNAL_S = 0.05
"""Two equal signals within this time count as one: coreutils' `timeout` signals a program, then its process group."""


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
