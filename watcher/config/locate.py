"""Reading the part of the configuration that a command needs to ask the daemon."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from watcher.config.document import Document
from watcher.config.files import SECRET_BYTES, FileError
from watcher.domain.errors import ConfigError


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
