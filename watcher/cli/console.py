"""Terminal output: consoles that read no markup in a text, and lists and tables of the daemon's answers.

On a terminal a table is cut to the terminal's width, and shows ages instead of times. Elsewhere all rows are printed
with whole values, below the names of the API's fields, such as `pipeline.name`.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from watcher.cli.shell import put, put_error
from watcher.domain.event import Severity
from watcher.domain.problems import PROBLEM_KINDS, severity_of
from watcher.runtime.terminal import harmless, printable
from watcher.runtime.units import spell_duration

ROWS_COUNT = 50
"""Maximum number of rows of a list on a terminal."""

UNCUT_WIDTH = 16
"""A column of at most this width, in characters, is cut only after all wider columns."""

NAME_WIDTH = 40
"""A name is not cut below this width, in characters: the last columns of its table are left out instead."""

_TIME = re.compile(r"(At|\.at|[sS]ince|[uU]ntil|oldest|^from)$")
_SIGN_OF: Mapping[str, tuple[str, str]] = {
    Severity.CRITICAL: ("✕ ", "red"),
    Severity.ERROR: ("✕ ", "red"),
    Severity.WARNING: ("! ", "yellow"),
}
_SIGNS: Mapping[str, tuple[str, str]] = {
    **{kind.rpartition(".")[2]: _SIGN_OF[severity_of(kind)] for kind in PROBLEM_KINDS},
    **_SIGN_OF,
    "dead": _SIGN_OF[Severity.ERROR],
    **dict.fromkeys(("paused", "retrying", "held", "behind"), _SIGN_OF[Severity.WARNING]),
    "in_trouble": ("✕ ", "red"),
    "unknown": ("? ", "yellow"),
    **dict.fromkeys(("well", "delivered", "accepted"), ("✓ ", "green")),
}
"""The sign and the style of a table's cell that holds a state or a severity, by the cell's text."""


def console_on(stream: TextIO) -> Console:
    """Return a console that reads no markup. Colours depend on `NO_COLOR`, `FORCE_COLOR`, `TERM` and the stream."""
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def say(console: Console, *parts: str | tuple[str, str], wrap: bool = True) -> None:
    """Print one line, made of texts with or without a style.

    With `wrap` a line that is wider than the console breaks between words, without `wrap` at any character.
    """
    shown = [(part, "") if isinstance(part, str) else part for part in parts]
    console.print(
        Text.assemble(*((make_printable(text, console=console), style) for text, style in shown)),
        soft_wrap=not wrap,
    )


def make_printable(text: str, *, console: Console) -> str:
    """Return a text on one line. Control characters, and signs that the console's encoding lacks, are replaced."""
    return printable(harmless(text), encoding=console.encoding)


def print_list(fields: Sequence[str], items: Iterable[dict[str, Any]], *, as_json: bool = False) -> None:
    """Print a list: as JSON lines, on a terminal as a table of 50 rows, otherwise as tab-separated rows."""
    if as_json:
        for item in items:
            put(json.dumps(item))
    elif not sys.stdout.isatty():
        rest = iter(items)
        first = [*islice(rest, 1)]  # the daemon must answer first: an error is printed without a header
        put(*fields)
        for item in chain(first, rest):
            put(*(harmless(_text(_value(item, field))) for field in fields))
    else:
        console, found = console_on(sys.stdout), list(islice(items, ROWS_COUNT + 1))
        console.print(table(fields, found[:ROWS_COUNT], console=console) if found else "none")
        if len(found) > ROWS_COUNT:
            put_error(f"hint: these are the first {ROWS_COUNT}; piped, all are printed")


def print_done(done: str, answer: Mapping[str, Any], *, as_json: bool, failed: bool = False) -> None:
    """Print the result of an action: the sentence `done`, or with `as_json` the daemon's answer."""
    if as_json:
        put(json.dumps(answer))
    else:
        say(console_on(sys.stdout), ("✕ ", "red") if failed else ("✓ ", "green"), done, wrap=False)


def table(fields: Sequence[str], items: Sequence[Mapping[str, Any]], *, console: Console) -> Table:
    """Return a table with one row per item, without empty columns.

    Times are shown as ages, and ids by their first 8 characters. The `notes` of an item stand below the text in its
    last column, which is not cut then.
    """
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    columns: dict[str, list[Text]] = {}
    least: dict[str, int] = {}
    for field in fields:
        column = [_cell(field, _text(_value(item, field)), console=console) for item in items]
        if any(column):
            words = re.sub(r"([A-Z])", r" \1", field.rpartition(".")[2]).lower().removesuffix(" at")
            width = max(len(words), *map(len, column))
            columns[words], least[words] = column, 2 + min(width, NAME_WIDTH if words == "name" else UNCUT_WIDTH)
    while "name" in least and len(least) > 2 and sum(least.values()) > console.width + 2:
        del columns[least.popitem()[0]]
    for words, column in columns.items():
        limit = max(NAME_WIDTH, console.width - sum(least.values()) + least[words]) if words == "name" else None
        shown.add_column(words, no_wrap=bool(limit) or max(map(len, column)) <= UNCUT_WIDTH, max_width=limit)
    for item, row in zip(items, zip(*columns.values(), strict=True), strict=True):
        for note in filter(None, item.get("notes", ())):
            row[-1].no_wrap, row[-1].overflow = False, "fold"
            row[-1].append(f"\n{make_printable(note, console=console)}", "dim")
        shown.add_row(*row)
    return shown


def _cell(field: str, text: str, *, console: Console) -> Text:
    sign, style = _SIGNS.get(text, ("", ""))
    if text and _TIME.search(field):
        text = age(text)
    elif len(text) == 36 and " " not in text:
        text = text[:8]
    return Text(make_printable(sign + text, console=console), style, no_wrap=True, overflow="ellipsis")


def _value(item: Any, field: str) -> Any:
    for key in field.split("."):
        item = item.get(key) if isinstance(item, Mapping) else None
    return item


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_text(each)}" for key, each in value.items() if each)
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def age(moment: str) -> str:
    """Return the time since a past moment, such as `4 m 10 s`, or until a future moment, such as `in 4 s`."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    return spell_duration(seconds) if seconds > -1 else f"in {spell_duration(-seconds)}"


def until(moment: str | None) -> str:
    """Return ` until ` and a moment in local time, with its date unless that is today; an empty text for `None`."""
    if moment is None:
        return ""
    local, now = datetime.fromisoformat(moment).astimezone(), datetime.now().astimezone()
    return f" until {local:%H:%M}" if local.date() == now.date() else f" until {local:%Y-%m-%d %H:%M}"
