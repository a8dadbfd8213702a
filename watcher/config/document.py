"""A configuration file while it is read: its nodes for places, its data for values, and the problems found so far.

The data is plain: mappings, lists, text and `None`. It knows how to fill in `${VAR}`, how to name a place and when not
to show a value, and no rule about any key.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import yaml

from watcher.config.files import Stamp, read_file, stamps_of
from watcher.config.yaml_tree import KNOWN_TAGS, MERGE_TAG, NULL_TAG, Path, compose, place_of
from watcher.domain.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what is wrong, and what would be right.

    `file` is the path as the user gave it, or `$NAME` for a value from the environment. `line` and `column` count
    from 1; `line` is 0 for what has no line. `path` is the key's, such as `watch[0].pipeline`; empty for the file.
    """

    file: str
    line: int
    column: int
    path: str
    problem: str
    remedy: str

    @property
    def place(self) -> str:
        """Return the place as editors and terminals take it."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.path, f"{self.problem}; {self.remedy}") if part)


class ConfigProblemsError(ConfigError):
    """The file cannot be used; `problems` are sorted by line, the message has one line for each and their number.

    `source` is the text of the file: it may hold secrets.
    """

    label = ""

    def __init__(self, problems: Iterable[Problem], *, file: str, source: str = "") -> None:
        """Sort the problems by place and write them out."""
        self.problems = tuple(sorted(problems, key=lambda each: (each.line, each.column, each.path)))
        self.source = source
        count = len(self.problems)
        self.total = f"{count} {'problem' if count == 1 else 'problems'} in {file}"
        super().__init__("\n".join((*map(str, self.problems), self.total)))


_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^{}]*)?\}|(?P<odd>\{))")
_WITHOUT_BRACES = re.compile(r"(?:^|(?<=\s))\$([A-Z_][A-Z0-9_]+)(?=$|[\s/])")
"""As a shell reads it. A password may hold a dollar, too: so only what stands alone."""
_SAFE_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_VARIABLE_NAME = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
"""What no secret looks like, though it may begin with a dollar."""

_WITH_FILE = frozenset({"api_key", "secret", "url", "routing_key", "token", "password"})
"""Keys that have a twin ending in `_file`, but for the store's `url`."""

_SHOWN_LIMIT = 60


