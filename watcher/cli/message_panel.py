"""A message as its receiver would show it, in a frame on a terminal."""

from collections.abc import Sequence

from rich.panel import Panel
from rich.text import Text

from watcher.runtime.terminal import harmless, printable

WIDTH = 100
"""Columns of a frame at most: a longer line goes on below."""


def message_panel(lines: Sequence[str], *, title: str, encoding: str) -> Panel:
    """Return these lines, the first of them bold, under a title. None of them is markup, or obeyed by a terminal."""
    texts = [printable(harmless(line), encoding=encoding) for line in lines]
    text = Text("\n").join(Text(each, "" if number else "bold") for number, each in enumerate(texts))
    heading = Text(printable(harmless(title), encoding=encoding))
    return Panel(text, title=heading, title_align="left", border_style="dim", padding=(0, 1), width=WIDTH)
