"""What becomes of trying keys and sinks: a sign of progress meanwhile, then lines for people or rows for programs."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console

from watcher.clock import Clock
from watcher.output import put
from watcher.terminal.console import say
from watcher.trials import Trial

PATIENCE_S = 0.4
"""What takes no longer needs no sign of progress."""


@contextmanager
def progress_of(total: int, *, stream: TextIO, clock: Clock) -> Iterator[Callable[[], None]]:
    """Give what is to be called after each of so many watches; on a terminal a line says how many are done."""
    began_at, done = clock.monotonic(), 0
    shown = False

    def show(text: str) -> None:
        with suppress(OSError):  # a sign of progress is not worth an error
            stream.write(f"\r\x1b[K{text}")
            stream.flush()

    def tried() -> None:
        nonlocal done, shown
        done += 1
        if terminal and clock.monotonic() - began_at >= PATIENCE_S:
            shown = True
            show(f"tried {done} of {total} watches")

    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    try:
        yield tried
    finally:
        if shown:
            show("")


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
