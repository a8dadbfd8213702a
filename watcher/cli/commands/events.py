"""`watcher events`: what was recorded, and what is from now on."""

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from watcher.cli.console import console_on
from watcher.cli.daemon_client import AccessError, DaemonClient, DaemonError, JsonOption, Query, UrlOption, find_daemon
from watcher.cli.listing import print_list
from watcher.cli.shell import ConfigOption, exit_at_signals, put_all_out, put_error
from watcher.domain.errors import Exit
from watcher.sinks.stdout import event_line, shows_whole_ids, why

EXAMPLES = (
    "watcher events --execution 9a1b0000-0000-4000-8000-000000000001",
    "watcher events -f --type 'execution.failed' --label team=sales --since 2h",
)

FIELDS = ("time", "type", "data.account", "data.pipeline.id", "data.pipeline.name", "subject", "reason", "id")
EVERY_S = 1.0


def events(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those to come.")] = False,
    type_: Annotated[list[str] | None, typer.Option("--type", metavar="GLOB", help="Only such, as execution.*")] = None,
    pipeline: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only of these pipelines.")] = None,
    execution: Annotated[str | None, typer.Option(metavar="ID", help="Only of this execution.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only with these labels.")] = None,
    since: Annotated[str | None, typer.Option(metavar="2h", help="No older, or since a time.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Print events in the order of recording.

    Without --since: of one execution all, else those of the last hour, with -f those from now on. With -f it asks every
    second, goes on after the daemon was away, and misses none.
    """
    exit_at_signals()
    lists = {"type": type_, "pipeline": pipeline, "label": [each.replace("=", ":", 1) for each in label or ()]}
    query = [(name, value) for name, values in lists.items() for value in values or ()]
    if execution:
        query.append(("execution", execution))
    since = since or ("1ms" if follow else None if execution else "1h")
    found = _events(find_daemon(config, url=url), query, since=since, follow=follow)
    if as_json or not sys.stdout.isatty():
        rows = found if as_json else ({**event, "reason": why(event["data"])} for event in found)
        print_list(FIELDS, rows, as_json=as_json)
        return
    console = console_on(sys.stdout)
    for event in found:
        console.print(event_line(event, whole_ids=shows_whole_ids(console)), soft_wrap=True)


def _events(client: DaemonClient, query: Query, *, since: str | None, follow: bool) -> Iterator[dict[str, Any]]:
    """Yield each event once: a page is whole before its cursor is used."""
    position: Query = [("since", since)] if since else []
    after: str | None = None
    is_away = False
    while True:
        try:
            page = client.ask("GET", "/events", query=[*query, ("limit", "200"), *position])
        except DaemonError as error:
            is_final = isinstance(error, AccessError) or error.exit_code in {Exit.USAGE, Exit.NOT_FOUND}
            if not follow or after is None or is_final:
                raise
            if not is_away:
                put_error(f"warning: {str(error).splitlines()[0]}; trying again every second")
            is_away = True
            time.sleep(EVERY_S)
            continue
        if is_away:
            put_error("warning: the daemon answers again; no event was missed")
        is_away = False
        yield from page["items"]
        if page["next"] == after:
            if not follow:
                return
            put_all_out()
            time.sleep(EVERY_S)
        after = page["next"]
        position = [("after", after)]
