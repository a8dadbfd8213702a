"""YAML as a tree in which every key and value knows its line and column.

Composed from libyaml's events one by one, so 100,000 ids are quick and small. Scalars stay the text of the file:
what is a number and what is a name is for the models to say. It knows no keys and fills in nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from watcher.config.yaml_errors import BadYamlError, explain

Path = tuple[str | int, ...]

_Event = Any
"""One of PyYAML's events: their types say too little to be of use."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TAG = "tag:yaml.org,2002:"
_KINDS = ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
_TAGS = frozenset({None, "!", *(_TAG + kind for kind in _KINDS)})
_MERGE = "<<"
_DEEPEST = 32
_MOST = 1_000_000
"""Values in all: 100,000 executions, each in an entry of its own with a name and labels, are below it."""
_MOST_ALIASED = 100_000
"""Values that aliases may repeat in all: a few lines of nested aliases can stand for billions."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as it is written; `None` where there is none. Lines and columns count from 1."""

    text: str | None
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple["Node", ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key and what it holds."""

    key: Scalar
    value: "Node"


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping, in the order of the file."""

    entries: dict[str, KeyValue]
    line: int
    column: int


Node = Scalar | Items | Table

Report = Callable[[Scalar, Path, str, str], None]
"""Takes a place, the path of the key, what is wrong and what would be right."""


def compose(text: str, *, report: Report) -> Node:
    """Return the tree of one document; what it can still read around (a key given twice) it reports.

    Raises `BadYamlError` for anything that is not YAML, or too much of it.
    """
    try:
        return _Composer(yaml.parse(text, Loader=_LOADER), report=report).document()
    except yaml.YAMLError as error:
        raise explain(error, text=text) from None


class _Composer:
    """Builds the tree while reading the events."""

    def __init__(self, events: Iterator[_Event], *, report: Report) -> None:
        self._events = events
        self._report = report
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._count = 0
        self._aliased_count = 0

    def document(self) -> Node:
        next(self._events)
        if not isinstance(next(self._events), yaml.DocumentStartEvent):
            return Scalar(None, 1, 1)
        root = self._node(next(self._events), ())
        next(self._events)
        after = next(self._events)
        if isinstance(after, yaml.DocumentStartEvent):
            raise _stop(after, "a second document begins here", "keep one document in a file")
        return root

    def _node(self, event: _Event, path: Path) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.tag not in _TAGS:
            self._report(_place(event), path, "has a tag (a word after !) that means nothing here", "remove the tag")
        before = self._count
        self._count += 1
        if self._count > _MOST:
            raise _stop(event, f"more than {_MOST:,} values", "is it the configuration?")
        node = self._content(event, path)
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._count - before)
        return node

    def _content(self, event: _Event, path: Path) -> Node:
        mark = event.start_mark
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(_text(event), mark.line + 1, mark.column + 1)
        if len(path) > _DEEPEST:
            raise _stop(event, "nested deeper than anything in this file can be", "check brackets and indentation")
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(item, (*path, len(items))))
            return Items(tuple(items), mark.line + 1, mark.column + 1)
        return Table(self._entries(path), mark.line + 1, mark.column + 1)

    def _alias(self, event: _Event) -> Node:
        if event.anchor not in self._anchors:
            raise _stop(event, "an alias (*name) without its anchor (&name) above", "quote the text if it is a glob")
        node, count = self._anchors[event.anchor]
        self._count += count
        self._aliased_count += count
        if self._aliased_count > _MOST_ALIASED:
            raise _stop(event, f"aliases repeat more than {_MOST_ALIASED:,} values", "write them out")
        return node

    def _entries(self, path: Path) -> dict[str, KeyValue]:
        entries: dict[str, KeyValue] = {}
        merged: list[Node] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            value = self._node(next(self._events), (*path, key.text or ""))
            if key.text == _MERGE and event.implicit[0]:
                merged.append(value)
            elif (first := entries.setdefault(key.text or "", KeyValue(key, value)).key) is not key:
                problem = f"given twice, first at line {first.line}"
                self._report(key, (*path, key.text or ""), problem, "remove one of them")
        for node in merged:
            self._merge(node, entries, path)
        return entries

    def _key(self, event: _Event, path: Path) -> Scalar:
        if not isinstance(event, yaml.ScalarEvent):
            raise _stop(event, "a key that is not text", "write keys as plain words; quote a value that begins with {")
        node = self._node(event, path)
        return Scalar(event.value, node.line, node.column)

    def _merge(self, node: Node, entries: dict[str, KeyValue], path: Path) -> None:
        """Take over the keys of another mapping, or of a list of them, that are not there yet."""
        for source in node.items if isinstance(node, Items) else (node,):
            if isinstance(source, Table):
                entries.update({name: entry for name, entry in source.entries.items() if name not in entries})
            else:
                place = Scalar(None, source.line, source.column)
                self._report(place, (*path, _MERGE), "merges something that has no keys", "write <<: *name")


def _text(event: _Event) -> str | None:
    plain = event.implicit[0] and event.value in _NULLS
    return None if plain or event.tag == f"{_TAG}null" else event.value


def _place(event: _Event) -> Scalar:
    return Scalar(None, event.start_mark.line + 1, event.start_mark.column + 1)


def _stop(event: _Event, problem: str, remedy: str) -> BadYamlError:
    return BadYamlError(event.start_mark.line + 1, event.start_mark.column + 1, problem=problem, remedy=remedy)
