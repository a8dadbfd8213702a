"""A configuration while it is read: its YAML nodes, its data, and the problems found so far.

The nodes know their file, line and column. The data consists of mappings, lists, text and `None`; the models turn text
into numbers.
"""

import io
import json
import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from watcher.config.files import CONFIG_BYTES, SUFFIX, FileError, Stamp, config_files, read_file, stamps_of
from watcher.domain.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""The keys and indexes that lead to a value: `("watch", 0, "pipeline")`."""


Place = tuple[str, int, int]
"""A file, a line and a column, as in `ConfigProblem`."""


class ConfigProblem(NamedTuple):
    """One mistake in the configuration: its place, the problem, and the remedy.

    `file` is the path of the file, beginning as the user gave it, or `$NAME` for a value from the environment. `line`
    and `column` count from 1; `line` is 0 if the problem has no line. `path` names the key, such as
    `watch[0].pipeline`: an entry is counted in its file. `path` is empty for a problem of the whole file.
    """

    file: str
    line: int
    column: int
    path: str
    problem: str
    remedy: str

    @property
    def place(self) -> str:
        """Return the place in the form that editors and terminals recognize."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.path, f"{self.problem}; {self.remedy}") if part)


class ConfigProblemsError(ConfigError):
    """The error for a file or folder with problems. Its text has a line for each, sorted by place, and their number.

    `sources` has the text of each file, which may hold secrets, by the file's name in the problems.
    """

    label = ""

    def __init__(self, problems: Iterable[ConfigProblem], *, file: str, sources: Mapping[str, str]) -> None:
        self.problems = tuple(sorted(problems))
        self.sources = sources
        count = len(self.problems)
        self.total = f"{count} {'problem' if count == 1 else 'problems'} in {file}"
        super().__init__("\n".join((*map(str, self.problems), self.total)))


_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^{}]*)?\}|(?P<odd>\{))")
_WITHOUT_BRACES = re.compile(r"(?:^|(?<=[\s/=:]))\$[A-Z_][A-Z0-9_]+(?=$|[\s/@:&])")
"""A variable in the form `$NAME`. It must stand alone or be a part of a URL: a password may hold a dollar, too."""
_LIKE_SECRET = re.compile(
    r"://[^/]*(?:@|/\S)|\b(?:xox.-|xapp-|whsec_|sk_|sk-|gh._)|(?=\S*\d)(?=\S*[A-Za-z])[\w+/=-]{20,}"
)
_LIKE_ID = re.compile(r"[0-9A-Fa-f]+(?:-[0-9A-Fa-f]+){3,}")
_SAFE_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_WITH_FILE = frozenset({"api_key", "secret", "url", "routing_key", "token", "read_token", "password"})
"""The keys that have a twin, such as `token_file` for `token`. The `url` of the store has no twin."""

_TAG = "tag:yaml.org,2002:"
_NULL_TAG, _MERGE_TAG = f"{_TAG}null", f"{_TAG}merge"
_KNOWN_TAGS = frozenset(
    _TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "seq", "map")
)

ENTRIES: Mapping[str, type[yaml.CollectionNode]] = {
    "accounts": yaml.MappingNode,
    "watch": yaml.SequenceNode,
    "sinks": yaml.MappingNode,
    "reports": yaml.MappingNode,
    "silences": yaml.SequenceNode,
}
"""The top-level keys that hold entries, each of them a block. The entries of all files of a folder are put together."""

_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_TAB = re.compile(r" *\t")
_WITHOUT_SPACE = re.compile(r"[ -]*[\w-]+:[^\s/]")

