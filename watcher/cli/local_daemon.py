"""The daemon on this machine: its address, and whether it is ready.

This module imports little, because a container runs `watcher health` again and again: no YAML unless the file sets
`http.listen`, and a socket instead of an HTTP client.
"""

import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from watcher.config.files import (
    CONFIG_BYTES,
    DEFAULTS,
    LISTEN_VARIABLE,
    FileError,
    config_files,
    find_config,
    read_file,
)
from watcher.domain.errors import ConfigError, DaemonError
from watcher.runtime.terminal import harmless
from watcher.runtime.units import Address, InvalidValueError, parse_address

LOCAL = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (to connect to, not to listen on)
"""The address to connect to, by the address at which a daemon listens on every interface."""


class NoAnswerError(DaemonError):
    """The failure of a request to which no daemon answered. `error` says why."""

    def __init__(self, url: str, error: Exception) -> None:
        reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or "no answer"
        hint = "is `watcher run` up? Elsewhere: WATCHER_URL=http://host:8080. 401 instead: set WATCHER_TOKEN"
        super().__init__(f"no daemon answers at {url} ({reason.lower()})", hint=hint)


def daemon_address(written: object, *, environ: Mapping[str, str]) -> Address:
    """Return the address where the daemon listens: `written`, which the file has, or the environment's or the default.

    Addresses that are invalid are skipped. Raises `DaemonError` for port 0.
    """
    address = Address("127.0.0.1", 8080)
    for text in (environ.get(LISTEN_VARIABLE), written):
        with suppress(InvalidValueError):
            address = parse_address(str(text or ""))
    if not address.port:
        raise DaemonError("http.listen has port 0, any free one, so nobody knows which; set a port")
    return address


def local_url(address: Address) -> str:
    """Return the URL of a daemon on this machine that listens at `address`."""
    host = LOCAL.get(address.host, address.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{address.port}"


def tell_health(config: Path | str | None = None) -> NoReturn:
    """Print whether the daemon on this machine is ready, and exit.

    A file that cannot be read counts as absent, because a running daemon keeps the last valid configuration.
    """
    try:
        code, answer = _ask_ready(daemon_address(_written_address(config), environ=os.environ))
    except DaemonError as error:
        print(f"{error.label}{error}", file=sys.stderr)  # noqa: T201 (this is the command line)
        sys.exit(error.exit_code)
    reasons = "; ".join(line.removeprefix("not ok: ") for line in answer.decode("utf-8", "replace").splitlines())
    if code not in {200, 503}:
        reasons = f"it answers {code}; is clerk-watcher listening there?"
    print("ready" if code == 200 else f"not ready: {harmless(reasons)}")  # noqa: T201 (the data of a command)
    sys.exit(code != 200)


def _written_address(config: Path | str | None) -> object:
    """Return `http.listen` as the file has it; `None` without a file, or if no line but comments has the word."""
    lines: list[bytes] = []
    with suppress(ConfigError):
        file = find_config(Path(config) if config else None, environ=os.environ)
        for each in config_files(file):
            with suppress(FileError):
                lines += read_file(each, limit=CONFIG_BYTES).splitlines()
        if any(b"listen" in line and not line.lstrip().startswith(b"#") for line in lines):
            from watcher.config.locate import daemon_document  # noqa: PLC0415 (YAML takes longer than all the rest)

            return daemon_document(file, environ=os.environ).get(DEFAULTS[LISTEN_VARIABLE])
    return None


def _ask_ready(address: Address) -> tuple[int, bytes]:
    """Return the status code and the body of the answer to `GET /readyz?verbose`. Wait at most 5 s for each part."""
    url, target = local_url(address), (LOCAL.get(address.host, address.host), address.port)
    try:
        with socket.create_connection(target, timeout=5) as connection:
            head = f"GET /readyz?verbose HTTP/1.0\r\nHost: {url.removeprefix('http://')}\r\n\r\n"
            connection.sendall(head.encode())
            answer, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
        return int(answer.split(maxsplit=2)[1]), body
    except (OSError, ValueError, IndexError) as error:
        raise NoAnswerError(url, error) from None
