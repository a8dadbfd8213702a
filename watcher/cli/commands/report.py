"""`watcher report`: it prints the report on all pipelines, with the same lines as the message to sinks."""

import json
import sys
from typing import Annotated

import typer

from watcher.cli.console import console_on, print_list, say
from watcher.cli.daemon_client import JsonOption, UrlOption, find_daemon
from watcher.cli.shell import ConfigOption, put
from watcher.sinks.alert import report_title
from watcher.sinks.report import report_lines, report_span

REPORT_FIELDS = (
    *("needsLook", "account", "id", "name", "state", "openProblems", "ended", "failed", "successRate"),
    *("successRateBefore", "medianSeconds", "p95Seconds", "tokens", "error.count", "error.node", "error.text"),
)


def report(
    *,
    last: Annotated[str, typer.Option(metavar="24h", help="The time until now, from 1h to 90d.")] = "24h",
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Print how the pipelines did, the worst first.

    The report covers whole hours, with the running hour. Piped, it has a row per pipeline.

    Examples:
      watcher report
      watcher report --last 7d --json | jq .total.successRate

    """
    found = find_daemon(config, url=url).ask("GET", "/report", query=[("last", last)])
    if as_json:
        put(json.dumps(found))
    elif not sys.stdout.isatty():
        print_list(REPORT_FIELDS, found["pipelines"])
    else:
        lines = (report_title(found), *report_lines(found, limit=sys.maxsize), report_span(found), found.get("link"))
        for line in filter(None, lines):
            say(console_on(sys.stdout), line)