_MEANINGS: Sequence[tuple[str, str, str]] = (
    ("mapping values are not", "a colon where none can be", 'quote a text that holds ": ", or check indentation'),
    ("sequence entries are not", "a list item where none can be", "begin the list on a line of its own"),
    ("alias", "an alias (*name) without its anchor (&name) above", 'quote a glob: "*"'),
    ("cannot start any token", "a character no plain text may begin with", "quote the text"),
    ("end of stream", "a quote that is not closed in its line", "close it"),
    ("behind a quote", "text behind a closing quote", "write '' for a ' in single quotes, or quote all of the text"),
    ("escape character", "a backslash in double quotes", "write it in single quotes"),
    ("expected ':'", "no key with a value", "write key: value, with a space behind the colon"),
    ("within a list", "stands between the items of a list", "indent it like the keys of an item, or move it below"),
    ("document start", "stands left of the keys above", "begin each top-level key in the first column"),
    ("flow node", "a bracket is not closed, or a comma is missing", "close it with ] or }"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing", "close it with ] or }"),
    ("expected key", "does not line up with the keys above", "indent keys of one block alike"),
    ("<block end>", "does not line up with the lines above", "indent keys of one block alike"),
    ("'-' indicator", "does not line up with the list above", "indent keys of one item alike, and each - alike"),
    ("another document", "a second document begins here", "keep one document in a file"),
)
"""Each row has a part of a message of the parser, its meaning, and the remedy. The first row that fits counts.

The parser's own message is never shown: it may quote the file.
"""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # PyYAML may lack its C part
    """A loader of YAML that recognizes only null and the merge key `<<`. Every other scalar is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as in the base class)
        **{first: [(_NULL_TAG, _NULL)] for first in ("~", "n", "N", "")},
        "<": [(_MERGE_TAG, re.compile("<<$"))],
    }


class Document:
    """One configuration while it is read. Methods take the path of a value, even of an absent one."""

    def __init__(self, *, file: str, without_secrets: bool = False) -> None:
        """Start empty, with the path of the file or folder.

        With `without_secrets`, absent secrets and unset variables become warnings, not problems. `excused` has the
        paths of these values. `warnings` has all warnings, `sources` the text of each file that was read.
        """
        self.file = file
        self.directory = Path(file).parent
        self.sources: dict[str, str] = {}
        self.problems: list[ConfigProblem] = []
        self.data: dict[str, Any] = {}
        self.files: dict[Path, Stamp | None] = {}
        self.without_secrets = without_secrets
        self.excused: set[KeyPath] = set()
        self.warnings: list[ConfigProblem] = []
        self._root: yaml.Node = compose("", file=file)
        self._starts: dict[tuple[str | int, str], int] = {}
        self._reported: set[KeyPath] = set()
        self._hidden: set[KeyPath] = set()
        self._read_from: dict[KeyPath, KeyPath] = {}
        self._environment: dict[KeyPath, str] = {}

    def read(self, path: Path, *, limit: int) -> bytes:
        """Return the content of a file, and add the file to `files`. Raises `FileError`."""
        self.files |= stamps_of([path])  # before reading, so that a later write counts as a change
        return read_file(path, limit=limit)

    def open(self, path: Path, *, environ: Mapping[str, str], only: Collection[str] | None = None) -> bool:
        """Load this document from a file, or from the `*.yaml` of a folder; with `only`, just these top-level keys.

        A file that cannot be read or parsed, and an unset variable, is a problem of the document. Return whether each
        file was parsed.
        """
        self.files |= stamps_of([path])
        files, roots = config_files(path), list[yaml.MappingNode]()
        for file in files:
            try:
                roots.append(compose(self._read_text(file), file=str(file)))
            except FileError as error:
                is_read = str(file) in self.sources or any(error.place)
                problem = str(error) if is_read else f"cannot read this file ({error})"
                self.report_file(problem, remedy=error.remedy, place=(str(file), *error.place))
        if files != [path]:
            self.directory = path
            self._look_around(files)
        try:
            self._load(roots, environ=environ, only=only)
        except RecursionError:
            problem, remedy = "nested deeper than anything in this file can be", "check brackets and indentation"
            self.report_file(problem, remedy=remedy, place=(self.file, 0, 0))
            return False
        return len(roots) == len(files) > 0

    def _read_text(self, file: Path) -> str:
        data = self.read(file, limit=CONFIG_BYTES)
        try:
            text = self.sources[str(file)] = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise FileError("not UTF-8", remedy="save the file as UTF-8", place=(line, 1)) from None
        return text

    def _look_around(self, files: Collection[Path]) -> None:
        """Report a folder without a file to read, and warn of a file that is not read because of its name."""
        if not files:
            problem = f"a folder in which no *{SUFFIX} can be found"
            remedy = "name a file, or a folder of files; Docker makes a folder where the file of a mount is missing"
            self.report_file(problem, remedy=remedy, place=(self.file, 0, 0))
        for file in sorted(self.directory.glob("[!.]*.yml")):
            problem, remedy = f"is not read: in a folder only *{SUFFIX} is", f"rename it to {file.stem}{SUFFIX}"
            self.warnings.append(ConfigProblem(str(file), 0, 0, "", problem, remedy))

    def _load(
        self, roots: Sequence[yaml.MappingNode], *, environ: Mapping[str, str], only: Collection[str] | None
    ) -> None:
        """Put the files together, and fill in variables. Raises `RecursionError`."""
        for root in roots:
            self._clean(root, ())
        self._root = roots[0] if len(roots) == 1 else self._put_together(roots)
        if only is not None:
            self._root.value = [(key, value) for key, value in self._root.value if key.value in only]
        self.data = self._plain(self._root, (), environ)

    def _put_together(self, roots: Iterable[yaml.MappingNode]) -> yaml.MappingNode:
        """Return one root with the entries and the other keys of all files."""
        whole = compose("", file=self.file)
        first: dict[str, yaml.CollectionNode] = {}
        for key, value in (pair for root in roots for pair in root.value):
            wanted = ENTRIES.get(key.value)
            if wanted is None or (key.value not in first and isinstance(value, wanted)):
                whole.value.append((key, value))
                first[key.value] = value
            elif isinstance(value, wanted):
                self._starts[key.value, value.start_mark.name] = len(first[key.value].value)
                first[key.value].value += value.value
            elif value.tag != _NULL_TAG:
                remedy = "write entries below it, as in config/watcher.example.yaml"
                self.report_file("holds no entries", remedy=remedy, place=_place_of(value), path=(key.value,))
        return whole

    def get(self, path: KeyPath) -> Any:
        """Return the value at a path, or `None`."""
        value: Any = self.data
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            else:
                is_item = isinstance(value, list) and isinstance(part, int) and part < len(value)
                value = value[part] if is_item else None
        return value

    def text(self, path: KeyPath) -> str | None:
        """Return the text at a path; `None` if there is no text, or if the value is excused or has a problem."""
        value = self.get(path)
        is_usable = isinstance(value, str) and path not in self.excused and not self.is_reported(path)
        return value if is_usable else None

    def written(self, path: KeyPath) -> str:
        """Return the text at a path as written in the file, with variables not filled in; empty if there is none."""
        node: yaml.Node | None = self._root
        for part in path:
            _, node = _child(node, part)
        return str(node.value) if isinstance(node, yaml.ScalarNode) else ""

    def table(self, path: KeyPath) -> dict[str, Any]:
        """Return the mapping at a path, or an empty one."""
        value = self.get(path)
        return value if isinstance(value, dict) else {}

    def items(self, path: KeyPath) -> list[Any]:
        """Return the list at a path, or an empty one."""
        value = self.get(path)
        return value if isinstance(value, list) else []

    def put_from_file(self, path: KeyPath, value: object) -> None:
        """Set a value that was read from the file in its key's twin. Problems of the value are reported at the twin."""
        self.table(path[:-1])[str(path[-1])] = value
        self._read_from[path] = (*path[:-1], f"{path[-1]}_file")

    def put_from_environment(self, path: KeyPath, value: str, *, variable: str) -> None:
        """Set a value from a variable of the environment, unless the file has the key."""
        block = self.data.get(str(path[0]))
        if block is None:
            block = self.data[str(path[0])] = {}
        if isinstance(block, dict) and block.get(path[1]) is None:
            block[path[1]] = value
            self._environment[path] = variable

    def is_reported(self, path: KeyPath) -> bool:
        """Return whether a problem of this value, or of a block around it, is reported already."""
        return not self._reported.isdisjoint(_prefixes(path))

    def is_hidden(self, path: KeyPath) -> bool:
        """Return whether the value may be a secret: it contains a variable, or was read from the file of a secret."""
        return any(each in self._hidden or each in self._read_from for each in _prefixes(path))

    def place_for(self, path: KeyPath, of: KeyPath) -> str:
        """Return the place of the value `of` in a message about `path`: `line 3`, or `acme.yaml:3` for another file."""
        here, there = (self._at(each, "", "") for each in (path, of))
        return f"line {there.line}" if here.file == there.file else f"{there.file}:{there.line}"

    def mark_reported(self, path: KeyPath) -> None:
        """Let `is_reported` be true for this value, so that no check reports a further problem of it."""
        self._reported.add(path)

    def report(self, path: KeyPath, problem: str, *, remedy: str, key: bool = False, block: bool = False) -> None:
        """Add a problem at the value, or with `key` at its key. With `block` the problem names the block around it.

        No check reports a further problem of the value, unless `key` is set: the value may have a problem, too.
        """
        if not key:
            self.mark_reported(path)
        self.problems.append(self._at(path, problem, remedy, key=key, block=block))

    def report_file(self, problem: str, *, remedy: str, place: Place, path: KeyPath = ()) -> None:
        """Add a problem of a whole file, or of a place in the file."""
        self.problems.append(ConfigProblem(*place, write_path(path), problem, remedy))

    def report_absent(self, path: KeyPath, problem: str, *, remedy: str) -> None:
        """Report an absent secret or variable. With `without_secrets` add a warning instead, and excuse the value."""
        if self.without_secrets:
            self.excused.add(path)
            self.warn(path, problem, remedy=remedy)
        else:
            self.report(path, problem, remedy=remedy)

    def warn(self, path: KeyPath, problem: str, *, remedy: str, block: bool = False) -> None:
        """Add a warning about a value that can be used. `block` is as for `report`."""
        self.warnings.append(self._at(path, problem, remedy, block=block))

    def subject(self, path: KeyPath) -> str:
        """Return a value in words for a message: its text, quoted and cut, unless the text may be a secret."""
        value = self.get(path)
        if self.is_hidden(path) or not isinstance(value, str):
            return "the filled-in value"
        return "this value" if may_be_secret(value) else quoted(value)

    def _at(self, path: KeyPath, problem: str, remedy: str, *, key: bool = False, block: bool = False) -> ConfigProblem:
        shown = next((self._read_from[each] for each in _prefixes(path) if each in self._read_from), path)
        if variable := self._environment.get(path):
            return ConfigProblem(f"${variable}", 0, 0, write_path(shown), problem, remedy)
        place = self._place(shown, key=key)
        if (start := self._starts.get((shown[0], place[0]), 0)) and isinstance(shown[1], int):
            shown = (shown[0], shown[1] - start, *shown[2:])  # an entry is counted in its file
        return ConfigProblem(*place, write_path(shown[:-1] if block else shown), problem, remedy)

    def _place(self, path: KeyPath, *, key: bool) -> Place:
        name = value = self._root
        for part in path:
            found, inner = _child(value, part)
            if found is None or inner is None:
                key = True
                break
            name, value = found, inner
        return _place_of(name if key else value)

    def _plain(self, node: yaml.Node, path: KeyPath, environ: Mapping[str, str]) -> Any:
        if node.tag not in _KNOWN_TAGS:
            self.report(path, "has a tag (a word after !) that means nothing here", remedy="remove the tag")
        if isinstance(node, yaml.ScalarNode):
            value = None if node.tag == _NULL_TAG else node.value
            if value and value[0] in "“”„‘’" and not node.style:  # noqa: RUF001 (the search is for these)
                self.warn(path, "begins with a curly quote", remedy="write \" or '")
            return self._filled(value, path, environ) if value and "$" in value else value
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, index), environ) for index, item in enumerate(node.value)]
        self._clean(node, path)
        return {key.value: self._plain(value, (*path, key.value), environ) for key, value in node.value}

    def _clean(self, node: yaml.Node, path: KeyPath) -> None:
        entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                remedy = "write keys as plain words; quote a value that begins with {"
                self.report_file("a key that is not text", remedy=remedy, place=_place_of(key))
            elif key.tag == _MERGE_TAG:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif (first := entries.setdefault(key.value, (key, value))[0]) is not key:
                (file, line, _), place = _place_of(first), _place_of(key)
                problem = f"given twice, first at {f'line {line}' if file == place[0] else f'{file}:{line}'}"
                self.report_file(problem, remedy="remove one of them", place=place, path=(*path, key.value))
        for source in merged:
            if isinstance(source, yaml.MappingNode):
                self._clean(source, path)
                entries = {key.value: (key, value) for key, value in source.value} | entries
            else:
                problem = "merges something that has no keys"
                self.report_file(problem, remedy="write <<: *name", place=_place_of(source))
        node.value = list(entries.values())

    def _filled(self, text: str, path: KeyPath, environ: Mapping[str, str]) -> str:
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
        if path not in self._reported and _WITHOUT_BRACES.search(text):
            self.report(path, "a $NAME is not filled in without braces", remedy="write ${NAME}, or $$NAME")
        return filled


