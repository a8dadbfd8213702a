"""Load the configuration for a command; on a terminal print each mistake with its line of the file and a mark below.

A line of the file may hold secrets. Only known keys and words, durations, names of variables, and the value that the
error message quotes are printed; all other words become `…`.
"""

import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, partial
from pathlib import Path

import typer
from rich.console import Console

from watcher.cli.console import console_on, say
from watcher.config.document import ConfigProblem, ConfigProblemsError, quoted
from watcher.config.loader import load_config
from watcher.config.models import Settings
from watcher.domain.errors import UsageError
from watcher.domain.execution import OPEN_STATUSES
from watcher.runtime.units import InvalidValueError, parse_duration
from watcher.sinks.registry import SINK_KINDS

_TOKEN = re.compile(r"\"[^\"]*\"|'[^']*'|\$\{[A-Z_][A-Z0-9_]*\}|[^\s,{}\[\]]+")
_HARMLESS = re.compile(r"[\"']?(?:\$\{[A-Z_][A-Z0-9_]*\}|[-~:]|\d{1,3}(?:ms|[smhd]))[\"']?")
"""The pattern of a token that cannot be secret: `${NAME}` without a default, a duration, or one of `-`, `~`, `:`."""
_QUOTED = re.compile(r'"(.+)"')

WARNING = ("warning: ", "bold yellow")
_CONTEXT_WIDTH = 12
"""The least number of characters that are printed before the mark when a line is wider than the terminal."""


def parse_seconds(text: str, *, option: str) -> float:
    """Return the duration in an option of the command line, in seconds. Raises `UsageError`."""
    try:
        return parse_duration(text)
    except InvalidValueError as error:
        raise UsageError(f"{option}: {quoted(text)} {error}") from None


def read_config(path: Path, *, only: Collection[str] | None = None) -> Settings:
    """Load the settings of a file or folder; with `only` read no other top-level keys. Mistakes end the command."""
    return load_or_exit(partial(load_config, path, environ=os.environ, only=only))


def load_or_exit(load: Callable[[], Settings]) -> Settings:
    """Call `load`, and return its settings. Mistakes end the command; a terminal shows them with their lines."""
    try:
        return load()
    except ConfigProblemsError as error:
        if not sys.stderr.isatty():
            raise
        console = console_on(sys.stderr)
        print_problems(error.problems, sources=error.sources, console=console)
        say(console, (error.total, "bold"))
        raise typer.Exit(error.exit_code) from None


def print_problems(
    problems: Iterable[ConfigProblem],
    *,
    sources: Mapping[str, str],
    console: Console,
    word: tuple[str, str] = ("error: ", "bold red"),
) -> None:
    """Print each problem, the line of the file that has it, and its remedy. `sources` has the text of each file."""
    room, margin = max(console.width - 8, _CONTEXT_WIDTH + 1), ("      | ", "blue")
    lines_of = {file: text.split("\n") for file, text in sources.items()}
    for problem in problems:
        lines = lines_of.get(problem.file, ())
        say(console, word, ": ".join(part for part in (problem.place, problem.path, problem.problem) if part))
        if not 0 < problem.line <= len(lines):
            say(console, ("hint: ", "bold"), problem.remedy)
            continue
        text, column, width = _mask_line(problem, lines[problem.line - 1])
        cut = max(0, min(column - _CONTEXT_WIDTH, len(text) - room))
        text, mark = text[cut : cut + room], (" " * (column - cut) + "^" * min(width, room - _CONTEXT_WIDTH), word[1])
        say(console, (f"{problem.line:>5} | ", "blue"), text)
        if len(mark[0]) + len(problem.remedy) < room:
            say(console, margin, mark, f" {problem.remedy}")
        else:
            say(console, margin, mark)
            say(console, ("      = ", "blue"), problem.remedy)


def _mask_line(problem: ConfigProblem, line: str) -> tuple[str, int, int]:
    """Return a line of the file with possible secrets masked, and the column and the width of the mark below it."""
    words = known_words() | set(re.split(r"[.\[\]]+", problem.path))

    def mask_token(match: re.Match[str]) -> str:
        token = match[0]
        return token if token.strip("\"':") in words or _HARMLESS.fullmatch(token) else "…"

    line = re.split(r"(?:^|(?<=\s))#", line.replace("\t", " "), maxsplit=1)[0]  # a comment may hold a secret
    head, rest = _TOKEN.sub(mask_token, line[: problem.column - 1]), line[problem.column - 1 :]
    quoted = _QUOTED.search(problem.problem)
    written = re.match(rf"[\"']?{re.escape(quoted[1])}[\"']?", rest) if quoted else None
    found = written or _TOKEN.match(rest)
    culprit = found[0].removesuffix(":") if found else ""
    shown = culprit if written else _TOKEN.sub(mask_token, culprit)
    text = head + shown + _TOKEN.sub(mask_token, rest[len(culprit) :])
    return text.rstrip(), len(head), max(1, len(shown))


@cache
def known_words() -> frozenset[str]:
    """Return words that cannot be secret: the fixed keys of the configuration, kinds of sinks, and open statuses."""
    schema = Settings.model_json_schema()
    blocks = (schema, *schema["$defs"].values())
    return frozenset({*SINK_KINDS, *OPEN_STATUSES}).union(*(block.get("properties", ()) for block in blocks))
