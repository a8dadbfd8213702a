"""A configuration file while it is read: its tree for places, its data for values, and the problems found so far.

The data is plain: mappings, lists, text and `None`. It knows how to name a place and when not to show a value, and
no rule about any key.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from watcher.config.file_stamp import HANGS, Cause, FileError, Files, Stamp
from watcher.config.interpolation import fill
from watcher.config.problems import Problem
from watcher.config.yaml_tree import Items, Node, Path, Scalar, Table

_SAFE_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHOWN_LIMIT = 60


class Document:
    """One file. A path leads to a value: `("watch", 0, "pipeline")`; it need not be there."""

    def __init__(self, *, file: str, files: Files | None = None) -> None:
        """Start empty. `files` reads what is read."""
        self.file = file
        self.reader = files or Files()
        self.source = ""
        self.problems: list[Problem] = []
        self.data: dict[str, Any] = {}
        self.files: dict[FilePath, Stamp | None] = {}
        self._root: Table = Table({}, 1, 1)
        self._reported: set[Path] = set()
        self._hidden: set[Path] = set()
        self._read_from: dict[Path, Path] = {}
        self._environment: dict[Path, str] = {}

    def read(self, path: FilePath, *, limit: int, pipe: bool = False) -> bytes:
        """Return what a file holds, noting in `files` that it was read, or tried. Raises `FileError`."""
        hurried = HANGS in self.files.values()
        # Before reading: what is written meanwhile is a change.
        self.files |= self.reader.stamps([path], hurried=hurried)
        if self.files[path] == HANGS:
            raise FileError(Cause.HANGS, "no answer")
        try:
            return self.reader.read(path, limit=limit, pipe=pipe, hurried=hurried)
        except FileError as error:
            if error.cause is Cause.HANGS:
                self.files[path] = HANGS  # so that it is another file once it answers
            raise

    def load(self, root: Table, *, environ: Mapping[str, str]) -> None:
        """Take over a tree, filling in variables; those that are not set are problems."""
        self._root = root
        self.data = self._plain(root, (), environ)

    def get(self, path: Path) -> Any:
        """Return what is there, or `None`."""
        value: Any = self.data
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            else:
                is_item = isinstance(value, list) and isinstance(part, int) and part < len(value)
                value = value[part] if is_item else None
        return value

    def text(self, path: Path) -> str | None:
        """Return the text there, or `None` if there is none that can be relied on."""
        value = self.get(path)
        return value if isinstance(value, str) and not self.is_reported(path) else None

    def written(self, path: Path) -> str:
        """Return the text there as it stands in the file, its variables not filled in."""
        node: Node | None = self._root
        for part in path:
            found = None if node is None else _step(node, part)
            node = None if found is None else found[1]
        return (isinstance(node, Scalar) and node.text) or ""

    def table(self, path: Path) -> dict[str, Any]:
        """Return the mapping there, or an empty one."""
        value = self.get(path)
        return value if isinstance(value, dict) else {}

    def items(self, path: Path) -> list[Any]:
        """Return the list there, or an empty one."""
        value = self.get(path)
        return value if isinstance(value, list) else []

    def put_from_file(self, path: Path, value: object) -> None:
        """Set a value that was read from the file its twin names; the twin is where its problems are."""
        self.table(path[:-1])[str(path[-1])] = value
        self._read_from[path] = (*path[:-1], f"{path[-1]}_file")

    def put_from_environment(self, path: Path, value: str, *, variable: str) -> None:
        """Set a value unless the file has it."""
        block = self.data.get(str(path[0]))
        if block is None:
            block = self.data[str(path[0])] = {}
        if isinstance(block, dict) and block.get(path[1]) is None:
            block[path[1]] = value
            self._environment[path] = variable

    def is_reported(self, path: Path) -> bool:
        """Return whether a problem with this value, or with one around it, is known."""
        return bool(self._reported) and any(path[:end] in self._reported for end in range(1, len(path) + 1))

    def is_hidden(self, path: Path) -> bool:
        """Return whether nobody may see the value: a variable stands in it, or it was read from a secret's file."""
        return any(path[:end] in self._hidden or path[:end] in self._read_from for end in range(1, len(path) + 1))

    def line(self, path: Path) -> int:
        """Return the line of a value."""
        return self._place(self._shown(path), key=False).line

    def mark_reported(self, path: Path) -> None:
        """Note that nothing more need be said of this value."""
        self._reported.add(path)

    def report(self, path: Path, problem: str, *, remedy: str, key: bool = False, block: bool = False) -> None:
        """Add a problem, at the value or at its `key`. `block` names the block around it instead of the key.

        Of a value with a problem nothing more is reported; behind a key with one the value may have its own.
        """
        if not key:
            self.mark_reported(path)
        shown = self._shown(path)
        self.report_at(self._place(shown, key=key), shown[:-1] if block else shown, problem, remedy)

    def remark(self, path: Path, problem: str, *, remedy: str, key: bool = False, block: bool = False) -> Problem:
        """Return what is to be said of a value that can be used. `key` and `block` are as for `report`."""
        shown = self._shown(path)
        return self._problem(self._place(shown, key=key), shown[:-1] if block else shown, problem, remedy)

    def is_in_file(self, path: Path) -> bool:
        """Return whether the file itself gives this value."""
        return self.get(path) is not None and path not in self._environment

    def report_at(self, place: Scalar, path: Path, problem: str, remedy: str) -> None:
        """Add a problem at a place of the file (`line` 0: the whole file)."""
        self.problems.append(self._problem(place, path, problem, remedy))

    def subject(self, path: Path) -> str:
        """Return how to speak of the value there: quoted and cut, or not at all."""
        value = self.get(path)
        if self.is_hidden(path) or not isinstance(value, str):
            return "the filled-in value"
        return quoted(value)

    def _problem(self, place: Scalar, path: Path, problem: str, remedy: str) -> Problem:
        variable = self._environment.get(path)
        file, line, column = (f"${variable}", 0, 0) if variable else (self.file, place.line, place.column)
        return Problem(file, line, column, write_path(path), problem, remedy)

    def _shown(self, path: Path) -> Path:
        for end in range(1, len(path) + 1):
            if path[:end] in self._read_from:
                return self._read_from[path[:end]]
        return path

    def _place(self, path: Path, *, key: bool) -> Scalar:
        """Return where a value or its key is; for what is not there, the key of the block that lacks it."""
        spot: Node = self._root
        name: Node = self._root
        for part in path:
            found = _step(spot, part)
            if found is None:
                key = True
                break
            name, spot = found
        place = name if key else spot
        return Scalar(None, place.line, place.column)

    def _plain(self, node: Node, path: Path, environ: Mapping[str, str]) -> Any:
        if isinstance(node, Scalar):
            return self._filled(node.text, path, environ) if node.text and "$" in node.text else node.text
        if isinstance(node, Items):
            return [self._plain(item, (*path, index), environ) for index, item in enumerate(node.items)]
        return {name: self._plain(entry.value, (*path, name), environ) for name, entry in node.entries.items()}

    def _filled(self, text: str, path: Path, environ: Mapping[str, str]) -> str:
        filled = fill(text, environ=environ)
        if filled.used:
            self._hidden.add(path)
        for name in filled.unset:
            self.report(path, f"${{{name}}} is not set", remedy=_how_to_set(name, path))
        if filled.malformed:
            remedy = "write ${NAME} or ${NAME:-default}; $$ is a dollar"
            self.report(path, "holds a ${ that begins no variable", remedy=remedy)
        return filled.text


