"""Finding the configuration file, the variables that replace defaults, and the daemon's address and token."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from watcher.config.document import Document
from watcher.config.files import SECRET_BYTES, FileError
from watcher.domain.errors import ConfigError
from watcher.runtime.units import Address, InvalidValueError, parse_address

VARIABLE = "WATCHER_CONFIG"
SYSTEM_PLACE = Path("/etc/watcher/watcher.yaml")
PLACES = (Path("watcher.yaml"), SYSTEM_PLACE)
STORE_VARIABLE = "WATCHER_STORE_URL"
LISTEN_VARIABLE = "WATCHER_HTTP_LISTEN"
DEFAULTS = {
    STORE_VARIABLE: ("store", "url"),
    LISTEN_VARIABLE: ("http", "listen"),
    "WATCHER_LOG_LEVEL": ("log", "level"),
}
"""The environment variables that replace a key's default. The file takes precedence. Empty variables do not count."""


def find_config(explicit: Path | None, *, environ: Mapping[str, str]) -> Path:
    """Return the file to read: `--config`, else `$WATCHER_CONFIG`, else the first of `PLACES` that exists.

    Raises `ConfigError`, with all places that were tried, if there is no file.
    """
    if explicit is not None:
        return explicit
    if named := environ.get(VARIABLE):
        return Path(named)
    if found := next((place for place in PLACES if os.path.lexists(place)), None):
        return found
    tried = f"--config is not given, ${VARIABLE} is not set, there is no ./{PLACES[0]} and no {SYSTEM_PLACE}"
    raise ConfigError(f"no configuration: {tried}; write watcher.yaml, or name a file with --config")


def daemon_document(file: Path | None, *, environ: Mapping[str, str]) -> Document:
    """Read the configuration file for a command that asks the daemon. Raises `ConfigError` if that fails.

    Problems of values are ignored: secrets and variables that only the daemon needs may be absent.
    """
    document = Document(file=str(file))
    if file is not None:
        try:
            document.open(file, environ=environ)
        except FileError as error:
            raise ConfigError(f"cannot read {file} ({error}); {error.remedy}") from None
    return document


def listen_address(document: Document, *, environ: Mapping[str, str]) -> Address:
    """Return `http.listen` from the file, else from the environment, else the default. Skip invalid addresses."""
    for text in (document.get(DEFAULTS[LISTEN_VARIABLE]), environ.get(LISTEN_VARIABLE)):
        with suppress(InvalidValueError):
            if text and isinstance(text, str):
                return parse_address(text)
    return parse_address("127.0.0.1:8080")


def http_token(document: Document) -> str | None:
    """Return `http.token`, else `http.read_token`, each from its key or its `_file`; `None` if neither can be read."""
    for key in ("token", "read_token"):
        found = document.text(("http", key))
        if not found and (named := document.text(("http", f"{key}_file"))) is not None:
            with suppress(FileError, UnicodeDecodeError):
                found = document.read(Path(document.file).parent / named, limit=SECRET_BYTES).decode().strip()
        if found:
            return found
    return None