def _how_to_set(name: str, path: KeyPath) -> str:
    if path[-1] in _WITH_FILE and path != ("store", "url"):
        return f"export it, or use {path[-1]}_file: /run/secrets/{name.lower()}"
    return f"export it, or write ${{{name}:-default}}"


def quoted(text: str, *, limit: int = 60) -> str:
    """Return a text in quotes on one line. A longer text is cut after `limit` characters."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def may_be_secret(text: str) -> bool:
    """Return whether a text looks like a secret in the wrong place: a key, a token, or a URL with a path or login."""
    return _LIKE_SECRET.search(text) is not None and not _LIKE_ID.fullmatch(text)


def is_safe_key(part: str | int) -> bool:
    """Return whether a key may be shown. A key in any unusual form may be a secret in the wrong place."""
    return isinstance(part, int) or _SAFE_KEY.fullmatch(part) is not None


def write_path(path: KeyPath) -> str:
    """Return a path as text: `watch[0].pipeline`. A key that may not be shown becomes `…`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part if is_safe_key(part) else '…'}" for part in path)
    return "".join(parts).removeprefix(".")


def _prefixes(path: KeyPath) -> list[KeyPath]:
    """Return the paths of the blocks around a value, and the path of the value."""
    return [path[:end] for end in range(1, len(path) + 1)]


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, yaml.Node | None]:
    """Return a child of a node: the nodes of its key and its value. For an item of a list both are the item."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == part), (None, None))
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None, None


def compose(text: str, *, file: str) -> yaml.MappingNode:
    """Parse the YAML text of a file and return the root node. Raises `FileError`.

    An empty text has a root without keys and without a line.
    """
    stream = io.StringIO(text)
    stream.name = file  # the nodes get it as the name of their marks
    try:
        root: Any = yaml.compose(stream, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _explain(error, text=text) from None
    if root is None or root.tag == _NULL_TAG:
        start = yaml.Mark(file, 0, -1, -1, None, 0)
        return yaml.MappingNode(f"{_TAG}map", [], start, start)
    if not isinstance(root, yaml.MappingNode):
        raise FileError("no keys", remedy="begin with a key such as accounts:", place=_place_of(root)[1:])
    return root


def first_scalar(text: str) -> str:
    """Return the first scalar in a YAML text."""
    node: Any = yaml.compose(text, Loader=_Loader)
    while not isinstance(node, yaml.ScalarNode):
        node = node.value[0][1] if isinstance(node, yaml.MappingNode) else node.value[0]
    return str(node.value)


def _place_of(node: yaml.Node | yaml.Token) -> Place:
    return node.start_mark.name, node.start_mark.line + 1, node.start_mark.column + 1


def _explain(error: yaml.YAMLError, *, text: str) -> FileError:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return FileError("holds a character no text has", remedy="save the file as UTF-8 text")
    mark, complaint = error.problem_mark, f"{error.problem} {error.context}"
    lines, place = [*text.splitlines(), "", ""], (mark.line + 1, mark.column + 1)
    if tab := _TAB.match(lines[mark.line]):
        return FileError("tab used for indentation", remedy="use spaces", place=(mark.line + 1, tab.end()))
    if "expected ',' or" in complaint and "${" in lines[mark.line]:
        return FileError("a variable without quotes inside { } or [ ]", remedy='write "${NAME}"', place=place)
    complaint, place = _cause(complaint, lines, mark=mark, opened=error.context_mark or mark, text=text)
    unknown = ("", "not YAML", "check quotes, brackets and indentation here and above")
    _, problem, remedy = next((row for row in _MEANINGS if row[0] in complaint), unknown)
    return FileError(problem, remedy=remedy, place=place)


def _cause(
    complaint: str, lines: Sequence[str], *, mark: yaml.Mark, opened: yaml.Mark, text: str
) -> tuple[str, tuple[int, int]]:
    """Return the mistake, as a text for `_MEANINGS`, and its place. The parser notices some mistakes some lines later.

    `mark` is the place where the parser stopped, `opened` the start of the structure that the parser was reading.
    """
    line, here, quote = lines[mark.line], (mark.line + 1, mark.column + 1), _quote_before(mark, text=text)
    indent, above = _indent(line), [each for each in enumerate(lines[: mark.line], 1) if each[1].strip()]
    if quote is not None and quote.start_mark.line < mark.line:
        return "end of stream", _place_of(quote)[1:]
    if quote is not None and "flow" not in complaint:
        return "behind a quote", here
    # A bracket is not closed, and the parser has read on into the keys below.
    is_outside = "flow" in complaint and indent <= _indent(lines[opened.line])
    if is_outside or "end of stream" in complaint or "expected ':'" in complaint:
        return complaint, (opened.line + 1, opened.column + 1)
    if "mapping values" in complaint and ":" not in line[: mark.column]:
        number, last = above[-1] if _WITHOUT_SPACE.match(above[-1][1]) else (mark.line + 1, line)
        return "expected key" if last is line else "expected ':'", (number, _indent(last) + 1)
    if "expected key" in complaint and line[indent:].startswith("- "):
        number, last = next((each for each in reversed(above) if _indent(each[1]) < indent), (0, ""))
        if any(each.startswith(f"{line[:indent]}- ") for each in lines[:number]):
            return "within a list", (number, _indent(last) + 1)
    return complaint, here


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _quote_before(mark: yaml.Mark, *, text: str) -> yaml.Token | None:
    """Return the quoted text that is the last token before a mark, if it ends in the line of the mark."""
    last: deque[yaml.Token] = deque(maxlen=1)
    with suppress(yaml.YAMLError):  # the scan stops at a mistake in a token
        last.extend(takewhile(lambda each: each.start_mark.index < mark.index, yaml.scan(text, Loader=_Loader)))
    quotes = (each for each in last if isinstance(each, yaml.ScalarToken) and each.style in {"'", '"'})
    return next((each for each in quotes if each.end_mark.line == mark.line), None)
