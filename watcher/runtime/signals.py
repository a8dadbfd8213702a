"""What signals do while no event loop listens: SIGINT and SIGTERM end the program, at once and without a word."""

import os
import signal
import sys
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)
DRAINING = frozenset({"run", "demo"})
"""Commands that a signal asks to come to an end: they exit 0. Any other was interrupted: 128 + signal."""


def command_named(words: list[str]) -> str:
    """Return the command among the words of a command line, or nothing."""
    return next((word for word in words if not word.startswith("-")), "")


def end_at_signals() -> None:
    """Let a signal end the program from now on. Nothing is begun before there is an event loop, so nothing is lost.

    SIGHUP asks `run` for nothing yet: whatever became of its file since it was read is seen once it runs.
    """
    for signum in ENDING:
        signal.signal(signum, _end)
    if command_named(sys.argv[1:]) == "run":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end(signum: int, _frame: FrameType | None) -> None:
    os._exit(0 if command_named(sys.argv[1:]) in DRAINING else 128 + signum)
