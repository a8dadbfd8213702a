"""An event as one line for people. Knows what an event says, and nothing of where the line goes.

What the API said is text and nothing else: never markup, and no character of it is obeyed by a terminal.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from watcher.runtime.terminal import first_visible, harmless, printable
from watcher.sinks.alert import Alert

WIDE_COLUMNS = 120
"""On a terminal so wide the execution's whole id is shown, for `watcher wait`."""


def event_console(fd: int) -> Console:
    """Return a console on a file descriptor. Colours follow `NO_COLOR`, `FORCE_COLOR`, `TERM` and what it is."""
    file = open(fd, "w", closefd=False, errors="replace")  # noqa: SIM115 (a descriptor that is not ours to close)
    return Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)


def render(event: Mapping[str, Any], *, console: Console) -> bytes:
    """Return the event's line as that console shows it, without a line end."""
    with console.capture() as captured:
        console.print(event_line(event, whole_ids=shows_whole_ids(console)), end="")
    return printable(captured.get(), encoding=console.encoding).encode(console.encoding, "replace")


def shows_whole_ids(console: Console) -> bool:
    """Return whether there is room for whole ids: always but on a terminal that is not wide."""
    return not console.file.isatty() or console.width >= WIDE_COLUMNS


def event_line(event: Mapping[str, Any], *, whole_ids: bool = False, note: str = "") -> Text:
    """Return one event for people: when, what, which, how long it ran, how soon that was seen, a note, and why."""
    data = event["data"]
    execution = data.get("execution", {})
    subject, _, status = event["type"].partition(".")
    glyph, style = Alert.of(event).sign
    line = Text(f"{datetime.fromisoformat(data['observed']['at']).astimezone():%H:%M:%S} ")
    line.append(f"{glyph} {status if subject in ('execution', 'account') else event['type']:<8}", style=style)
    line.append(f" {_subject(data):<20}")
    id_ = event.get("subject", "")
    line.append(f" {id_ if whole_ids or not id_ else f'{id_[:4]}…{id_[-4:]}'}  ", style="dim")
    line.append(f"{_ran(execution):<11} {_seen(data['observed']):<17}{note}", "dim")
    line.append(f"  {reason}" if (reason := why(data)) else "")
    line.rstrip()
    return line


def _subject(data: Mapping[str, Any]) -> str:
    return harmless(first_visible(data.get("pipeline", {}).get("name"), data.get("sink"), data.get("account")))


def _ran(execution: Mapping[str, Any]) -> str:
    return f"ran {execution['durationSeconds']:.1f} s" if "durationSeconds" in execution else ""


def _seen(observed: Mapping[str, Any]) -> str:
    """Say how soon it was seen, or, where the API does not date it, within what time it happened."""
    if "delaySeconds" in observed:
        return f"seen after {observed['delaySeconds']:.1f} s"
    if "notBefore" in observed:
        at, not_before = (datetime.fromisoformat(observed[key]) for key in ("at", "notBefore"))
        return f"seen within {(at - not_before).total_seconds():.1f} s"
    return ""


def why(data: Mapping[str, Any]) -> str:
    """Return the reason the watcher has, else the error of the first node that failed, else that of the execution."""
    execution = data.get("execution", {})
    if node := next(iter(execution.get("failedNodes", ())), None):
        return harmless(": ".join(filter(None, map(first_visible, (node.get("name"), node.get("error"))))))
    own = (data.get("reason"), data.get("cause"), data.get("answer"), execution.get("error"))
    return harmless(", ".join(filter(None, map(first_visible, own))))
