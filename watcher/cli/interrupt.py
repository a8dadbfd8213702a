"""How something that runs on an event loop is interrupted: asked first, ended at once the second time."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from watcher.runtime.signals import ENDING, end_at_signals

Result = TypeVar("Result")

ONE_SIGNAL_S = 0.05
"""The same signal twice within so long is one: `timeout` of the coreutils signals a program and then its group."""


class Interruption:
    """The first SIGINT or SIGTERM asks the program to stop; a second one ends it at once."""

    def __init__(self) -> None:
        """Listen on the running event loop."""
        self.stop = asyncio.Event()
        self.signal: signal.Signals | None = None
        self._signalled_at = 0.0
        for signum in ENDING:
            asyncio.get_running_loop().add_signal_handler(signum, self._receive, signum)

    def _receive(self, signum: signal.Signals) -> None:
        now = asyncio.get_running_loop().time()
        if self.signal is None:
            self.signal, self._signalled_at = signum, now
            self.stop.set()
        elif signum is not self.signal or now - self._signalled_at > ONE_SIGNAL_S:
            os._exit(128 + signum)


def run_until_stopped(work: Callable[[asyncio.Event], Awaitable[object]]) -> None:
    """Run something whose end a signal may ask for: to be stopped is no failure (`run`, `demo`)."""
    _run(work)


def run_interruptible(work: Callable[[asyncio.Event], Awaitable[Result]]) -> Result:
    """Run something that a signal breaks off, and return its result. Interrupted it exits with 128 + signal."""
    result, interruption = _run(work)
    if interruption.signal is not None:
        raise typer.Exit(128 + interruption.signal)
    return result


def _run(work: Callable[[asyncio.Event], Awaitable[Result]]) -> tuple[Result, Interruption]:
    async def interruptible() -> tuple[Result, Interruption]:
        interruption = Interruption()
        return await work(interruption.stop), interruption

    try:
        return asyncio.run(interruptible())
    finally:
        end_at_signals()  # the loop gave the signals back to Python, which would end with a traceback
