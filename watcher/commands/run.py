"""`watcher run`: the daemon."""

import gc

from watcher.app import Started
from watcher.app import run as run_daemon
from watcher.commands.configuration import config_path, read_config, require_watches
from watcher.commands.options import ConfigOption
from watcher.interruption import run_until_stopped
from watcher.logs import configure_logs

EXAMPLES = ("watcher run", "watcher run --config /etc/watcher/watcher.yaml | jq .")


def run(config: ConfigOption = None) -> None:
    """Watch, and tell every change as an event.

    One JSON event per line on stdout, and to the webhooks that asked for it. Logs go to stderr. Ctrl-C and
    SIGTERM let what is in flight finish, at most 8 s; a second signal ends it at once.
    """
    gc.disable()  # what is read at the start stays: to search it for garbage costs a quarter of the start
    settings = read_config(config_path(config))
    configure_logs(level=settings.log.level, format_=settings.log.format)
    require_watches(settings)
    run_until_stopped(lambda stop: run_daemon(settings, stop=stop, started=_spare_the_collector))


def _spare_the_collector(_started: Started) -> None:
    """Collect garbage from here on, passing over all that is there: 100,000 executions would take 0.2 s each time."""
    gc.freeze()
    gc.enable()
