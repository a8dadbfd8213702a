"""An event as one line for people. Knows what an event says, and nothing of where the line goes.

What the API said is text and nothing else: never markup, and no character of it is obeyed by a terminal.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from watcher.delivery.sinks.alert import Alert
from watcher.runtime.terminal import first_visible, harmless, printable


def event_console(fd: int) -> Console:
    """Return a console on a file descriptor. Colours follow `NO_COLOR`, `FORCE_COLOR`, `TERM` and what it is."""
    file = open(fd, "w", closefd=False, errors="replace")  # noqa: SIM115 (a descriptor that is not ours to close)
    return Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)


def render(event: Mapping[str, Any], *, console: Console) -> bytes:
    """Return the event's line as that console shows it, without a line end."""
    with console.capture() as captured:
        console.print(event_line(event), end="")
    return printable(captured.get(), encoding=console.encoding).encode(console.encoding, "replace")


def event_line(event: Mapping[str, Any], *, note: str = "") -> Text:
    """Return one event for people: when, what, which, how long it ran, how soon that was seen, a note, and why."""
    data = event["data"]
    execution = data.get("execution", {})
    subject, _, status = event["type"].partition(".")
    glyph, style = Alert.of(event).sign
    line = Text(f"{datetime.fromisoformat(data['observed']['at']).astimezone():%H:%M:%S} ")
    line.append(f"{glyph} {status if subject in ('execution', 'account') else event['type']:<8}", style=style)
    line.append(f" {_subject(data):<20}")
    line.append(f" {_short(event.get('subject', ''))}  ", style="dim")
    line.append(f"{_ran(execution):<11} {_seen(data['observed']):<17}{note}", "dim")
    line.append(f"  {why}" if (why := _why(data)) else "")
    line.rstrip()
    return line


def _subject(data: Mapping[str, Any]) -> str:
    return harmless(first_visible(data.get("pipeline", {}).get("name"), data.get("sink"), data.get("account")))


def _short(id_: str) -> str:
    return f"{id_[:4]}…{id_[-4:]}" if id_ else ""


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


def _why(data: Mapping[str, Any]) -> str:
    """Return the reason the watcher has, else the error of the first node that failed, else that of the execution."""
    execution = data.get("execution", {})
    if node := next(iter(execution.get("failedNodes", ())), None):
        return harmless(": ".join(filter(None, map(first_visible, (node.get("name"), node.get("error"))))))
    own = (data.get("reason"), data.get("cause"), data.get("answer"), execution.get("error"))
    return harmless(", ".join(filter(None, map(first_visible, own))))
