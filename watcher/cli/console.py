"""What people read on a terminal: consoles that obey nothing in a text but our own styles, and tables of answers.

A table is cut to width, with ages, for people; programs get all of it. A field is named as the API names it, such as
`pipeline.name`; programs find it under this name.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from watcher.cli.shell import put, put_error
from watcher.runtime.terminal import harmless, printable
from watcher.runtime.units import spell_duration

SHOWN = 50
WHOLE = 16
"""A column no wider than this is cut only after those that are."""

_TIME = re.compile(r"(At|[sS]ince|[uU]ntil|oldest|^from)$")
_SIGNS = {
    **dict.fromkeys(("critical", "error", "dead", "failing", "degraded", "disabled"), ("✕ ", "red")),
    **dict.fromkeys(("warning", "paused", "retrying", "held", "silent", "overdue"), ("! ", "yellow")),
    "in_trouble": ("✕ ", "red"),
    "unknown": ("? ", "yellow"),
    **dict.fromkeys(("well", "delivered", "accepted"), ("✓ ", "green")),
}
"""Words that say how something is, with the sign and the style for them."""


def console_on(stream: TextIO) -> Console:
    """Return a console that reads no markup. Colours follow `NO_COLOR`, `FORCE_COLOR`, `TERM` and what it is."""
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def say(console: Console, *parts: str | tuple[str, str], wrap: bool = True) -> None:
    """Print one line of texts, each perhaps with a style.

    Where it is full, it goes on with the next word below; without `wrap`, wherever the terminal breaks it.
    """
    shown = [(part, "") if isinstance(part, str) else part for part in parts]
    console.print(
        Text.assemble(*((make_printable(text, console=console), style) for text, style in shown)),
        soft_wrap=not wrap,
    )


def make_printable(text: str, *, console: Console) -> str:
    """Return a text as that console may show it: on one line, with nothing a terminal would obey."""
    return printable(harmless(text), encoding=console.encoding)


def print_list(
    fields: Sequence[str],
    items: Iterable[dict[str, Any]],
    *,
    as_json: bool = False,
    note: Callable[[dict[str, Any]], str] = lambda _: "",
) -> None:
    """Print a list: as JSON, as rows for programs, or, on a terminal, the first 50 as a table, with notes below it."""
    if as_json:
        for item in items:
            put(json.dumps(item))
    elif not sys.stdout.isatty():
        rest = iter(items)
        first = [*islice(rest, 1)]  # a header means that the daemon did answer
        put(*fields)
        for item in chain(first, rest):
            put(*(harmless(_text(_value(item, field))) for field in fields))
    else:
        console, shown = console_on(sys.stdout), list(islice(items, SHOWN + 1))
        console.print(table(fields, shown[:SHOWN], console=console) if shown else "none")
        for text in filter(None, map(note, shown[:SHOWN])):
            say(console, text)
        if len(shown) > SHOWN:
            put_error(f"hint: these are the first {SHOWN}; piped, all are printed")


def print_done(done: str, answer: Mapping[str, Any], *, as_json: bool, failed: bool = False) -> None:
    """Print what was done, or failed: in a sentence, or as the daemon answered."""
    if as_json:
        put(json.dumps(answer))
    else:
        say(console_on(sys.stdout), ("✕ ", "red") if failed else ("✓ ", "green"), done, wrap=False)


def table(fields: Sequence[str], items: Sequence[Mapping[str, Any]], *, console: Console) -> Table:
    """Return a table for people, each row on one line. Moments are ages; of ids there is the beginning.

    Columns with nothing in them are left out.
    """
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    columns = []
    for field in fields:
        column = [_cell(field, _text(_value(item, field)), console=console) for item in items]
        if any(column):
            words = re.sub(r"([A-Z])", r" \1", field.rpartition(".")[2]).lower().removesuffix(" at")
            shown.add_column(words, no_wrap=max(map(len, column)) <= WHOLE)
            columns.append(column)
    for row in zip(*columns, strict=True):
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
    """Return how long ago a moment is: `4 m 10 s`, or how soon it comes: `in 4 s`."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    return spell_duration(seconds) if seconds > -1 else f"in {spell_duration(-seconds)}"


def until(moment: str | None) -> str:
    """Return until when something holds, in local time: ` until 14:04`, with the date if that is not today."""
    if moment is None:
        return ""
    local, now = datetime.fromisoformat(moment).astimezone(), datetime.now().astimezone()
    return f" until {local:%H:%M}" if local.date() == now.date() else f" until {local:%Y-%m-%d %H:%M}"
