"""`watcher run`: the daemon."""

import gc
import os
from pathlib import Path
from typing import Annotated

import typer

from watcher.app import Started
from watcher.app import run as run_daemon
from watcher.commands.options import CONFIG_HELP
from watcher.config.load import find_config, load_config
from watcher.errors import Exit, WatcherError
from watcher.interruption import run_until_stopped
from watcher.logs import configure_logs


class NothingToWatchError(WatcherError):
    """The file names no execution."""

    exit_code = Exit.USAGE


def run(
    config: Annotated[Path | None, typer.Option("--config", "-c", help=CONFIG_HELP)] = None,
) -> None:
    """Watch, and tell every change: one JSON event per line on stdout, and to the webhooks that asked for it.

    Logs go to stderr. Ctrl-C and SIGTERM let what is in flight finish, at most 8 s; a second signal ends it at once.

    Examples:  watcher run      watcher run --config /etc/watcher/watcher.yaml | jq .
    """
    gc.disable()  # what is read at the start stays: to search it for garbage costs a quarter of the start
    settings = load_config(find_config(config, environ=os.environ), environ=os.environ)
    configure_logs(level=settings.log.level, format_=settings.log.format)
    if not settings.watch:
        raise NothingToWatchError("nothing to watch: add a watch entry with a pipeline and its executions")
    run_until_stopped(lambda stop: run_daemon(settings, stop=stop, started=_spare_the_collector))


def _spare_the_collector(_started: Started) -> None:
    """Collect garbage from here on, passing over all that is there: 100,000 executions would take 0.2 s each time."""
    gc.freeze()
    gc.enable()
