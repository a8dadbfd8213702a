"""What became of trying keys and sinks, as lines for people or as rows for programs."""

from collections.abc import Iterable

from rich.console import Console

from watcher.output import put
from watcher.terminal.console import say
from watcher.trials import Trial


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
