"""Where a daemon listens, read from its file without caring for anything else in it.

A health check asks often, from a place with neither keys nor secrets; the daemon itself has judged the file.
"""

from collections.abc import Mapping
from pathlib import Path

from watcher.config.places import LISTEN_VARIABLE
from watcher.config.syntax import BadYamlError, decode
from watcher.config.tree import Scalar, Table, compose
from watcher.config.variables import fill
from watcher.units import Address, UnfitError, parse_address

DEFAULT = "127.0.0.1:8080"


def listen_address(file: Path | None, *, environ: Mapping[str, str]) -> Address:
    """Return the address: of the file, else of the environment, else the default.

    A file that cannot be read, or an address that is none, counts as not there: the daemon may run on from before.
    """
    candidates = (file and _written(file, environ=environ), environ.get(LISTEN_VARIABLE), DEFAULT)
    return next(address for text in candidates if text and (address := _parsed(text)))


def _written(file: Path, *, environ: Mapping[str, str]) -> str | None:
    """Return what stands at `http.listen`, with its variables filled in."""
    try:
        root = compose(decode(file.read_bytes()), report=lambda *_: None)
    except (OSError, BadYamlError):
        return None
    http = root.entries.get("http") if isinstance(root, Table) else None
    listen = http.value.entries.get("listen") if http and isinstance(http.value, Table) else None
    if listen is None or not isinstance(listen.value, Scalar) or listen.value.text is None:
        return None
    return fill(listen.value.text, environ=environ).text


def _parsed(text: str) -> Address | None:
    try:
        return parse_address(text)
    except UnfitError:
        return None
