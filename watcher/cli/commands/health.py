"""`watcher health`: whether the daemon on this machine is ready. Imports little: a container asks every few seconds."""

import http.client
import os
from typing import NamedTuple

import typer

from watcher.cli.commands.options import ConfigOption
from watcher.cli.stdio import put
from watcher.config.daemon_address import DaemonAddress, daemon_address
from watcher.config.locate import find_config
from watcher.domain.errors import ConfigError, Exit, WatcherError
from watcher.runtime.units import Address
from watcher.store.database_file import noted_address

EXAMPLES = ("watcher health", "watcher health --config /etc/watcher/watcher.yaml")

TIMEOUT_S = 5.0
ANSWER_BYTES = 64 * 1024
LOCAL = {"": ("127.0.0.1", "::1"), "0.0.0.0": ("127.0.0.1",), "::": ("::1",)}  # noqa: S104 (asked, not listened on)
"""Where a daemon that listens on every interface is asked."""


class NoDaemonError(WatcherError):
    """Nobody answers."""

    exit_code = Exit.UNREACHABLE


class _Answer(NamedTuple):
    code: int
    lines: list[str]


def health(config: ConfigOption = None) -> None:
    """Ask the daemon on this machine whether it is ready.

    The daemon notes its address beside its SQLite file; if nothing answers there, http.listen of the file is tried. It
    needs no key. Exit codes: 0 ready, 1 not ready, 4 nothing answers.
    """
    try:
        file = find_config(config, environ=os.environ)
    except ConfigError:
        file = None
    answer = _ask_one_of(_addresses(daemon_address(file, environ=os.environ)))
    if answer.code == http.client.OK:
        put("ready")
        return
    put(f"not ready: {_reasons(answer)}")
    raise typer.Exit(Exit.FAILED)


def _addresses(daemon: DaemonAddress) -> list[Address]:
    """Return where to ask, first where the daemon noted that it listens: its file may be another by now."""
    noted = None if daemon.database is None else noted_address(daemon.database)
    listens = [each for each in (noted, daemon.listen) if each and each.port]
    if not listens:
        if daemon.database is None:
            raise NoDaemonError("http.listen has port 0, any free one, and only a SQLite file says which; set a port")
        lock = f"{daemon.database}.lock"
        raise NoDaemonError(f"http.listen has port 0, any free one, and {lock} does not say which; is watcher run up?")
    return list(dict.fromkeys(Address(host, port) for name, port in listens for host in LOCAL.get(name, (name,))))


def _ask_one_of(addresses: list[Address]) -> _Answer:
    """Return the first answer there is."""
    silent = []
    for address in addresses:
        try:
            return _ask(address)
        except (OSError, http.client.HTTPException) as error:
            silent.append(_silence(address, error))
    raise NoDaemonError(f"no daemon answers at {' or '.join(silent)}; is watcher run up?")


def _ask(address: Address) -> _Answer:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz?verbose")
        response = connection.getresponse()
        return _Answer(response.status, response.read(ANSWER_BYTES).decode("utf-8", "replace").splitlines())
    finally:
        connection.close()


def _silence(address: Address, error: Exception) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    reason = (isinstance(error, OSError) and error.strerror) or "no answer"
    return f"http://{host}:{address.port} ({reason.lower()})"


def _reasons(answer: _Answer) -> str:
    if answer.code != http.client.SERVICE_UNAVAILABLE:
        return f"it answers {answer.code}; is clerk-watcher listening there?"
    reasons = [line.removeprefix("not ok: ") for line in answer.lines]
    return "".join(each if each.isprintable() else " " for each in "; ".join(reasons))
