"""What becomes of trying keys and sinks: a sign of progress meanwhile, then lines for people or rows for programs."""

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

from rich.console import Console

from watcher.cli.check.connectivity import Trial
from watcher.cli.console import say
from watcher.cli.stdio import put

PATIENCE_S = 0.4
"""What takes no longer needs no sign of progress."""


class TryingLine:
    """A line on a terminal that says how many of so many watches are tried; elsewhere, and before `show`, nothing."""

    def __init__(self, total: int, *, stream: TextIO) -> None:
        self._done, self._total = 0, total
        self._stream = stream
        self._terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = False

    def show(self) -> None:
        """Begin to show it."""
        self._shown = self._terminal
        self._draw(f"tried {self._done} of {self._total} watches")

    def tried(self) -> None:
        """Count one more."""
        self._done += 1
        self._draw(f"tried {self._done} of {self._total} watches")

    def clear(self) -> None:
        """Leave the line empty."""
        self._draw("")

    def _draw(self, text: str) -> None:
        if self._shown:
            with suppress(OSError):  # a sign of progress is not worth an error
                self._stream.write(f"\r\x1b[K{text}")
                self._stream.flush()


def print_trial(trial: Trial, *, console: Console) -> None:
    """Print one trial for people."""
    sign, style = ("✓ ", "green") if trial.works else ("✕ ", "red")
    say(console, (sign, style), (trial.target, "bold"), f"  {trial.place}  {trial.words} ({trial.took_ms:.0f} ms)")
    if trial.hint:
        say(console, "  ", ("hint: ", "bold"), trial.hint)


def print_trial_rows(trials: Iterable[Trial]) -> None:
    """Print trials for programs: a second table below that of the plan."""
    put()
    put("target", "works", "ms", "answer")
    for trial in trials:
        put(trial.target, "yes" if trial.works else "no", f"{trial.took_ms:.0f}", trial.words)
