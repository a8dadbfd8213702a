"""`watcher demo`: everything at work, without a key."""

import sys
from typing import Annotated

import typer

from watcher.cli.demo import demonstrate
from watcher.cli.interrupt import run_until_stopped
from watcher.runtime.logs import configure_logs

EXAMPLES = ("watcher demo", "watcher demo --json | jq .type")


def demo(
    *,
    forever: Annotated[bool, typer.Option("--forever", help="Go on until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON, not as readable lines.")] = False,
) -> None:
    """Show everything at work for 30 seconds, without a key.

    It runs a simulated API, the daemon, and a receiver that checks signatures, and leaves nothing behind.
    """
    configure_logs(level="error", format_="auto")
    plain = as_json or not sys.stdout.isatty()
    run_until_stopped(lambda stop: demonstrate(stop=stop, forever=forever, as_json=plain))
