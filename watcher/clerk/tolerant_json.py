"""Cuts a JSON document of any size down to the fields that are read, in time that grows with its length only.

It knows nothing of what the fields mean. What is not read need only close, not be JSON: an answer that nests too deep
for the parser, or holds a number of a million digits, in something private still tells its status. No call takes long
without returning to Python, where the interpreter can turn to another thread.
"""

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Final, TypeAlias


class BrokenJsonError(Exception):
    """The document ends too early, or is not JSON where it was read."""


class Leaf:
    """Wants a text, a number, `true`, `false` or `null`."""


@dataclass(frozen=True, slots=True)
class Fields:
    """Wants an object, and of it these."""

    wanted: Mapping[bytes, "Wanted"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Wants a list of objects, the first `most`. For all that follow one `null` stands."""

    each: Fields
    most: int


Wanted: TypeAlias = Leaf | Fields | Rows

LEAF: Final = Leaf()
TEXT_BYTES = 16 * 1024
"""A text is cut to so many bytes, escapes counted as written: more than six times what an event holds."""

_PIECE_MIN, _PIECE_MAX = 256, 64 * 1024
_KEY_BYTES = 200  # the longest that may be wanted, each letter as an escape
_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_KEY = re.compile(_SPACE + rb'(?=")')
_COLON = re.compile(_SPACE + rb":" + _SPACE)
_MEMBER = re.compile(_SPACE + rb'"([^"\\]{0,64}+)"' + _SPACE + rb":" + _SPACE)
_AFTER = re.compile(_SPACE + rb"([,\]}])" + _SPACE)
_PLAIN = re.compile(_MEMBER.pattern + rb'("[^"\\]*+"|[-+.0-9A-Za-z]++)' + _AFTER.pattern)
_SPACES = re.compile(_SPACE)
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]++")
_TEXT_PIECE = re.compile(rb'(?:[^"\\]++|\\.){0,32768}+', re.DOTALL)
_WHOLE = re.compile(rb'(?:[^"]++|' + _STRING + rb")*+", re.DOTALL)
_STRINGS = re.compile(_STRING, re.DOTALL)
_TOKEN = re.compile(_STRING + rb"|([\[\]{}])", re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: 1 for what opens, -1 for what closes
_CONTROLS = bytes.maketrans(bytes(range(32)), b" " * 32)
_ESCAPED_ASCII = re.compile(rb"\\u00([0-7][0-9a-fA-F])")
_READABLE = re.compile(rb'(?:[^"\\]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,4})?")
_LONGEST_NUMBER = 100
_WORDS = frozenset({b"true", b"false", b"null"})

# JavaScript sends half a surrogate pair where it cut a text within an emoji. JSON allows it, our parser does not; nor
# does PostgreSQL take a NUL.
_DROPPED = re.compile(
    rb"(?<!\\)(?P<backslashes>(?:\\\\)*)"
    rb"(?:(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\u0000)"
)


def slim(body: bytes, wanted: Wanted) -> bytes:
    """Return the document with what is wanted of it and nothing else: JSON that every parser reads.

    Raises `BrokenJsonError`. What was cut off on its way costs next to nothing where its last character shows it.
    """
    body = body.removeprefix(b"\xef\xbb\xbf").strip(b" \t\n\r")
    if body[:1] + body[-1:] not in {b"{}", b"[]"}:
        raise BrokenJsonError
    reader = _Reader(body)
    found = reader.value(wanted)
    if reader.at < len(body):
        raise BrokenJsonError
    return found


class _Reader:
    """Goes through a document once, from its begin to its end; `at` is how far it is."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.at = 0

    def value(self, wanted: Wanted) -> bytes:
        """Read a value that begins here; one of another kind than is wanted is `null`."""
        begin, first = self.at, self._first()
        if first == b"{" and isinstance(wanted, Fields):
            return self._object(wanted)
        if first == b"[" and isinstance(wanted, Rows):
            return self._list(wanted)
        self._skip(first)
        return _leaf(self._body, begin, self.at) if wanted is LEAF else b"null"

    def _first(self) -> bytes:
        return self._body[self.at : self.at + 1]

    def _object(self, wanted: Fields) -> bytes:
        """Read an object. Of a key that comes twice the last counts, as in all parsers."""
        self._pass(_SPACES, beyond=1)
        if self._first() == b"}":
            self.at += 1
            return b"{}"
        found: dict[bytes, bytes | tuple[int, int]] = {}
        after = b","
        while after == b",":
            if match := _PLAIN.match(self._body, self.at):  # most members: read at once
                self.at, key, after = match.end(), match[1], match[3]
                if want := wanted.wanted.get(key):
                    found[key] = match.span(2) if want is LEAF else b"null"
                continue
            key = self._key()
            if want := wanted.wanted.get(key):
                found[key] = self.value(want)
            else:
                self._skip(self._first())
            after = self._pass(_AFTER)[1]
        if after != b"}":
            raise BrokenJsonError
        written = (
            b'"%b":%b' % (key, value if isinstance(value, bytes) else _leaf(self._body, *value))
            for key, value in found.items()
        )
        return b"{%b}" % b",".join(written)

    def _list(self, wanted: Rows) -> bytes:
        found: list[bytes] = []
        self._pass(_SPACES, beyond=1)
        if self._first() == b"]":
            self.at += 1
            return b"[]"
        after = b","
        while after == b",":
            if len(found) == wanted.most:
                self._skip_brackets(b"[")
                return b"[%b,null]" % b",".join(found)
            found.append(self.value(wanted.each))
            after = self._pass(_AFTER)[1]
        if after != b"]":
            raise BrokenJsonError
        return b"[%b]" % b",".join(found)

    def _pass(self, pattern: re.Pattern[bytes], *, beyond: int = 0) -> re.Match[bytes]:
        """Go beyond what has to stand here."""
        match = pattern.match(self._body, self.at + beyond)
        if match is None:
            raise BrokenJsonError
        self.at = match.end()
        return match

    def _key(self) -> bytes:
        """Read a key and its colon; one that is too long to be wanted is empty."""
        if match := _MEMBER.match(self._body, self.at):
            self.at = match.end()
            return match[1]
        self._pass(_KEY)
        begin = self.at
        self._skip_text()
        key = self._body[begin + 1 : self.at - 1] if self.at - begin <= _KEY_BYTES else b""
        self._pass(_COLON)
        return _ESCAPED_ASCII.sub(lambda match: bytes([int(match[1], 16)]), key)

    def _skip(self, first: bytes) -> None:
        if first == b'"':
            self._skip_text()
        elif first in {b"[", b"{"}:
            self.at += 1
            self._skip_brackets(first)
        else:
            self._pass(_SCALAR)

    def _skip_text(self) -> None:
        self.at += 1
        while self._first() != b'"':
            before = self.at
            if self._pass(_TEXT_PIECE).end() == before:
                raise BrokenJsonError  # its end is missing
        self.at += 1

    def _skip_brackets(self, opened: bytes) -> None:
        """Go beyond the bracket that closes the one opened before here, by growing pieces that end outside texts."""
        depth, size = 1, _PIECE_MIN
        square_count = opened.count(b"[")  # of those that are open; with `depth` it says as much of the curly ones
        while depth:
            if self.at == len(self._body):
                raise BrokenJsonError
            match = _WHOLE.match(self._body, self.at, self.at + size)
            end = match.end() if match else self.at
            if end == self.at:
                self._skip_text()  # one longer than a piece
                continue
            brackets = _STRINGS.sub(b"", self._body[self.at : end]).translate(None, _NO_BRACKETS)
            depths = array("i", accumulate(array("b", brackets.translate(_STEPS)), initial=depth))
            if 0 in depths:
                last = depths.index(0)
                brackets, depths = brackets[:last], depths[: last + 1]
                tokens = _TOKEN.finditer(self._body, self.at, end)
                end = next(islice((token.end() for token in tokens if token[1]), last - 1, None))
            square_count += brackets.count(b"[") - brackets.count(b"]")
            depth, self.at, size = depths[-1], end, min(2 * size, _PIECE_MAX)
        if square_count:
            raise BrokenJsonError


def _leaf(body: bytes, begin: int, end: int) -> bytes:
    if body[begin : begin + 1] == b'"':
        text = _READABLE.match(body, begin + 1, min(end - 1, begin + 1 + TEXT_BYTES))
        return b'"%b"' % _clean(text[0] if text else b"")
    word = body[begin : min(end, begin + _LONGEST_NUMBER)]
    return word if word in _WORDS or _NUMBER.fullmatch(word) else b"null"


def _clean(text: bytes) -> bytes:
    """Return the text as every parser takes it: without control characters, half pairs and NULs, and in UTF-8."""
    text = _DROPPED.sub(rb"\g<backslashes>\g<pair>", text.translate(_CONTROLS))
    return text if text.isascii() else text.decode("utf-8", "replace").encode()
