"""The table of `watcher check --who`: which sinks would be sent what of each watch, now."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from watcher.cli.console import make_printable, say
from watcher.cli.daemon_client import Answer
from watcher.cli.lookup import one_of
from watcher.cli.shell import put
from watcher.config.in_words import in_words
from watcher.config.models import Settings
from watcher.daemon.from_settings import routes_of, silences_of, watches_of
from watcher.domain.event import EventType
from watcher.domain.problems import CLOSED_BY
from watcher.domain.prospects import prospects_of
from watcher.domain.routing import Router, Silences
from watcher.domain.watch import Watch


class Row(NamedTuple):
    """One event of a watch, or of its account, and in words by sink name what that sink is sent."""

    watch: Watch
    type: EventType
    told: dict[str, str]


def rows_of(settings: Settings, word: str, *, at: datetime) -> list[Row]:
    """Return the rows of each watch, or of the one that `word` names, if it is not empty.

    Raises `DaemonError` or `UsageError` if it names none, or several.
    """
    watches = watches_of(settings)
    if word:
        known = [Answer(account=each.account, id=each.pipeline, name=each.name or "") for each in watches]
        one = one_of(known, word, kind="pipeline", listed_by="watcher check --who")
        watches = [each for each in watches if (each.account, each.pipeline) == (one["account"], one["id"])]
    router, silences = Router(routes_of(settings)), Silences(silences_of(settings))
    after_s = {name: sink.rules.after_s for name, sink in settings.sinks.items()}
    rows = []
    for watch in watches:
        for type_ in _types_of(watch):
            about = None if type_.startswith("account.") else watch
            found = prospects_of(
                type_, account=watch.account, watch=about, router=router, after_s=after_s, silences=silences, at=at
            )
            rows.append(Row(watch, type_, {name: in_words(each) for name, each in found.items()}))
    return rows


def _types_of(watch: Watch) -> Iterator[EventType]:
    """Yield `execution.failed`, and the openings and closings of a watch and of its account."""
    yield EventType.EXECUTION_FAILED
    if watch.overdue_after_s:
        yield EventType.EXECUTION_OVERDUE
    for opening in (*(rule.opens for rule in watch.rules if rule.opens), EventType.ACCOUNT_DEGRADED):
        yield opening
        yield CLOSED_BY[opening]


def print_who(rows: Sequence[Row], *, console: Console) -> None:
    """Print a table for each watch, for people."""
    for watch, of_watch in groupby(rows, key=lambda row: row.watch):
        each_row = list(of_watch)
        say(console, (watch.name or watch.pipeline, "bold"), f"  {watch.account}/{watch.pipeline}")
        sinks = [make_printable(name, console=console) for name in each_row[0].told]
        table = Table("event", *sinks, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for row in each_row:
            table.add_row(row.type, *row.told.values())
        console.print(table)


def print_who_rows(rows: Sequence[Row]) -> None:
    """Print a row per event and sink for programs, separated by tabs."""
    put("account", "pipeline", "name", "event", "sink", "told")
    for watch, type_, told in rows:
        for sink, words in told.items():
            put(watch.account, watch.pipeline, watch.name or "", type_, sink, words)