def _how_to_set(name: str, path: Path) -> str:
    match path:  # those that have a twin ending in `_file`
        case (
            ("accounts", _, "api_key" as key)
            | ("sinks", _, "secret" | "url" | "routing_key" as key)
            | ("store", "password" as key)
        ):
            return f"export it, or use {key}_file: /run/secrets/{name.lower()}"
    return f"export it, or write ${{{name}:-default}}"


def quoted(text: str, *, limit: int = _SHOWN_LIMIT) -> str:
    """Return a text as it may be shown: in quotes, on one line, not too long."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def is_safe_key(part: str | int) -> bool:
    """Return whether a key looks like one: anything else may be a secret in the wrong place."""
    return isinstance(part, int) or _SAFE_KEY.fullmatch(part) is not None


def write_path(path: Path) -> str:
    """Return a path as people write it: `watch[0].pipeline`. A key that does not look like one becomes `…`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part if is_safe_key(part) else '…'}" for part in path)
    return "".join(parts).removeprefix(".")


def _step(node: Node, part: str | int) -> tuple[Node, Node] | None:
    """Return the key (an item stands for its own) and the value of a child."""
    if isinstance(node, Table) and part in node.entries:
        entry = node.entries[str(part)]
        return entry.key, entry.value
    if isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
        return node.items[part], node.items[part]
    return None
