"""`watcher check`: whether the file can be used, what it would cost, and whether keys and sinks work."""

import asyncio
import sys
from typing import Annotated

import typer

from watcher.clock import SystemClock
from watcher.commands.configuration import config_path, read_config
from watcher.commands.options import ConfigOption
from watcher.config.models import Settings
from watcher.config.source import require_watches
from watcher.errors import Exit
from watcher.plan import plan
from watcher.terminal.console import say, stderr_console, stdout_console
from watcher.terminal.plan import print_plan, print_plan_rows
from watcher.terminal.trials import print_trial, print_trial_rows
from watcher.trials import try_everything
from watcher.units import is_loopback, parse_address

EXAMPLES = ("watcher check", "watcher check --config watcher.yaml --online --send")


def check(
    *,
    config: ConfigOption = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask with each key once, and connect to each webhook, sending nothing.")
    ] = False,
    send: Annotated[
        bool, typer.Option("--send", help="As --online, and send each webhook a watcher.test event.")
    ] = False,
) -> None:
    """Validate the file and print the plan; try keys and webhooks.

    The plan is what each account wants of the API, what it may spend, and how soon changes are seen. Piped, it is a
    tab-separated row per account, in seconds and requests per second. Exit codes: 2 the file cannot be used, 4 a key
    or a webhook does not work, 5 a pipeline is not known.
    """
    path = config_path(config)
    settings = read_config(path)
    require_watches(settings)
    if sys.stdout.isatty():
        print_plan(plan(settings), settings, file=str(path), console=stdout_console())
    else:
        print_plan_rows(plan(settings))
    _warn(settings)
    if online or send:
        _go_online(settings, send=send)


def _warn(settings: Settings) -> None:
    """Say what is allowed and may still be a mistake."""
    listen = settings.http.listen
    if not is_loopback(parse_address(listen).host):
        words = f"http.listen: {listen} can be reached from other machines; they may read /livez, /readyz and /metrics"
        say(stderr_console(), ("warning: ", "bold yellow"), words)


def _go_online(settings: Settings, *, send: bool) -> None:
    trials = asyncio.run(try_everything(settings, clock=SystemClock(), send=send))
    if sys.stdout.isatty():
        for trial in trials:
            print_trial(trial, console=stdout_console())
    else:
        print_trial_rows(trials)
    codes = {trial.code for trial in trials} - {Exit.DONE}
    if codes:
        raise typer.Exit(min(codes))
