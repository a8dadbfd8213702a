"""`watcher check`: whether the file can be used, what it would cost, and whether keys and sinks work."""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TextColumn

from watcher.cli.check.capacity import plan
from watcher.cli.check.connectivity import Trial, try_everything, try_store
from watcher.cli.check.views import print_plan, print_plan_rows, print_trial, print_trial_rows
from watcher.cli.commands.options import ConfigOption
from watcher.cli.config_loading import WARNING, loaded, report
from watcher.cli.console import stderr_console, stdout_console
from watcher.cli.stdio import put_error
from watcher.config.daemon_address import database_of
from watcher.config.document import Document
from watcher.config.loader import load_config
from watcher.config.locate import find_config
from watcher.config.models import Settings
from watcher.config.problems import Problem
from watcher.config.source import require_usable
from watcher.config.warnings import warnings_of
from watcher.daemon.fingerprint import fingerprint_of_sink
from watcher.domain.errors import Exit
from watcher.runtime.clock import SystemClock
from watcher.runtime.logs import configure_logs
from watcher.store.database_file import disabled_sinks

EXAMPLES = ("watcher check watcher.yaml --without-secrets", "watcher check --online --send")


def check(
    file: Annotated[Path | None, typer.Argument(help="The YAML file, as with --config.", show_default=False)] = None,
    *,
    config: ConfigOption = None,
    online: Annotated[
        bool, typer.Option("--online", help="Poll each watch once; connect to each sink and a PostgreSQL store.")
    ] = False,
    send: Annotated[bool, typer.Option("--send", help="As --online, and send each sink a test message.")] = False,
    without_secrets: Annotated[
        bool,
        typer.Option("--without-secrets", help="Only warn of unset variables and absent secret files: for CI."),
    ] = False,
) -> None:
    """Validate the file and print the plan.

    The plan says how many requests per second each account needs, its budget, and how soon changes are seen. Piped,
    it is a tab-separated row per account, in seconds and requests per second. With --online a second table shows what
    was tried: a row per key and sink, one per watch that does not work, and one for a PostgreSQL store. No message is
    sent, and nothing written into a store. These requests keep to rate_limit, and are added to those of a daemon
    with the same key. Likely mistakes are warnings on stderr. Exit codes: 2 the file cannot be used, 4 a key, a sink
    or the store does not work, 5 a pipeline is not known.
    """
    if file is not None and config is not None:
        raise typer.BadParameter("FILE and --config are the same; give one of them")
    if without_secrets and (online or send):
        raise typer.BadParameter("--online and --send need the secrets; leave out --without-secrets")
    path = find_config(file or config, environ=os.environ)
    document = Document(file=str(path), without_secrets=without_secrets)
    settings = loaded(partial(load_config, path, environ=os.environ, document=document))
    require_usable(settings)
    if sys.stdout.isatty():
        print_plan(plan(settings), settings, file=str(path), console=stdout_console())
    else:
        print_plan_rows(plan(settings))
    # What is allowed and likely a mistake, and which sink gets nothing any more.
    found = warnings_of(document, settings)
    database = database_of(settings.store.url)
    disabled = {} if database is None else disabled_sinks(database)
    _warn((*found, *_disabled(document, settings, disabled)), document)
    if online or send:
        _go_online(document, settings, send=send)


def _warn(warnings: Sequence[Problem], document: Document) -> None:
    if sys.stderr.isatty():
        report(warnings, source=document.source, console=stderr_console(), word=WARNING)
    else:
        for warning in warnings:
            put_error(f"warning: {warning}")


def _disabled(document: Document, settings: Settings, disabled: Mapping[str, str]) -> Iterator[Problem]:
    """Warn of sinks that the store records as disabled under the very block they have now: another one enables them."""
    for name, sink in settings.sinks.items():
        if disabled.get(name) == fingerprint_of_sink(sink):
            problem = "is disabled since its receiver answered 410 Gone; its deliveries wait"
            remedy = "ask the receiver for a new URL and set it, or remove the sink"
            yield document.remark(("sinks", name), problem, remedy=remedy, key=True)


def _go_online(document: Document, settings: Settings, *, send: bool) -> None:
    configure_logs(level="error", format_="auto")  # what a sink logs goes to stderr, as in the daemon
    trials, disabled = asyncio.run(_try_everything(settings, send=send))
    if sys.stdout.isatty():
        for trial in trials:
            print_trial(trial, console=stdout_console())
    else:
        print_trial_rows(trials)
    _warn(tuple(_disabled(document, settings, disabled)), document)
    codes = {trial.code for trial in trials} - {Exit.DONE}
    if codes:
        raise typer.Exit(min(codes))


async def _try_everything(settings: Settings, *, send: bool) -> tuple[Sequence[Trial], Mapping[str, str]]:
    """Return what came of all that was tried, and the sinks that a store on a server records as disabled."""
    console, clock = stderr_console(), SystemClock()
    words = TextColumn("tried {task.completed} of {task.total} watches")
    with Progress(words, console=console, transient=True, disable=not console.is_terminal) as progress:
        watches = progress.add_task("", total=len(settings.watch))
        trials, (of_store, disabled) = await asyncio.gather(
            try_everything(settings, clock=clock, send=send, tried=lambda: progress.update(watches, advance=1)),
            try_store(settings.store, clock=clock),
        )
    return [*trials, *of_store], disabled
