"""Secrets that stand in files of their own: of `api_key` and `api_key_file` exactly one is given (SPEC 3)."""

import re
from collections.abc import Iterator
from pathlib import Path as FilePath

from watcher.config.document import Document, quoted
from watcher.config.file_stamp import SECRET_BYTES, Cause, FileError
from watcher.config.models import AccountSettings
from watcher.config.store_settings import StoreSettings
from watcher.config.yaml_tree import Path
from watcher.delivery.sinks.registry import SINK_KINDS
from watcher.runtime.settings import file_twins

_LINES = frozenset({"secret"})
"""Keys that may hold several: their file has one a line."""

_PATH = re.compile(r"/|\.\.?(?:/|$)|\$\{\w+\}(?:/|$)")
"""How a path begins, or a variable that stands for one or its directory. Anything else may be a secret."""

_NAME = re.compile(r"[A-Za-z_-]+(?:\.[a-z]+)*(?:/[A-Za-z_-]+(?:\.[a-z]+)*)*")
"""A file's name, perhaps in directories, and no secret: these have digits."""

_PATH_LIMIT = 1024

FILE_REMEDIES = {
    Cause.MISSING: "mount it there, or correct the path",
    Cause.DENIED: "chmod 0440 and the right group",
    Cause.DIRECTORY: "name a file; Docker makes a directory where the file of a mount is missing",
    Cause.NOT_REGULAR: "name a regular file",
    Cause.TOO_LARGE: "name a file that holds this alone",
    Cause.HANGS: "see why its file system does not answer",
    Cause.OTHER: "see what is wrong with its file system",
}
"""What helps where a file cannot be read; `NO_PATH` depends on what the file is."""


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


def read_file(document: Document, path: Path, *, directory: FilePath, limit: int) -> bytes | None:
    """Return what the file named at `path` holds; `None` once it is reported why that cannot be had."""
    given = document.text(path)
    if given is None:
        return None
    try:
        return document.read(directory / given, limit=limit)
    except FileError as error:
        if error.cause is Cause.NO_PATH:
            remedy = "write a path such as /run/secrets/name"
            _refuse(document, path, "{} is no path", remedy=remedy, directory=directory)
        else:
            problem = f"cannot read {{}} ({error})"
            _refuse(document, path, problem, remedy=FILE_REMEDIES[error.cause], directory=directory)
    return None


def _secrets(document: Document) -> Iterator[Path]:
    for name in document.table(("accounts",)):
        yield from (("accounts", name, key) for key in file_twins(AccountSettings))
    for name in document.table(("sinks",)):
        kind = SINK_KINDS.get(document.text(("sinks", name, "type")) or "")
        yield from (("sinks", name, key) for key in (file_twins(kind) if kind else ()))
    yield from (("store", key) for key in file_twins(StoreSettings))


def _read(document: Document, path: Path, twin: Path, directory: FilePath) -> None:
    data = read_file(document, twin, directory=directory, limit=SECRET_BYTES)
    if data is None:
        document.mark_reported(path)
        return
    try:
        text = data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        _refuse(document, twin, "{} is not UTF-8 text", remedy="write the secret into it as text", directory=directory)
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            _refuse(document, twin, "{} is empty", remedy="write the secret into it", directory=directory)
        elif path[-1] not in _LINES and re.search(r"[\r\n]", text):
            remedy = "write the secret alone into it"
            _refuse(document, twin, "{} holds more than one line", remedy=remedy, directory=directory)
        else:
            document.put_from_file(path, lines if path[-1] in _LINES else text)
            return
    document.mark_reported(path)


def _refuse(document: Document, twin: Path, problem: str, *, remedy: str, directory: FilePath) -> None:
    document.report(twin, problem.format(_shown(document, twin, directory)), remedy=remedy)


def _shown(document: Document, twin: Path, directory: FilePath) -> str:
    """Return how to speak of the file a twin names: in full, as it is written, or not at all if it may be a secret."""
    given, written = document.text(twin) or "", document.written(twin)
    place = directory / FilePath(given).parent
    is_path = bool(_PATH.match(written) or _NAME.fullmatch(written))
    if is_path and not document.is_hidden(twin):
        return quoted(given, limit=_PATH_LIMIT)[1:-1]
    if place not in {directory, FilePath("/")} and document.reader.is_directory(place):  # which is no chance
        return quoted(given, limit=_PATH_LIMIT)[1:-1]
    return quoted(written, limit=_PATH_LIMIT)[1:-1] if is_path else f"this file in {directory.absolute()}"
