"""Where a daemon listens, read from its file without caring for anything else in it.

A health check asks often, from a place with neither keys nor secrets; the daemon itself has checked the file.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from watcher.config.document import Document
from watcher.config.files import CONFIG_BYTES, FileError
from watcher.config.locate import DEFAULTS, LISTEN_VARIABLE
from watcher.config.yaml_tree import BadYamlError, compose, decode
from watcher.runtime.units import Address, InvalidValueError, parse_address

DEFAULT_LISTEN = "127.0.0.1:8080"
_SQLITE = "sqlite:///"


def listen_address(file: Path | None, *, environ: Mapping[str, str]) -> Address:
    """Return `http.listen` of the file, else of the environment, else the default.

    A file that cannot be read, or a value that is none, counts as not there: the daemon may run on from before.
    """
    document = Document(file=str(file))
    if file is not None:
        with suppress(FileError, BadYamlError):
            document.load(compose(decode(document.read(file, limit=CONFIG_BYTES))), environ=environ)
    for text in (document.get(DEFAULTS[LISTEN_VARIABLE]), environ.get(LISTEN_VARIABLE)):
        with suppress(InvalidValueError):
            if text and isinstance(text, str):
                return parse_address(text)
    return parse_address(DEFAULT_LISTEN)


def database_of(url: str) -> Path | None:
    """Return the file a `store.url` names, if it names one."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None
