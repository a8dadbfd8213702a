"""The plan, as a table for people or as rows for programs."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from watcher.cli.check.capacity import TYPICAL_STATUS_S, AccountPlan, Advice
from watcher.cli.console import say
from watcher.cli.stdio import put
from watcher.config.models import PollingSettings, Settings
from watcher.runtime.units import write_duration

NARROW = 60
_HEADINGS = ("account", "needed", "budget", "expected delay", "longest interval")


def print_plan(plans: Sequence[AccountPlan], settings: Settings, *, file: str, console: Console) -> None:
    """Print the plan for people."""
    counts = (("account", settings.accounts), ("watch", settings.watch), ("sink", settings.sinks))
    say(console, ("✓ ", "green"), (file, "bold"), "  ", ", ".join(_count(len(items), word) for word, items in counts))
    console.print(_table([_cells(each) for each in plans], narrow=console.width < NARROW))
    for each in plans:
        if each.advice:
            say(console, ("! ", "yellow"), f"{each.account}: {advise(each.advice)}")
    say(console, (_explain(settings), "dim"))


def _table(rows: Sequence[tuple[str, ...]], *, narrow: bool) -> Table:
    table = Table(box=None, padding=(0, 1 if narrow else 2, 0, 0), pad_edge=False, header_style="bold")
    for heading, cells in zip(_HEADINGS, zip(*rows, strict=True), strict=True):
        table.add_column(heading, min_width=max(map(len, (*cells, *heading.split()))))
    for row in rows:
        table.add_row(*row)
    return table


def print_plan_rows(plans: Sequence[AccountPlan]) -> None:
    """Print the plan for programs: tab-separated, seconds and per second; empty where nothing is watched."""
    rows: list[tuple[str, ...]] = [("account", "needed", "budget", "delay", "interval")]
    for each in plans:
        figures = (each.needed_per_s, each.budget_per_s, each.delay_s, each.longest_s)
        rows.append((each.account, *("" if figure is None else exactly(figure) for figure in figures)))
    for row in rows:
        put(*row)


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
    explained = (_explain_named(settings.polling), _explain_whole(settings.polling))
    return "; ".join(words for words, wanted in zip(explained, _kinds(settings), strict=True) if wanted)


def _kinds(settings: Settings) -> tuple[bool, bool]:
    """Tell whether executions are named, and whether pipelines are watched whole."""
    counts = [len(watch.executions) for watch in settings.watch]
    return any(counts), 0 in counts


def _explain_named(polling: PollingSettings) -> str:
    key, rarest_s = ("min_interval", polling.min_interval_s)
    if polling.cadence == "backoff":
        key, rarest_s = ("max_interval", polling.max_interval_s)
    return (
        f"if all are open: each needs a poll every {key} ({write_duration(rarest_s)}); "
        f"delay is the mean for a change after {write_duration(TYPICAL_STATUS_S)} in a status"
    )


def _explain_whole(polling: PollingSettings) -> str:
    return (
        f"a whole pipeline needs a page of its list every min_interval ({write_duration(polling.min_interval_s)}), "
        "and gets the budget that is left; later pages and details are added"
    )


def _count(count: int, word: str) -> str:
    plural = "es" if word.endswith("ch") else "s"
    return f"{count} {word}{'' if count == 1 else plural}"


def _cells(each: AccountPlan) -> tuple[str, ...]:
    seconds = ("-" if figure is None else f"{roughly(figure)} s" for figure in (each.delay_s, each.longest_s))
    return (each.account, f"{roughly(each.needed_per_s)}/s", f"{roughly(each.budget_per_s)}/s", *seconds)


def roughly(figure: float) -> str:
    """Return a figure with as many digits as people read: 0.017, 3.6, 84."""
    digits = next((digits for digits, below in ((3, 0.1), (2, 1.0), (1, 20.0)) if figure < below), 0)
    return exactly(round(figure, digits))


def exactly(figure: float) -> str:
    """Return a figure to the thousandth, without needless noughts."""
    return f"{figure:.3f}".rstrip("0").rstrip(".")
