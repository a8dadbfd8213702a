"""Handles signals while no event loop runs: SIGINT and SIGTERM end the program at once, without any output."""

import os
import signal
import sys
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)
DRAINING = frozenset({"run", "demo"})
"""The commands that exit with 0 at a signal. All others exit with 128 + the signal's number."""


def find_command(words: list[str]) -> str:
    """Return the command in the words of a command line: the first word that is no option, or an empty text."""
    return next((word for word in words if not word.startswith("-")), "")


def end_at_signals() -> None:
    """Let SIGINT and SIGTERM end the program from now on. It loses no work, because no event loop has begun any.

    `run` ignores SIGHUP until its event loop runs. Then it notices every change since the file was first read.
    """
    for signum in ENDING:
        signal.signal(signum, _end)
    if find_command(sys.argv[1:]) == "run":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _end(signum: int, _frame: FrameType | None) -> None:
    os._exit(0 if find_command(sys.argv[1:]) in DRAINING else 128 + signum)
