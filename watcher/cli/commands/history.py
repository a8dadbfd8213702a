"""`watcher history`: it shows counts, durations and errors of a pipeline over a span."""

import json
import sys
from math import ceil
from typing import Annotated, Any
from urllib.parse import quote

import typer

from watcher.cli.commands.report import report
from watcher.cli.console import console_on, print_list, say, table
from watcher.cli.daemon_client import Answer, JsonOption, UrlOption, find_daemon
from watcher.cli.lookup import one_of
from watcher.cli.shell import ConfigOption, put
from watcher.domain.errors import UsageError
from watcher.domain.execution import END_LABELS, TERMINAL_STATUSES
from watcher.runtime.units import percent, spell_duration

END_FIELDS = tuple(f"ended.{label}" for label in END_LABELS)
WORDS = tuple(each.word for each in END_LABELS.values())
PERIOD_FIELDS = ("from", "until", "known", "started", *END_FIELDS, "medianSeconds", "p95Seconds", "tokens")
ERROR_FIELDS = ("count", "isNew", "node", "text", "lastAt")
SHOWN_FIELDS = ("utc", "ended", "started", *WORDS, "rate", "median", "p95", "tokens")
BAR_WIDTH = 8


def history(
    pipeline: Annotated[
        str | None, typer.Argument(help="Its name or id, or a unique beginning of one; without it a report of all.")
    ] = None,
    *,
    span: Annotated[str, typer.Option(metavar="7d", help="How long, from 1h to 90d.")] = "24h",
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a row per hour or day in CSV.")] = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what happened in a pipeline over a span.

    There is a row for each hour, or for each day (UTC) if the span is longer than 7d. A terminal shows only the rows
    in which something happened, and below them the most frequent errors. Without a pipeline the command is
    `watcher report`.

    Examples:
      watcher history 'Sales agent' --span 7d
      watcher history 'Sales agent' --span 30d --csv > sales.csv

    """
    if as_csv and (pipeline is None or as_json):
        raise UsageError("--csv is for the history of one PIPELINE, without --json")
    if pipeline is None:
        report(last=span, as_json=as_json, url=url, config=config)
        return
    daemon = find_daemon(config, url=url)
    its = one_of(daemon.ask("GET", "/status")["pipelines"], pipeline, kind="pipeline")
    path = f"/pipelines/{quote(its['account'], safe='')}/{its['id']}/history"
    if as_csv:
        put(daemon.csv(path, query=[("span", span)]).replace("\r\n", "\n").rstrip())
        return
    found = daemon.ask("GET", path, query=[("span", span)])
    if as_json:
        put(json.dumps(found))
    elif not sys.stdout.isatty():
        print_list(PERIOD_FIELDS, found["periods"])
    else:
        _show(found, span)


def _show(found: Answer, span: str) -> None:
    console = console_on(sys.stdout)
    say(console, f"{found['pipeline'].get('name') or found['pipeline']['id']}: {_summary(found, span)}")
    busy = [each for each in found["periods"] if each["started"] or any(each["ended"].values())]
    most = max((sum(each["ended"].values()) for each in busy), default=0) or 1
    rows = [_row(each, most) for each in busy]
    if busy:
        rows.append({**_row(found["total"], most), "utc": "total", "ended": None})
    errors = [{**each, "text": each["text"] or "no error text"} for each in found["errors"]]
    for fields, items in ((SHOWN_FIELDS, rows), (ERROR_FIELDS, errors)):
        if items:
            say(console, "")
            console.print(table(fields, items, console=console))


def _summary(found: Answer, span: str) -> str:
    """Return in words the success rate, the previous rate if it has changed, and since when the history is complete."""
    total, before = found["total"], found.get("before")
    ended = sum(total["ended"].values())
    words = f"none ended in the last {span}" if total["known"] else "not watched"
    if ended:
        words = f"{percent(total['ended']['success'], ended)} % of {ended:,} succeeded in the last {span}"
    if before and found.get("rateHasChanged"):
        success, was_ended = before["ended"]["success"], sum(before["ended"].values())
        direction = "up" if total["ended"]["success"] * was_ended > success * ended else "down"
        words += f", {direction} from {percent(success, was_ended)} %"
    if "knownFrom" in found and found["knownFrom"] > found["from"]:
        words += f"; complete since {found['knownFrom'][5:16].replace('T', ' ')} UTC"
    return words


def _row(each: Answer, most: int) -> dict[str, Any]:
    """Return the row of a period. The bar in it shows successes, then failures; `most` ends fill its whole width."""
    ended, count = each["ended"], sum(each["ended"].values())
    bar = "█" * round(BAR_WIDTH * ended["success"] / most) + "✕" * ceil(BAR_WIDTH * ended["failed"] / most)
    return {
        "utc": each["from"][5:16].replace("T", " "),
        "ended": bar[-BAR_WIDTH:],
        "started": each["started"],
        **{
            word: ended[label] or (0 if label in TERMINAL_STATUSES else None) for label, (_, word) in END_LABELS.items()
        },
        "rate": f"{percent(ended['success'], count)} %" if count else None,
        "median": spell_duration(each["medianSeconds"]) if "medianSeconds" in each else None,
        "p95": spell_duration(each["p95Seconds"]) if "p95Seconds" in each else None,
        "tokens": each["tokens"] or None,
    }
