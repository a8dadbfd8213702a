"""`watcher status`: the first view of the page: what needs somebody, and how everything stands."""

import json
import sys
import time
from datetime import datetime
from typing import Annotated, Any, Literal

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from watcher.cli.console import console_on, printed
from watcher.cli.daemon_client import DaemonError, JsonOption, UrlOption, find_daemon
from watcher.cli.listing import print_list, table
from watcher.cli.shell import ConfigOption, exit_at_signals, put
from watcher.domain.errors import Exit, UsageError

EXAMPLES = ("watcher status --watch", "watcher status --fail-on attention")

OPEN = {"new": "○", "running": "▶", "paused": "‖"}
PIPELINE_FIELDS = ("state", "name", *(f"open.{each}" for each in OPEN), "oldest", "succeeded", "lastFailedAt")
ROW_FIELDS = ("account", "id", *PIPELINE_FIELDS, "lastStartedAt", "lastEndedAt", "problems", "silencedUntil")
NEED_FIELDS = ("title", "reason", "since", "acknowledged")
SINK_FIELDS = ("state", "name", "waiting", "dead", "answer", "nextTryAt")
ACCOUNT_FIELDS = ("state", "name", "used", "wanted", "allowed", "trouble")
NEEDS_SHOWN = 10
EVERY_S = 1.0


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
    """Show what needs somebody, and how everything stands.

    Piped, it is a row per pipeline. Exit codes: 0 done, 1 with --fail-on attention.
    """
    console, daemon = console_on(sys.stdout), find_daemon(config, url=url)
    if watch and (as_json or not sys.stdout.isatty() or console.is_dumb_terminal):
        raise UsageError("--watch needs a terminal; elsewhere follow the events: watcher events -f")
    found = daemon.ask("GET", "/status")
    if as_json:
        put(json.dumps(found))
    elif not sys.stdout.isatty():
        print_list(ROW_FIELDS, map(_pipeline, found["pipelines"]))
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
    needs = found["needs"]
    counts = "   ".join(f"{sign} {name} {found['open'].get(name, 0):,}" for name, sign in OPEN.items())
    head = f"clerk-watcher {found['version']}   open {sum(found['open'].values()):,}:  {counts}"
    verdict = (f"✕ {len(needs):,} need you", "red") if needs else ("✓ nothing needs you", "green")
    lines = ((failure, "bold red"), (head, ""), verdict)
    parts: list[RenderableType] = [Text(printed(text, console=console), style) for text, style in lines if text]
    pipelines = sorted(map(_pipeline, found["pipelines"]), key=lambda each: (each["state"] == "well", each["name"]))
    accounts = [{**each, "state": "failing" if "trouble" in each else "well"} for each in found["accounts"]]
    parts.append(table(NEED_FIELDS, needs[:NEEDS_SHOWN], console=console))
    if len(needs) > NEEDS_SHOWN:
        parts.append(f"and {len(needs) - NEEDS_SHOWN:,} more: watcher problems")
    for fields, items in ((PIPELINE_FIELDS, pipelines), (SINK_FIELDS, found["sinks"]), (ACCOUNT_FIELDS, accounts)):
        parts += ["", table(fields, items, console=console)]
    return Group(*parts)


def _pipeline(each: dict[str, Any]) -> dict[str, Any]:
    """Add to a pipeline what is concluded from the rest: how it is, its name, its oldest, and how many succeeded."""
    ends = each.get("ends", ())
    return {
        **each,
        "state": "failing" if each.get("problems") else "well",
        "name": each.get("name") or each["id"],
        "oldest": min(each.get("oldest", {}).values(), default=None),
        "succeeded": f"{ends.count('success')} of {len(ends)}" if ends else None,
    }