class Document:
    """One file. A path leads to a value, which need not be there."""

    def __init__(self, *, file: str, without_secrets: bool = False) -> None:
        """Start empty. `without_secrets` makes absent secrets and unset variables warnings: they are in `excused`."""
        self.file = file
        self.source = ""
        self.problems: list[Problem] = []
        self.data: dict[str, Any] = {}
        self.files: dict[FilePath, Stamp | None] = {}
        self.without_secrets = without_secrets
        self.excused: dict[Path, list[Problem]] = {}
        self._root: yaml.Node = compose("")
        self._reported: set[Path] = set()
        self._hidden: set[Path] = set()
        self._read_from: dict[Path, Path] = {}
        self._environment: dict[Path, str] = {}

    def read(self, path: FilePath, *, limit: int) -> bytes:
        """Return what a file holds, noting in `files` that it was read, or tried. Raises `FileError`."""
        self.files |= stamps_of([path])  # before reading: what is written meanwhile is a change
        return read_file(path, limit=limit)

    def load(self, root: yaml.MappingNode, *, environ: Mapping[str, str]) -> None:
        """Take over a file, filling in variables; those that are not set are problems."""
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
        node: yaml.Node | None = self._root
        for part in path:
            _, node = _child(node, part)
        return str(node.value) if isinstance(node, yaml.ScalarNode) else ""

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
        return self.remark(path, "", remedy="").line

    def mark_reported(self, path: Path) -> None:
        """Note that nothing more need be said of this value."""
        self._reported.add(path)

    def report(self, path: Path, problem: str, *, remedy: str, key: bool = False, block: bool = False) -> None:
        """Add a problem, at the value or at its `key`. `block` names the block around it instead of the key.

        Of a value with a problem nothing more is reported; behind a key with one the value may have its own.
        """
        if not key:
            self.mark_reported(path)
        self.problems.append(self.remark(path, problem, remedy=remedy, key=key, block=block))

    def report_file(self, problem: str, *, remedy: str, place: tuple[int, int] = (0, 0), path: Path = ()) -> None:
        """Add a problem of the file as a whole, or at a place in it."""
        self.problems.append(Problem(self.file, *place, write_path(path), problem, remedy))

    def report_absent(self, path: Path, problem: str, *, remedy: str) -> None:
        """Report a secret, or a variable, that is not there; it is excused where secrets need not be."""
        if self.without_secrets:
            self.excused.setdefault(path, []).append(self.remark(path, problem, remedy=remedy))
        else:
            self.report(path, problem, remedy=remedy)

    def remark(self, path: Path, problem: str, *, remedy: str, key: bool = False, block: bool = False) -> Problem:
        """Return what is to be said of a value that can be used. `key` and `block` are as for `report`."""
        shown = next(
            (self._read_from[path[:end]] for end in range(len(path) + 1) if path[:end] in self._read_from), path
        )
        if variable := self._environment.get(path):
            return Problem(f"${variable}", 0, 0, write_path(shown), problem, remedy)
        at = write_path(shown[:-1] if block else shown)
        return Problem(self.file, *self._place(shown, key=key), at, problem, remedy)

    def is_in_file(self, path: Path) -> bool:
        """Return whether the file itself gives this value."""
        return self.get(path) is not None and path not in self._environment

    def subject(self, path: Path) -> str:
        """Return how to speak of the value there: quoted and cut, or not at all."""
        value = self.get(path)
        if self.is_hidden(path) or not isinstance(value, str):
            return "the filled-in value"
        return quoted(value)

    def _place(self, path: Path, *, key: bool) -> tuple[int, int]:
        """Return where a value or its key is; for what is not there, the key of the block that lacks it."""
        name = value = self._root
        for part in path:
            found, inner = _child(value, part)
            if found is None or inner is None:
                key = True
                break
            name, value = found, inner
        return place_of(name if key else value)

    def _plain(self, node: yaml.Node, path: Path, environ: Mapping[str, str]) -> Any:
        if node.tag not in KNOWN_TAGS:
            self.report(path, "has a tag (a word after !) that means nothing here", remedy="remove the tag")
        if isinstance(node, yaml.ScalarNode):
            value = None if node.tag == NULL_TAG else node.value
            return self._filled(value, path, environ) if value and "$" in value else value
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, index), environ) for index, item in enumerate(node.value)]
        self._clean(node, path)
        return {key.value: self._plain(value, (*path, key.value), environ) for key, value in node.value}

    def _clean(self, node: yaml.Node, path: Path) -> None:
        """Leave in a mapping each key once, with those that it merges."""
        entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                remedy = "write keys as plain words; quote a value that begins with {"
                self.report_file("a key that is not text", remedy=remedy, place=place_of(key))
            elif key.tag == MERGE_TAG:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif (first := entries.setdefault(key.value, (key, value))[0]) is not key:
                problem = f"given twice, first at line {place_of(first)[0]}"
                self.report_file(problem, remedy="remove one of them", place=place_of(key), path=(*path, key.value))
        for source in merged:
            if isinstance(source, yaml.MappingNode):
                self._clean(source, path)
                entries = {key.value: (key, value) for key, value in source.value} | entries
            else:
                problem = "merges something that has no keys"
                self.report_file(problem, remedy="write <<: *name", place=place_of(source))
        node.value = list(entries.values())

    def _filled(self, text: str, path: Path, environ: Mapping[str, str]) -> str:
        """Return a value with its variables filled in. As in a shell, `:-` counts an empty one as missing."""
        reported: set[str] = set()

        def value_of(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            if match["dollar"] is None:
                self._hidden.add(path)
            if match["odd"]:
                remedy = "write ${NAME} or ${NAME:-default}; $$ is a dollar"
                self.report(path, "holds a ${ that begins no variable", remedy=remedy)
            elif name and default is None and name not in environ and name not in reported:
                reported.add(name)
                self.report_absent(path, f"${{{name}}} is not set", remedy=_how_to_set(name, path))
            if name is None:
                return match["dollar"] or match[0]
            return environ.get(name) or (default or "").removeprefix(":-")

        filled = _VARIABLE.sub(value_of, text)
        if path not in self._reported and (bare := _WITHOUT_BRACES.search(text)):
            name = bare[1] if bare[1] in environ or _VARIABLE_NAME.fullmatch(bare[1]) else "NAME"
            self.report(path, f"${name} is not filled in without braces", remedy=f"write ${{{name}}}, or $${name}")
        return filled


def _how_to_set(name: str, path: Path) -> str:
    if path[-1] in _WITH_FILE and path != ("store", "url"):
        return f"export it, or use {path[-1]}_file: /run/secrets/{name.lower()}"
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


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Return the key (an item stands for its own) and the value of a child."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), (None, None))
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None, None
