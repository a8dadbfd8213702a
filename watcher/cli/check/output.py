"""The output of `watcher check`: the plan, its notes and the results of the trials, for people and for programs."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import chain

from rich.console import Console
from rich.table import Table

from watcher.cli.check.plan import EXPLAINED, AccountPlan
from watcher.cli.check.trials import CheckResult
from watcher.cli.console import say
from watcher.cli.shell import put, put_error
from watcher.config.models import Settings
from watcher.domain.errors import Exit
from watcher.runtime.units import counted


def print_plan(plans: Sequence[AccountPlan], settings: Settings, *, file: str, console: Console) -> None:
    """Print the plan for people."""
    counts = (("account", settings.accounts), ("watch", settings.watch), ("sink", settings.sinks))
    say(console, ("✓ ", "green"), (file, "bold"), "  ", ", ".join(counted(len(items), word) for word, items in counts))
    headings = ("account", "needed", "budget", "expected delay", "longest interval")
    table = Table(*headings, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for each in plans:
        seconds = ("-" if figure is None else f"{roughly(figure)} s" for figure in (each.delay_s, each.longest_s))
        table.add_row(each.account, f"{roughly(each.needed_per_s)}/s", f"{roughly(each.budget_per_s)}/s", *seconds)
    console.print(table)
    for each in plans:
        if each.advice:
            say(console, ("! ", "yellow"), f"{each.account}: {each.advice}")
    say(console, (EXPLAINED, "dim"))


def silence_lines(settings: Settings, *, at: datetime) -> list[str]:
    """Return a line for each silence of the configuration file that ends after `at`."""
    lines = []
    for silence in settings.silences:
        begin, end = silence.window(at)
        if end > at:
            match = silence.match
            labels = (f"{key}={value}" for key, value in match.labels.items())
            what = ", ".join((*labels, *match.events, *map(str, match.pipelines), *match.accounts, *match.sinks))
            first = "silent now" if begin <= at else f"silent from {begin:%Y-%m-%d %H:%M}"
            why = f" ({silence.comment})" if silence.comment else ""
            lines.append(f"{first} until {end:%Y-%m-%d %H:%M} UTC: {what}{why}")
    return lines


def report_lines(settings: Settings, *, at: datetime) -> list[str]:
    """Return a line for each report: when it is due next after `at`, in its own time zone, and its sinks."""
    lines = []
    for name, report in settings.reports.items():
        near = chain.from_iterable(report.schedule.last_two(at + timedelta(days=count)) for count in range(1, 9))
        due = next(moment for moment in near if moment > at).astimezone(report.schedule.zone)
        lines.append(f"report {name}: next {due:%a %Y-%m-%d %H:%M} {report.timezone}, to {', '.join(report.sinks)}")
    return lines


def print_plan_rows(plans: Sequence[AccountPlan]) -> None:
    """Print the plan for programs: seconds and rates, separated by tabs. If nothing is watched, fields are empty."""
    put("account", "needed", "budget", "delay", "interval")
    for each in plans:
        figures = (each.needed_per_s, each.budget_per_s, each.delay_s, each.longest_s)
        put(each.account, *("" if figure is None else exactly(figure) for figure in figures))


def roughly(figure: float) -> str:
    """Return a figure with as many digits as people read: 0.017, 3.6, 84."""
    digits = next((digits for digits, below in ((3, 0.1), (2, 1.0), (1, 20.0)) if figure < below), 0)
    return exactly(round(figure, digits))


def exactly(figure: float) -> str:
    """Return a figure with at most three decimals."""
    return f"{figure:.3f}".rstrip("0").rstrip(".")


def print_trial(trial: CheckResult, *, console: Console) -> None:
    """Print the result of a trial for people."""
    sign, style = ("✓ ", "green") if trial.code is Exit.DONE else ("✕ ", "red")
    say(console, (sign, style), (trial.target, "bold"), f"  {trial.place}  {trial.words} ({trial.took_ms:.0f} ms)")
    if trial.hint:
        say(console, "  ", ("hint: ", "bold"), trial.hint)


def print_trial_rows(trials: Iterable[CheckResult]) -> None:
    """Print the results of trials for programs: a second table below the plan; hints go to stderr."""
    put()
    put("target", "works", "ms", "answer")
    for trial in trials:
        put(trial.target, "yes" if trial.code is Exit.DONE else "no", f"{trial.took_ms:.0f}", trial.words)
        if trial.hint:
            put_error(f"hint: {trial.target}: {trial.hint}")
