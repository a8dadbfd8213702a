"""Secrets that stand in files of their own: of `api_key` and `api_key_file` exactly one is given (SPEC 3)."""

import os
from collections.abc import Iterator
from pathlib import Path as FilePath

from watcher.config.document import Document, quoted
from watcher.config.models import SINK_KINDS, AccountSettings
from watcher.config.tree import Path
from watcher.fields import file_twins

_LINES = frozenset({"secret"})
"""Keys that may hold several: their file has one a line."""


class _UnreadableError(Exception):
    """A file that gives no secret: what is wrong, what would be right."""

    def __init__(self, problem: str, *, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def read_twins(document: Document, *, directory: FilePath) -> None:
    """Put in the secrets that files hold. Relative paths start at `directory`, that of the configuration file."""
    for path in _secrets(document):
        twin = (*path[:-1], f"{path[-1]}_file")
        if document.get(twin) is None:
            continue
        if document.get(path) is not None:
            problem = f"both {path[-1]} and {twin[-1]} are given"
            document.report(twin, problem, remedy="keep one", key=True, block=True)
        else:
            _read(document, path, twin, directory)


def _secrets(document: Document) -> Iterator[Path]:
    for name in document.table(("accounts",)):
        yield from (("accounts", name, key) for key in file_twins(AccountSettings))
    for name in document.table(("sinks",)):
        kind = SINK_KINDS.get(document.text(("sinks", name, "type")) or "")
        yield from (("sinks", name, key) for key in (file_twins(kind) if kind else ()))


def _read(document: Document, path: Path, twin: Path, directory: FilePath) -> None:
    given = document.text(twin)
    if given is None:
        document.tell(path)
        return
    shown = "this file" if document.is_hidden(twin) or not given.startswith(("/", "./", "../")) else quoted(given)[1:-1]
    try:
        text = _content(document, directory / given, shown=shown)
    except _UnreadableError as error:
        document.report(twin, error.problem, remedy=error.remedy)
        document.tell(path)
    else:
        document.put_from_file(path, _lines(text) if path[-1] in _LINES else text)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _content(document: Document, file: FilePath, *, shown: str) -> str:
    """Return what a file holds without its last line end. Raises `_UnreadableError`."""
    try:
        text = document.read(file).decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _UnreadableError(f"{shown} is not UTF-8 text", remedy="write the secret into it as text") from None
    except ValueError:
        raise _UnreadableError(f"{shown} is no path", remedy="write a path such as /run/secrets/name") from None
    except OSError as error:
        raise _UnreadableError(f"cannot read {shown} ({_why(error)})", remedy=_remedy(error)) from None
    if not text.strip():
        raise _UnreadableError(f"{shown} is empty", remedy="write the secret into it")
    return text


def _why(error: OSError) -> str:
    reason = (error.strerror or "I/O error").lower()
    return f"{reason}, running as uid {os.geteuid()}"


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "chmod 0440 and the right group"
    return "mount it there, or correct the path"
