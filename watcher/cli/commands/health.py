"""`watcher health`: it asks the daemon on this machine whether it is ready.

This module imports little, because a container runs the command every few seconds.
"""

import typer

from watcher.cli.daemon_client import find_daemon
from watcher.cli.shell import ConfigOption, put
from watcher.domain.errors import Exit
from watcher.runtime.terminal import harmless


def health(config: ConfigOption = None) -> None:
    """Ask the daemon on this machine whether it is ready.

    The request goes to http.listen of the file, and needs no token. Exit codes: 0 ready, 1 not ready, 4 no answer.

    Examples:
      watcher health
      watcher health --config /etc/watcher/watcher.yaml

    """
    code, answer = find_daemon(config, needs_file=False, timeout_s=5.0).send("GET", "/readyz?verbose")
    if code == 200:
        put("ready")
        return
    reasons = "; ".join(line.removeprefix("not ok: ") for line in answer.decode("utf-8", "replace").splitlines())
    if code != 503:
        reasons = f"it answers {code}; is clerk-watcher listening there?"
    put(f"not ready: {harmless(reasons)}")
    raise typer.Exit(Exit.FAILED)
