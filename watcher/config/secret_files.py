"""Secrets that stand in files of their own: of `api_key` and `api_key_file` exactly one is given.

Where secrets need not be there, something stands in for those that are absent, so that the rest can be checked.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from watcher.config.document import Document, quoted, write_path
from watcher.config.files import SECRET_BYTES, FileError
from watcher.config.models import AccountSettings
from watcher.config.store_settings import StoreSettings
from watcher.config.yaml_tree import Path
from watcher.runtime.settings import file_twins
from watcher.sinks.registry import SINK_KINDS

_LINES = frozenset({"secret"})
"""Keys that may hold several: their file has one a line."""

_PATH = re.compile(
    r"(?:/|\.\.?/).*|\.\.?|\$\{\w+(?::-[a-z/_]+)?\}(?:/.*)?|[A-Za-z_-]+(?:\.[a-z]+)*(?:/[A-Za-z_-]+(?:\.[a-z]+)*)*"
)
"""How a path is written, or the name of a file without digits. Anything else may be a secret in the wrong place."""

_PATH_LIMIT = 1024

_STAND_INS: Mapping[str | int, str] = {
    "secret": "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw",
    "token": "xoxb-absent",
    "routing_key": "0" * 32,
    "channel": "C0000000000",
    "headers": "absent",
    "labels": "absent",
    "events": "account.*",
    "schedule": "1s",
    "by": "account",
    "overdue_after": "1h",
    "silent": "6h",
    "consecutive": "3",
    "rate": "20%",
    "from": "2000-01-01T00:00:00Z",
    "until": "2000-01-02T00:00:00Z",
}
"""What will do for a key, or in it."""


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
        document.report_absent(path, f"cannot read {_shown(document, path)} ({error})", remedy=error.remedy)
        if path in document.excused:
            stand_in(document, path)
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
    if twin in document.excused:
        return
    if data is not None and (value := _value(document, data, twin, is_list=path[-1] in _LINES)):
        document.put_from_file(path, value)
    else:
        document.mark_reported(path)


def _value(document: Document, data: bytes, twin: Path, *, is_list: bool) -> str | list[str] | None:
    """Return the secret, or the secrets, in a file; `None` once it is reported why there are none."""
    shown = _shown(document, twin)
    try:
        text = data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        document.report(twin, f"{shown} is not UTF-8 text", remedy="write the secret into it as text")
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        document.report(twin, f"{shown} is empty", remedy="write the secret into it")
    elif not is_list and re.search(r"[\r\n]", text):
        document.report(twin, f"{shown} holds more than one line", remedy="write the secret alone into it")
    else:
        return lines if is_list else text
    return None


def _shown(document: Document, twin: Path) -> str:
    """Return how to speak of the file a twin names: as it is written, or not at all if that may be a secret."""
    written = document.written(twin)
    return quoted(written, limit=_PATH_LIMIT)[1:-1] if _PATH.fullmatch(written) else "this file"


def stand_in(document: Document, path: Path) -> None:
    """Put something in the place of a value that is excused; nothing where a default will do."""
    if "tls" in path:  # a key file needs its certificate, and the other way round
        document.table(path[:2]).pop("tls", None)
        return
    if str(path[-1]).endswith("_file"):
        document.table(path[:-1]).pop(str(path[-1]), None)
        path = (*path[:-1], str(path[-1]).removesuffix("_file"))
    block: Any = document.get(path[:-1])
    if block is not None:
        block[path[-1]] = _value_for(document, path)


def _value_for(document: Document, path: Path) -> str | None:
    match path:
        case ("accounts", _, "api_key") | ("store", "password"):
            return f"absent:{write_path(path)}"  # one key under two accounts is a mistake
        case ("sinks", name, "url"):
            is_apprise = document.get(("sinks", name, "type")) == "apprise"
            return "json://absent.invalid" if is_apprise else "https://absent.invalid/"
        case ("watch", _, "pipeline" | "executions", *_) | (*_, "pipelines", int()):
            return str(uuid5(NAMESPACE_URL, write_path(path)))
        case (*_, "match", "accounts" | "sinks" as named, int()):
            return next(iter(document.table((named,))), None)
        case (*_, "headers" | "labels"):  # the whole block
            return None
    return next((_STAND_INS[part] for part in reversed(path) if part in _STAND_INS), None)
