"""The command that shows what happened in pipelines over a span, as the daemon counted it."""

import sys
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Annotated, Any
from urllib.parse import quote

import typer

from watcher.cli.console import console_on, print_list, say, table
from watcher.cli.daemon_client import Answer, JsonOption, UrlOption, find_daemon
from watcher.cli.lookup import one_of
from watcher.cli.shell import ConfigOption
from watcher.domain.history import Totals, has_changed
from watcher.runtime.units import percent, spell_duration

EXAMPLES = ("watcher history --span 7d", "watcher history 'Sales agent' --span 7d --json | jq .errors")

END_FIELDS = ("ended.success", "ended.failed", "ended.unrecognized")
COUNT_FIELDS = ("known", "started", *END_FIELDS, "medianSeconds", "p95Seconds", "tokens")
PERIOD_FIELDS = ("from", "until", *COUNT_FIELDS)
PIPELINE_FIELDS = ("account", "pipeline.id", "pipeline.name", *(f"total.{each}" for each in COUNT_FIELDS))
ERROR_FIELDS = ("count", "isNew", "node", "text", "lastAt")
SHOWN_FIELDS = ("ended", "started", "succeeded", "failed", "unrecognized", "rate", "median", "p95", "tokens")
BAR_WIDTH = 8


def history(
    pipeline: Annotated[
        str | None, typer.Argument(help="Its name or id, or a unique beginning of one; default: all.")
    ] = None,
    *,
    span: Annotated[str, typer.Option(metavar="7d", help="How long, from 1h to 90d.")] = "24h",
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what happened in a pipeline, or in all, over a span.

    Of one pipeline it is a row for each hour, over more than 7d for each day (UTC); on a terminal only for those in
    which something happened, and then the most frequent errors. Of all it is a row for each, the worst success rate
    first.
    """
    daemon = find_daemon(config, url=url)
    known = daemon.ask("GET", "/status")["pipelines"]
    chosen = known if pipeline is None else [one_of(known, pipeline, kind="pipeline")]
    paths = [f"/pipelines/{quote(each['account'], safe='')}/{each['id']}/history" for each in chosen]
    found = sorted((daemon.ask("GET", path, query=[("span", span)]) for path in paths), key=_rate)
    if as_json or (pipeline is None and not sys.stdout.isatty()):
        print_list(PIPELINE_FIELDS, found, as_json=as_json)
    elif pipeline is None:
        names = [each["pipeline"].get("name") or each["pipeline"]["id"] for each in found]
        rows = zip(names, _rows([each["total"] for each in found]), strict=True)
        print_list(("name", *SHOWN_FIELDS), [{"name": name, **row} for name, row in rows])
    elif not sys.stdout.isatty():
        print_list(PERIOD_FIELDS, found[0]["periods"])
    else:
        _show(found[0], span)


def _show(found: Answer, span: str) -> None:
    console = console_on(sys.stdout)
    say(console, f"{found['pipeline'].get('name') or found['pipeline']['id']}: {_summary(found, span)}")
    busy = [each for each in found["periods"] if each["started"] or any(each["ended"].values())]
    times = [each["from"][5:16].replace("T", " ") for each in busy]
    rows = [{"utc": time, **row} for time, row in zip(times, _rows(busy), strict=True)]
    rows += [{"utc": "total", **_rows([found["total"]])[0], "ended": None}] if busy else []
    for fields, items in ((("utc", *SHOWN_FIELDS), rows), (ERROR_FIELDS, found["errors"])):
        if items:
            say(console, "")
            console.print(table(fields, items, console=console))


def _summary(found: Answer, span: str) -> str:
    """Return how many succeeded, compared with the span before if the rate differs by more than chance explains."""
    total, before = found["total"], found.get("before")
    ended = sum(total["ended"].values())
    words = f"none ended in the last {span}" if total["known"] else "not watched"
    if ended:
        words = f"{percent(total['ended']['success'], ended)} % of {ended:,} succeeded in the last {span}"
    if before and has_changed(Totals(**total["ended"]), Totals(**before["ended"])):
        direction = "up" if _rate(found) > _rate({"total": before}) else "down"
        was = percent(before["ended"]["success"], sum(before["ended"].values()))
        words += f", {direction} from {was} %"
    if "knownFrom" in found and found["knownFrom"] > found["from"]:
        words += f"; watched since {found['knownFrom'][5:16].replace('T', ' ')} UTC"
    return words


def _rate(found: Mapping[str, Any]) -> float:
    """Return which part of the ends succeeded; without any it is above all others."""
    ended = found["total"]["ended"]
    return ended["success"] / sum(ended.values()) if any(ended.values()) else 2.0


def _rows(items: Sequence[Answer]) -> Sequence[dict[str, Any]]:
    """Return rows for people, each with a bar: its successes, then its failures."""
    most = max((sum(each["ended"].values()) for each in items), default=0) or 1
    rows = []
    for each in items:
        success, failed, unrecognized = (each["ended"][name] for name in ("success", "failed", "unrecognized"))
        count, durations = success + failed + unrecognized, (each.get("medianSeconds"), each.get("p95Seconds"))
        bar = "█" * round(BAR_WIDTH * success / most) + "✕" * ceil(BAR_WIDTH * failed / most)
        values = (
            *(bar[-BAR_WIDTH:], each["started"], success, failed, unrecognized or None),
            f"{percent(success, count)} %" if count else None,
            *(None if seconds is None else spell_duration(seconds) for seconds in durations),
            each["tokens"] or None,
        )
        rows.append(dict(zip(SHOWN_FIELDS, values, strict=True)))
    return rows
