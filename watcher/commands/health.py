"""`watcher health`: whether the daemon on this machine is ready. Imports little: a container asks every few seconds."""

import http.client
import os
from typing import NamedTuple

import typer

from watcher.commands.options import ConfigOption
from watcher.config.listen import listen_address
from watcher.config.places import find_config
from watcher.errors import ConfigError, Exit, WatcherError
from watcher.output import put
from watcher.units import Address

EXAMPLES = ("watcher health", "watcher health --config /etc/watcher/watcher.yaml")

TIMEOUT_S = 5.0
ANSWER_BYTES = 64 * 1024
LOCAL = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (these are asked, not listened on)
"""Where a daemon that listens on every interface is asked."""


class NoDaemonError(WatcherError):
    """Nobody answers."""

    exit_code = Exit.UNREACHABLE


class NowhereError(WatcherError):
    """The address cannot be known."""

    exit_code = Exit.USAGE


class _Answer(NamedTuple):
    code: int
    lines: list[str]


def health(config: ConfigOption = None) -> None:
    """Ask the daemon on this machine whether it is ready.

    It is asked where http.listen of the file says; that needs no key. Exit codes: 0 ready, 1 not ready, 4 nobody
    answers.
    """
    try:
        file = find_config(config, environ=os.environ)
    except ConfigError:
        file = None
    host, port = listen_address(file, environ=os.environ)
    if port == 0:
        raise NowhereError("http.listen has port 0, which is any free one; give it a port to be asked at")
    answer = _ask(Address(LOCAL.get(host, host), port))
    if answer.code == http.client.OK:
        put("ready")
        return
    put(f"not ready: {_reasons(answer)}")
    raise typer.Exit(Exit.FAILED)


def _ask(address: Address) -> _Answer:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz?verbose")
        response = connection.getresponse()
        return _Answer(response.status, response.read(ANSWER_BYTES).decode("utf-8", "replace").splitlines())
    except (OSError, http.client.HTTPException) as error:
        host = f"[{address.host}]" if ":" in address.host else address.host
        reason = (isinstance(error, OSError) and error.strerror) or "no answer"
        raise NoDaemonError(
            f"no daemon answers at http://{host}:{address.port} ({reason.lower()}); is watcher run up?"
        ) from None
    finally:
        connection.close()


def _reasons(answer: _Answer) -> str:
    if answer.code != http.client.SERVICE_UNAVAILABLE:
        return f"it answers {answer.code}; is it clerk-watcher that listens there?"
    reasons = [line.removeprefix("not ok: ") for line in answer.lines]
    return "".join(each if each.isprintable() else " " for each in "; ".join(reasons))
