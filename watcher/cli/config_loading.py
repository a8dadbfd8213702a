"""Reading the configuration for a command; on a terminal each mistake is shown in its line, with a mark at the place.

A line of the file may hold secrets. So of a line is shown what is harmless whatever the file is like: known keys,
durations and the like, ids, and the value the problem itself quotes. The rest becomes `…`,
as does whatever follows a key of secrets.
"""

import os
import re
import sys
from collections.abc import Callable, Collection, Iterable
from functools import cache, partial
from pathlib import Path

import typer
from rich.console import Console

from watcher.cli.console import console_on, say
from watcher.config.document import ConfigProblemsError, Problem, quoted
from watcher.config.loader import load_config
from watcher.config.models import Settings
from watcher.domain.errors import UsageError
from watcher.domain.execution import OPEN_STATUSES
from watcher.runtime.units import InvalidValueError, parse_duration
from watcher.sinks.registry import SINK_KINDS

_TOKEN = re.compile(r"[\"']?\$\{[A-Z_][A-Z0-9_]*\}[\"']?|[^\s,{}\[\]]+")
_HARMLESS = re.compile(
    r"[\"']?(?:[-~:]|\d{1,5}(?:\.\d{1,3})?(?:ms|[smhd])?(?:/[smh])?|true|false|null|\$\{[A-Z_][A-Z0-9_]*\}"
    r"|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})[\"']?"
)
"""A variable's name is no secret; what it may fall back on is."""
_QUOTED = re.compile(r'"(.+)"')
_MASKED = re.compile(r"…[^\w]*…")
_SECRET_KEY = re.compile(r"(?:api_?key|routing_?key|secrets?|token|url|password|headers)(?:_file)?:", re.IGNORECASE)
"""What follows such a key in a line is a secret whatever it looks like."""

WARNING = ("warning: ", "bold yellow")
_MARGIN = 8
_LEAD = 12
"""Characters left of the mark that stay when a line is wider than the terminal."""


def parse_seconds(text: str, *, option: str) -> float:
    """Return the seconds that an option says. Raises `UsageError`."""
    try:
        return parse_duration(text)
    except InvalidValueError as error:
        raise UsageError(f"{option}: {quoted(text)} {error}") from None


def read_config(path: Path, *, only: Collection[str] | None = None) -> Settings:
    """Read the file, or `only` these keys, as `loaded` does."""
    return loaded(partial(load_config, path, environ=os.environ, only=only))


def loaded(load: Callable[[], Settings]) -> Settings:
    """Load settings. What is wrong is shown on a terminal with its lines, and ends the command."""
    try:
        return load()
    except ConfigProblemsError as error:
        if not sys.stderr.isatty():
            raise
        console = console_on(sys.stderr)
        report(error.problems, source=error.source, console=console)
        say(console, (error.total, "bold"))
        raise typer.Exit(error.exit_code) from None


def report(
    problems: Iterable[Problem], *, source: str, console: Console, word: tuple[str, str] = ("error: ", "bold red")
) -> None:
    """Print each problem with its line of the file, which is `source`."""
    lines, room, margin = source.split("\n"), console.width - _MARGIN, ("      | ", "blue")
    for problem in problems:
        say(console, word, ": ".join(part for part in (problem.place, problem.path, problem.problem) if part))
        if not 0 < problem.line <= len(lines):
            say(console, ("hint: ", "bold"), problem.remedy)
            continue
        text, column, width = _fit(*_shown(problem, lines[problem.line - 1]), room=room)
        mark = (" " * column + "^" * width, word[1])
        say(console, (f"{problem.line:>5} | ", "blue"), text)
        if len(mark[0]) + len(problem.remedy) < room:
            say(console, margin, mark, f" {problem.remedy}")
        else:
            say(console, margin, mark)
            say(console, ("      = ", "blue"), problem.remedy)


def _shown(problem: Problem, line: str) -> tuple[str, int, int]:
    """Return as much of a line as may be shown, where in it the mark goes, and how wide that is."""
    path = re.split(r"[.\[\]]+", problem.path)
    words = known_words() | set(path)

    def mask(text: str) -> str:
        secret = _SECRET_KEY.search(text)
        end = secret.end() if secret else len(text)
        return mask_tokens(text[:end]) + (" … " if text[end:].strip() else text[end:])

    def mask_tokens(text: str) -> str:
        return _MASKED.sub("…", _TOKEN.sub(mask_token, text))

    def mask_token(match: re.Match[str]) -> str:
        token = match[0]
        return token if token.strip("\"':") in words or _HARMLESS.fullmatch(token) else "…"

    line = re.split(r"(?:^|(?<=\s))#", line.replace("\t", " "), maxsplit=1)[0]  # comments say anything
    head, rest = mask(line[: problem.column - 1]), line[problem.column - 1 :]
    quoted = _QUOTED.search(problem.problem)
    written = re.match(rf"[\"']?{re.escape(quoted[1])}[\"']?", rest) if quoted else None
    found = written or re.match(rf"(?:{_TOKEN.pattern})", rest)
    culprit = found[0].removesuffix(":") if found else ""
    is_secret = any(_SECRET_KEY.match(f"{part}:") for part in path) and "${" not in culprit and culprit not in words
    shown = culprit if written else "…" if is_secret else mask_tokens(culprit)
    return head + shown + mask(rest[len(culprit) :]), len(head), max(1, len(shown))


@cache
def known_words() -> frozenset[str]:
    """Return every key of the file that is ours, not the user's, and the kinds of sinks."""
    schema = Settings.model_json_schema()
    blocks = (schema, *schema["$defs"].values())
    return frozenset({*SINK_KINDS, *OPEN_STATUSES}).union(*(block.get("properties", ()) for block in blocks))


def _fit(text: str, column: int, width: int, *, room: int) -> tuple[str, int, int]:
    """Cut a line to the terminal's width, so that the mark stays in sight."""
    text = text.rstrip()
    if len(text) <= room:
        return text, column, width
    start = max(0, min(column - _LEAD, len(text) - room))
    return text[start : start + max(room, 1)], column - start, min(width, max(room - _LEAD, 1))
