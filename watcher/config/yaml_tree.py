"""YAML as libyaml's nodes, which know their line and column, and what the parser's complaints mean.

Scalars stay the text of the file: what is a number and what is a name is for the models to say. The parser's own texts
are never shown: they may quote the file.
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from watcher.config.files import FileError

Path = tuple[str | int, ...]
"""Where a value is: `("watch", 0, "pipeline")`."""

_TAG = "tag:yaml.org,2002:"
NULL_TAG, MERGE_TAG = f"{_TAG}null", f"{_TAG}merge"
KNOWN_TAGS = frozenset(
    _TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "seq", "map")
)

_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_TAB = re.compile(r" *\t")

_MEANINGS: Sequence[tuple[str, str, str]] = (
    ("mapping values are not", "a colon where none can be", 'quote a text that holds ": ", or check indentation'),
    ("sequence entries are not", "a list item where none can be", "begin the list on a line of its own"),
    ("scanning an alias", "an alias (*) without a name", 'quote a glob: "*"'),
    ("undefined alias", "an alias (*name) without its anchor (&name) above", "quote the text if it is a glob"),
    ("cannot start any token", "a character no plain text may begin with", "quote the text"),
    ("escape character", "an unknown \\ sequence in double quotes", "use single quotes, or \\\\ for a backslash"),
    ("end of stream", "a quote is never closed", "close it"),
    ("flow node", "a bracket is not closed, or a comma is missing", "close it with ] or }"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing", "close it with ] or }"),
    ("expected key", "does not line up with the keys above", "indent keys of one block alike"),
    ("<block end>", "does not line up with the lines above", "indent keys of one block alike"),
    ("'-' indicator", "does not line up with the list above", "begin each item with -, indented alike"),
    ("another document", "a second document begins here", "keep one document in a file"),
)
"""What the parser's words hold, what they mean, and what helps. The first that fits counts."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # which of the two is there
    """Tells a value that is absent, and a merge, from texts; nothing else from one another."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (the base class has it so)
        **{first: [(NULL_TAG, _NULL)] for first in ("~", "n", "N", "")},
        "<": [(MERGE_TAG, re.compile("<<$"))],
    }


def decode(data: bytes) -> str:
    """Return the text of a file. Raises `FileError`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError("not UTF-8", remedy="save the file as UTF-8", place=(line, 1)) from None


def compose(text: str) -> yaml.MappingNode:
    """Return the root of the file; without anything in it, one without keys. Raises `FileError`."""
    try:
        root: Any = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _explain(error, text=text) from None
    if root is None or root.tag == NULL_TAG:
        start = yaml.Mark("", 0, 0, 0, None, 0)
        return yaml.MappingNode(f"{_TAG}map", [], start, start)
    if not isinstance(root, yaml.MappingNode):
        raise FileError("no keys", remedy="begin with a key such as accounts:", place=place_of(root))
    return root


def first_scalar(text: str) -> str:
    """Return the first single value in a text that is YAML."""
    node: Any = yaml.compose(text, Loader=_Loader)
    while not isinstance(node, yaml.ScalarNode):
        node = node.value[0][1] if isinstance(node, yaml.MappingNode) else node.value[0]
    return str(node.value)


def place_of(node: yaml.Node) -> tuple[int, int]:
    """Return line and column, which count from 1."""
    return node.start_mark.line + 1, node.start_mark.column + 1


def _explain(error: yaml.YAMLError, *, text: str) -> FileError:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return FileError("holds a character no text has", remedy="save the file as UTF-8 text")
    mark, complaint = error.problem_mark, f"{error.problem} {error.context}"
    lines = text.split("\n")
    if mark.line < len(lines) and (tab := _TAB.match(lines[mark.line])):
        return FileError("tab used for indentation", remedy="use spaces", place=(mark.line + 1, tab.end()))
    if error.context_mark and (mark.line >= len(lines) or "end of stream" in complaint):
        mark = error.context_mark  # the text ends, and this is where the quote or bracket was opened
    elif "expected ',' or" in complaint and "${" in lines[mark.line]:
        problem = "a variable without quotes inside { } or [ ]"
        return FileError(problem, remedy='write "${NAME}"', place=(mark.line + 1, mark.column + 1))
    unknown = ("", "not YAML", "check quotes, brackets and indentation here and above")
    _, problem, remedy = next((row for row in _MEANINGS if row[0] in complaint), unknown)
    return FileError(problem, remedy=remedy, place=(mark.line + 1, mark.column + 1))
