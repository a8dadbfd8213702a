"""`watcher health`: it asks the daemon on this machine whether it is ready."""

from watcher.cli.local_daemon import tell_health
from watcher.cli.shell import ConfigOption


def health(config: ConfigOption = None) -> None:
    """Ask the daemon on this machine whether it is ready.

    The request goes to http.listen of the file, and needs no token. Exit codes: 0 ready, 1 not ready, 4 no answer.

    Examples:
      watcher health
      watcher health --config /etc/watcher/watcher.yaml

    """
    tell_health(config)
