"""Mistakes in a configuration file for a terminal: the line of the file, and a mark below the place.

A line of the file may hold secrets. So of a line is shown what is harmless whatever the file is like: known keys,
durations and the like, ids, and the value the problem itself quotes. The rest becomes `…`,
as does whatever follows a key of secrets.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from rich.console import Console

from watcher.cli.console import say
from watcher.config.models import Settings
from watcher.config.problems import ConfigProblemsError, Problem
from watcher.delivery.sinks.registry import SINK_KINDS
from watcher.domain.execution import OPEN_STATUSES

_VARIABLE = re.compile(r"[\"']?\$\{[A-Z_][A-Z0-9_]*\}[\"']?")
"""A variable's name is no secret; what it may fall back on is."""
_TOKEN = re.compile(rf"{_VARIABLE.pattern}|[^\s,{{}}\[\]]+")
_HARMLESS = re.compile(
    r"[\"']?(?:[-~:]|\d{1,5}(?:\.\d{1,3})?(?:ms|[smhd])?(?:/[smh])?|true|false|null"
    r"|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})[\"']?"
)
_QUOTED = re.compile(r'"(.+)"')
_MASKED = re.compile(r"…(?:\s+…)+")
_SECRETS = frozenset({"apikey", "routingkey", "secret", "secrets", "token", "url", "headers"})
"""Keys, without `_` and in lower case, whose values are secrets whatever they look like."""

_ERROR = ("error: ", "bold red")
_WARNING = ("warning: ", "bold yellow")
_MARGIN = 8
_LEAD = 12
"""Characters left of the mark that stay when a line is wider than the terminal."""


class _Shown(NamedTuple):
    """As much of a line as may be shown, and where in it the mark goes."""

    text: str
    column: int
    width: int


def report_mistakes(error: ConfigProblemsError, *, console: Console) -> None:
    """Print every problem with its line of the file, and their number."""
    _report(error.problems, _ERROR, source=error.source, console=console)
    say(console, (error.total, "bold"))


def report_warnings(warnings: Iterable[Problem], *, source: str, console: Console) -> None:
    """Print every warning with its line of the file, which is `source`."""
    _report(warnings, _WARNING, source=source, console=console)


def _report(problems: Iterable[Problem], word: tuple[str, str], *, source: str, console: Console) -> None:
    lines = source.split("\n")
    for problem in problems:
        for line in _lines(problem, word, lines, room=console.width - _MARGIN):
            say(console, *line)


def _lines(
    problem: Problem, word: tuple[str, str], source: list[str], *, room: int
) -> Iterator[tuple[str | tuple[str, str], ...]]:
    yield word, ": ".join(part for part in (problem.place, problem.path, problem.problem) if part)
    if not 0 < problem.line <= len(source):
        yield ("hint: ", "bold"), problem.remedy
        return
    shown = _fit(_show(problem, source[problem.line - 1]), room=room)
    yield (f"{problem.line:>5} | ", "blue"), shown.text
    mark = " " * shown.column + "^" * shown.width
    if len(mark) + len(problem.remedy) < room:
        yield ("      | ", "blue"), (mark, word[1]), f" {problem.remedy}"
    else:
        yield ("      | ", "blue"), (mark, word[1])
        yield ("      = ", "blue"), problem.remedy


def _show(problem: Problem, line: str) -> _Shown:
    """Mask a line around the place of a problem."""
    mask = _Mask(re.split(r"[.\[\]]+", problem.path))
    line = line.replace("\t", " ")
    head, rest = mask(line[: problem.column - 1]), line[problem.column - 1 :]
    token = _TOKEN.match(rest)
    masked = mask(token[0]).removesuffix(":") if token else ""
    culprit = _culprit(problem, rest)
    marked = culprit or (token[0].removesuffix(":") if token else "")
    shown = culprit or masked
    return _Shown(head + _MASKED.sub("…", shown + mask(rest[len(marked) :])), len(head), max(1, len(shown)))


def _culprit(problem: Problem, rest: str) -> str:
    """Return the value the problem quotes, if it stands at its place as it is."""
    quoted = _QUOTED.search(problem.problem)
    written = re.match(rf"[\"']?{re.escape(quoted[1])}[\"']?", rest) if quoted else None
    return written[0] if written else ""


class _Mask:
    """Masks a line, part by part. It remembers whether what comes next belongs to a key of secrets."""

    def __init__(self, path: Sequence[str]) -> None:
        self._words = known_words() | set(path)
        self._of_headers = "headers" in path
        self._secret = any(_plain(part) in _SECRETS for part in path)

    def __call__(self, text: str) -> str:
        code = re.split(r"(?:^|(?<=\s))#", text, maxsplit=1)[0]  # comments say anything
        return _MASKED.sub("…", _TOKEN.sub(self._token, code))

    def _token(self, match: re.Match[str]) -> str:
        token, word = match[0], match[0].strip("\"':")
        if _VARIABLE.fullmatch(token):
            return token
        is_key = token.endswith(":")
        if _plain(word) in _SECRETS:
            self._of_headers |= word == "headers"
            self._secret = True
        elif is_key and word in known_words():  # the headers' own names may be the same
            self._secret = self._of_headers
        if self._secret and not is_key and word != "-" and _plain(word) not in _SECRETS:
            return "…"
        return token if word in self._words or _HARMLESS.fullmatch(token) else "…"


def _plain(key: str) -> str:
    return key.lower().replace("_", "").removesuffix("file")


@cache
def known_words() -> frozenset[str]:
    """Return every key of the file that is ours, not the user's, and the kinds of sinks."""
    schema = Settings.model_json_schema()
    blocks = (schema, *schema["$defs"].values())
    return frozenset({*SINK_KINDS, *OPEN_STATUSES}).union(*(block.get("properties", ()) for block in blocks))


def _fit(shown: _Shown, *, room: int) -> _Shown:
    """Cut a line to the terminal's width, so that the mark stays in sight."""
    text = shown.text.rstrip()
    if len(text) <= room:
        return _Shown(text, shown.column, shown.width)
    start = max(0, min(shown.column - _LEAD, len(text) - room))
    return _Shown(text[start : start + max(room, 1)], shown.column - start, min(shown.width, max(room - _LEAD, 1)))
