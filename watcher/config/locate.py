"""Reading the part of the configuration that a command needs to ask the daemon."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from watcher.config.document import ConfigProblemsError, Document
from watcher.config.files import SECRET_BYTES, FileError


def daemon_document(file: Path | None, *, environ: Mapping[str, str]) -> Document:
    """Read the configuration for a command that asks the daemon. Raises `ConfigProblemsError` if nothing can be read.

    Problems of values are ignored: secrets and variables that only the daemon needs may be absent. So are those files
    of a folder that cannot be parsed, while the daemon goes on with its old configuration.
    """
    document = Document(file=str(file))
    if file is not None and not document.open(file, environ=environ) and not document.data:
        raise ConfigProblemsError(document.problems, file=document.file, sources=document.sources)
    return document


def http_token(document: Document) -> str | None:
    """Return `http.token`, else `http.read_token`, each from its key or its `_file`; `None` if neither can be read."""
    for key in ("token", "read_token"):
        found = document.text(("http", key))
        if not found and (named := document.text(("http", f"{key}_file"))) is not None:
            with suppress(FileError, UnicodeDecodeError):
                found = document.read(document.directory / named, limit=SECRET_BYTES).decode().strip()
        if found:
            return found
    return None
