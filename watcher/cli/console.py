"""Where people read: consoles that obey nothing in a text but our own styles."""

from typing import TextIO

from rich.console import Console
from rich.text import Text

from watcher.runtime.terminal import harmless, printable


def console_on(stream: TextIO) -> Console:
    """Return a console that reads no markup. Colours follow `NO_COLOR`, `FORCE_COLOR`, `TERM` and what it is."""
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def say(console: Console, *parts: str | tuple[str, str], wrap: bool = True) -> None:
    """Print one line of texts, each perhaps with a style.

    Where it is full, it goes on with the next word below; without `wrap`, wherever the terminal breaks it.
    """
    shown = [(part, "") if isinstance(part, str) else part for part in parts]
    console.print(
        Text.assemble(*((printed(text, console=console), style) for text, style in shown)),
        soft_wrap=not wrap,
    )


def printed(text: str, *, console: Console) -> str:
    """Return a text as that console may show it: on one line, with nothing a terminal would obey."""
    return printable(harmless(text), encoding=console.encoding)
