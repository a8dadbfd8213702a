"""What `watcher check` prints: the plan, and what became of trying keys and sinks, for people or for programs."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from watcher.cli.check.capacity import TYPICAL_STATUS_S, AccountPlan, Advice
from watcher.cli.check.connectivity import Trial
from watcher.cli.console import say
from watcher.cli.stdio import put, put_error
from watcher.config.models import Settings
from watcher.runtime.units import write_duration


def print_plan(plans: Sequence[AccountPlan], settings: Settings, *, file: str, console: Console) -> None:
    """Print the plan for people."""
    counts = (("account", settings.accounts), ("watch", settings.watch), ("sink", settings.sinks))
    say(console, ("✓ ", "green"), (file, "bold"), "  ", ", ".join(_count(len(items), word) for word, items in counts))
    headings = ("account", "needed", "budget", "expected delay", "longest interval")
    table = Table(*headings, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for each in plans:
        seconds = ("-" if figure is None else f"{roughly(figure)} s" for figure in (each.delay_s, each.longest_s))
        table.add_row(each.account, f"{roughly(each.needed_per_s)}/s", f"{roughly(each.budget_per_s)}/s", *seconds)
    console.print(table)
    for each in plans:
        if each.advice:
            say(console, ("! ", "yellow"), f"{each.account}: {advise(each.advice)}")
    say(console, (_explain(settings), "dim"))


def print_plan_rows(plans: Sequence[AccountPlan]) -> None:
    """Print the plan for programs: tab-separated, seconds and per second; empty where nothing is watched."""
    put("account", "needed", "budget", "delay", "interval")
    for each in plans:
        figures = (each.needed_per_s, each.budget_per_s, each.delay_s, each.longest_s)
        put(each.account, *("" if figure is None else exactly(figure) for figure in figures))


def advise(advice: Advice) -> str:
    """Return what cannot be held, and what would help."""
    longer = write_duration(advice.longer_s)
    keys = " and ".join(f"polling.{key}" for key in advice.keys)
    return (
        f"over {advice.keys[0]} {write_duration(advice.interval_s)}: "
        f"raise rate_limit to {advice.rate_limit_per_s:.10g}/s, or {keys} to {longer}"
    )


def _explain(settings: Settings) -> str:
    """Return what the figures mean."""
    polling = settings.polling
    counts = [len(watch.executions) for watch in settings.watch]
    explained = []
    if any(counts):
        key, rarest_s = ("min_interval", polling.min_interval_s)
        if polling.cadence == "backoff":
            key, rarest_s = ("max_interval", polling.max_interval_s)
        explained.append(
            f"if all are open: each needs a poll every {key} ({write_duration(rarest_s)}); "
            f"delay is the mean for a change after {write_duration(TYPICAL_STATUS_S)} in a status"
        )
    if 0 in counts:
        explained.append(
            f"a whole pipeline needs a page of its list every min_interval ({write_duration(polling.min_interval_s)}), "
            "and gets the budget that is left; later pages and details are added"
        )
    return "; ".join(explained)


def _count(count: int, word: str) -> str:
    plural = "es" if word.endswith("ch") else "s"
    return f"{count} {word}{'' if count == 1 else plural}"


def roughly(figure: float) -> str:
    """Return a figure with as many digits as people read: 0.017, 3.6, 84."""
    digits = next((digits for digits, below in ((3, 0.1), (2, 1.0), (1, 20.0)) if figure < below), 0)
    return exactly(round(figure, digits))


def exactly(figure: float) -> str:
    """Return a figure to the thousandth, without needless noughts."""
    return f"{figure:.3f}".rstrip("0").rstrip(".")


def print_trial(trial: Trial, *, console: Console) -> None:
    """Print one trial for people."""
    sign, style = ("✓ ", "green") if trial.works else ("✕ ", "red")
    say(console, (sign, style), (trial.target, "bold"), f"  {trial.place}  {trial.words} ({trial.took_ms:.0f} ms)")
    if trial.hint:
        say(console, "  ", ("hint: ", "bold"), trial.hint)


def print_trial_rows(trials: Iterable[Trial]) -> None:
    """Print trials for programs: a second table below that of the plan; what to do about failures goes to stderr."""
    put()
    put("target", "works", "ms", "answer")
    for trial in trials:
        put(trial.target, "yes" if trial.works else "no", f"{trial.took_ms:.0f}", trial.words)
        if trial.hint:
            put_error(f"hint: {trial.target}: {trial.hint}")
