"""`watcher health`: whether the daemon on this machine is ready. Imports little: a container asks every few seconds."""

import http.client
import os

import typer

from watcher.cli.shell import ConfigOption, put
from watcher.config.locate import find_config, listen_address
from watcher.domain.errors import ConfigError, Exit, WatcherError

EXAMPLES = ("watcher health", "watcher health --config /etc/watcher/watcher.yaml")

TIMEOUT_S = 5.0
ANSWER_BYTES = 64 * 1024
LOCAL = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (asked, not listened on)
"""Where a daemon that listens on every interface is asked."""


class NoDaemonError(WatcherError):
    """Nobody answers."""

    exit_code = Exit.UNREACHABLE


def health(config: ConfigOption = None) -> None:
    """Ask the daemon on this machine whether it is ready.

    It is asked at http.listen of the file, and needs no key. Exit codes: 0 ready, 1 not ready, 4 nothing answers.
    """
    try:
        file = find_config(config, environ=os.environ)
    except ConfigError:
        file = None
    host, port = listen_address(file, environ=os.environ)
    if not port:
        raise NoDaemonError("http.listen has port 0, any free one, so nobody knows which; set a port")
    host = LOCAL.get(host, host)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz?verbose")
        response = connection.getresponse()
        code, lines = response.status, response.read(ANSWER_BYTES).decode("utf-8", "replace").splitlines()
    except (OSError, http.client.HTTPException) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "no answer"
        where = f"http://{f'[{host}]' if ':' in host else host}:{port} ({reason.lower()})"
        raise NoDaemonError(f"no daemon answers at {where}; is watcher run up?") from None
    finally:
        connection.close()
    if code == http.client.OK:
        put("ready")
        return
    reasons = "; ".join(line.removeprefix("not ok: ") for line in lines)
    if code != http.client.SERVICE_UNAVAILABLE:
        reasons = f"it answers {code}; is clerk-watcher listening there?"
    put(f"not ready: {''.join(each if each.isprintable() else ' ' for each in reasons)}")
    raise typer.Exit(Exit.FAILED)
