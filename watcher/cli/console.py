"""Where people read: consoles that obey nothing in a text but our own styles, and signs every terminal can show."""

import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

PLAIN_SIGNS = str.maketrans({"✓": "+", "✕": "x", "○": "o", "▶": ">", "‖": "=", "·": "-", "…": "~"})
"""What stands for a sign where the encoding has none."""


def console_on(stream: TextIO) -> Console:
    """Return a console that reads no markup. Colours follow `NO_COLOR`, `FORCE_COLOR`, `TERM` and what it is."""
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def stdout_console() -> Console:
    """Return the console of the data a command prints."""
    return console_on(sys.stdout)


def stderr_console() -> Console:
    """Return the console of everything else."""
    return console_on(sys.stderr)


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print one line of texts, each perhaps with a style; where it is full, it goes on with the next word below."""
    shown = [(part, "") if isinstance(part, str) else part for part in parts]
    console.print(Text.assemble(*((printable(text, console=console), style) for text, style in shown)))


def printable(text: str, *, console: Console) -> str:
    """Return a text with nothing a terminal would obey, and with signs its encoding has."""
    return harmless(text) if "utf" in console.encoding else harmless(text).translate(PLAIN_SIGNS)


def harmless(text: str) -> str:
    """Return a text on one line with nothing a terminal would obey: control characters are shown by their codes."""
    return "".join(each if each.isprintable() else _shown(each) for each in text)


def _shown(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()
