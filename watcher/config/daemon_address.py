"""Where a daemon listens, read from its file without caring for anything else in it.

A health check asks often, from a place with neither keys nor secrets; the daemon itself has checked the file.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from watcher.config.file_stamp import CONFIG_BYTES, FileError, Files
from watcher.config.interpolation import fill
from watcher.config.locate import DEFAULTS, LISTEN_VARIABLE
from watcher.config.yaml_errors import BadYamlError, decode
from watcher.config.yaml_tree import Node, Scalar, Table, compose
from watcher.runtime.units import Address, InvalidValueError, parse_address

DEFAULT_LISTEN = "127.0.0.1:8080"
_SQLITE = "sqlite:///"


def listen_address(file: Path | None, *, environ: Mapping[str, str]) -> Address:
    """Return `http.listen` of the file, else of the environment, else the default.

    A file that cannot be read, or a value that is none, counts as not there: the daemon may run on from before.
    """
    root = None if file is None else _root(file)
    for text in (_written(root, DEFAULTS[LISTEN_VARIABLE], environ=environ), environ.get(LISTEN_VARIABLE)):
        with suppress(InvalidValueError):
            if text:
                return parse_address(text)
    return parse_address(DEFAULT_LISTEN)


def _root(file: Path) -> Node | None:
    try:
        return compose(decode(Files().read(file, limit=CONFIG_BYTES, pipe=True)), report=lambda *_: None)
    except (FileError, BadYamlError):
        return None


def _written(node: Node | None, key: tuple[str, ...], *, environ: Mapping[str, str]) -> str | None:
    """Return what stands at the key, with its variables filled in."""
    for part in key:
        entry = node.entries.get(part) if isinstance(node, Table) else None
        node = None if entry is None else entry.value
    if not isinstance(node, Scalar) or node.text is None:
        return None
    return fill(node.text, environ=environ).text


def database_of(url: str) -> Path | None:
    """Return the file a `store.url` names, if it names one."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None
