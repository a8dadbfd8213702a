"""The command that shows the overview of a running daemon: needs, pipelines, sinks and accounts."""

import json
import sys
import time
from datetime import datetime
from typing import Annotated, Any, Literal

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from watcher.cli.console import age, console_on, make_printable, print_list, table, until
from watcher.cli.daemon_client import JsonOption, UrlOption, find_daemon
from watcher.cli.shell import ConfigOption, exit_at_signals, put
from watcher.domain.errors import DaemonError, Exit, UsageError
from watcher.domain.event import EventType
from watcher.domain.execution import OPEN_STATUSES
from watcher.sinks.alert import sign_of

OPEN = {str(status): sign_of(EventType(f"execution.{status}"))[0] for status in OPEN_STATUSES}
PIPELINE_FIELDS = ("state", "name", *(f"open.{each}" for each in OPEN), "oldest", "succeeded", "lastFailedAt")
MORE_FIELDS = ("lastStartedAt", "lastEndedAt", "problems", "silencedUntil", "unknownSince")
ROW_FIELDS = ("account", "id", *PIPELINE_FIELDS, *MORE_FIELDS)
NEED_FIELDS = ("severity", "title", "failed", "reason", "since", "acknowledged")
SHOWN_NEED_FIELDS = ("severity", "since", "failed", "title")
SINK_FIELDS = ("state", "name", "unknownSince", "waiting", "oldestWaitingAt", "dead", "answer", "nextTryAt")
ACCOUNT_FIELDS = ("state", "name", "unknownSince", "used", "needed", "allowed", "reason")
NEEDS_COUNT = 10
"""Maximum number of needs that `status` shows."""

EVERY_S = 1.0
"""Seconds between two requests of `--watch`."""


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every second.")] = False,
    fail_on: Annotated[
        Literal["attention"] | None, typer.Option(help="Exit 1 if something needs somebody that nobody has taken.")
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what needs you, and the state of all pipelines and sinks.

    Piped, there is a row per pipeline; then, after an empty line, a row for each thing that needs you.
    Exit codes: 0 done, 1 with --fail-on attention.

    Examples:
      watcher status --watch
      watcher status --fail-on attention

    """
    console, daemon = console_on(sys.stdout), find_daemon(config, url=url)
    if watch and (as_json or not sys.stdout.isatty() or console.is_dumb_terminal):
        raise UsageError("--watch needs a terminal; elsewhere follow the events: watcher events -f")
    found = daemon.ask("GET", "/status")
    if as_json:
        put(json.dumps(found))
    elif not sys.stdout.isatty():
        print_list(ROW_FIELDS, map(_pipeline, found["pipelines"]))
        if found["needs"]:
            put()
            print_list(NEED_FIELDS, map(_need, found["needs"]))
    elif not watch:
        console.print(_overview(found, console=console))
    else:
        exit_at_signals()
        seen_at, failure = datetime.now().astimezone(), ""
        with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            while True:
                live.update(_overview(found, failure, console=console), refresh=True)
                time.sleep(EVERY_S)
                try:
                    found, failure = daemon.ask("GET", "/status"), ""
                    seen_at = datetime.now().astimezone()
                except DaemonError as error:
                    failure = f"✕ not live since {seen_at:%H:%M:%S}: {str(error).splitlines()[0]}"
    if fail_on and not all(need["acknowledged"] for need in found["needs"]):
        raise typer.Exit(Exit.FAILED)


def _overview(found: dict[str, Any], failure: str = "", *, console: Console) -> RenderableType:
    needs, open_count = found["needs"], sum(not need["acknowledged"] for need in found["needs"])
    others = {name: "?" for name, count in found["open"].items() if count and name not in OPEN}
    counts = "   ".join(f"{sign} {name} {found['open'].get(name, 0):,}" for name, sign in {**OPEN, **others}.items())
    head = f"clerk-watcher {found['version']}   open {sum(found['open'].values()):,}:  {counts}"
    lines = [(failure, "bold red"), (head, ""), (unknown := unknown_text(found), "yellow")]
    if open_count:
        sign, style = ("! ", "yellow") if needs[0]["severity"] == "warning" else ("✕ ", "red")
        lines.append((f"{sign}{open_count:,} need you", style))
    elif not unknown:
        lines.append(("✓ nothing needs you", "green"))
    parts: list[RenderableType] = [Text(make_printable(text, console=console), style) for text, style in lines if text]
    parts.append(table(SHOWN_NEED_FIELDS, [*map(_need, needs[:NEEDS_COUNT])], console=console))
    if len(needs) > NEEDS_COUNT:
        parts.append(f"and {len(needs) - NEEDS_COUNT:,} more: watcher problems")
    for fields, items in (
        ((*PIPELINE_FIELDS, "unknownSince"), [*map(_pipeline, found["pipelines"])]),
        (SINK_FIELDS, found["sinks"]),
        (ACCOUNT_FIELDS, found["accounts"]),
    ):
        parts += ["", table(fields, items, console=console)]
    return Group(*parts)


def unknown_text(found: dict[str, Any]) -> str:
    """Return how many pipelines are in an unknown state, and for how long; an empty text if there are none."""
    since = f" for {age(found['unknownSince'])}" if "unknownSince" in found else ""
    return f"? {found['unknown']:,} of {len(found['pipelines']):,} pipelines unknown{since}" if found["unknown"] else ""


def _need(each: dict[str, Any]) -> dict[str, Any]:
    """Add notes, and to a need that is one problem the number of failed executions, which its title lacks."""
    by = f" by {each['acknowledgedBy']}" if "acknowledgedBy" in each else ""
    taken = f"acknowledged{by}{until(each.get('acknowledgedUntil'))}" if each["acknowledged"] else ""
    failed = each["count"] if len(each["problems"]) == 1 and each["count"] > 1 else None
    return {**each, "failed": failed, "notes": (each["reason"], taken)}


def _pipeline(each: dict[str, Any]) -> dict[str, Any]:
    """Add the columns of a pipeline that are computed: name, oldest open execution, and share of successes."""
    ends = each.get("ends", ())
    return {
        **each,
        "name": each.get("name") or each["id"],
        "oldest": min(each.get("oldest", {}).values(), default=None),
        "succeeded": f"{ends.count('success')} of {len(ends)}" if ends else None,
    }
