"""The stdout sink: one event per line and nothing else, as JSON for programs or as text for people.

Texts from the API are never read as markup, and none of their characters controls a terminal.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Any, Literal

from pydantic import Field
from rich.console import Console
from rich.text import Text

from watcher.domain.delivery import Delivery
from watcher.runtime.terminal import first_visible, harmless, printable
from watcher.sinks.alert import Alert, report_title, with_newest_failure
from watcher.sinks.output import StdoutOutput
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext, WorkerRules
from watcher.sinks.settings import SinkSettings

LINES_COUNT = 256
"""The most lines that are written at once."""

WIDE_COLUMNS = 120
"""The least width of a terminal that shows whole execution ids. People need whole ids for `watcher wait`."""

_WRITTEN = SendResult(SendOutcome.DELIVERED, "written")
_DISK_FULL = SendResult(SendOutcome.BUSY, "disk_full", 1.0, remedy="stdout is on a full disk: make room there")


class StdoutSink(Sink):
    """The program's output, with one line per event."""

    batch_count = LINES_COUNT

    def __init__(self, output: StdoutOutput, *, format_: str = "json") -> None:
        readable = format_ == "text" or (format_ == "auto" and output.is_terminal)
        self._line_of: Callable[[Delivery], bytes] = attrgetter("body")
        if readable:
            console = event_console(output.fd)
            self._line_of = lambda delivery: render(delivery.content, console=console)
        self._output = output

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Write a line for each delivery. Raises `OutputClosedError` if the lines can never be written."""
        # The output's thread also renders the lines: rendering 256 lines of text would hold up the event loop.
        lines = map(self._line_of, batch)
        has_room = await self._output.thread.run(partial(self._output.write, lines))
        self.batch_count = LINES_COUNT if has_room else 1  # on a full disk the lines that fit are settled one by one
        return _WRITTEN if has_room else _DISK_FULL


class StdoutSettings(SinkSettings):
    """`{type: stdout}`."""

    type: Literal["stdout"] = Field(examples=["stdout"])
    """Writes each event to stdout as one line."""
    format: Literal["auto", "json", "text"] = Field(default="auto", examples=["json"])
    """`text` is a readable line, `json` the event itself; `auto` is `text` on a terminal, else `json`."""

    @property
    def rules(self) -> WorkerRules:
        """Return the rules by which the worker sends: no rate limit, and endless retries while the disk is full."""
        return WorkerRules((1.0,), None, float("inf"), breaks=False)

    def open(self, context: SinkContext) -> Sink:
        """Return the sink. Needs a running event loop."""
        assert context.output is not None
        return StdoutSink(context.output, format_=self.format)


def event_console(fd: int) -> Console:
    """Return a console on a file descriptor. Colours depend on the file, `NO_COLOR`, `FORCE_COLOR` and `TERM`."""
    file = open(fd, "w", closefd=False, errors="replace")  # noqa: SIM115 (the descriptor stays open)
    return Console(file=file, highlight=False, markup=False, emoji=False, soft_wrap=True)


def render(event: Mapping[str, Any], *, console: Console) -> bytes:
    """Return the event's line as the console shows it, without a line end."""
    with console.capture() as captured:
        console.print(event_line(event, whole_ids=shows_whole_ids(console)), end="")
    return printable(captured.get(), encoding=console.encoding).encode(console.encoding, "replace")


def shows_whole_ids(console: Console) -> bool:
    """Return whether the output has room for whole ids: every output but a narrow terminal."""
    return not console.file.isatty() or console.width >= WIDE_COLUMNS


def event_line(event: Mapping[str, Any], *, whole_ids: bool = False, note: str = "") -> Text:
    """Return an event as a line: time, type, pipeline, id, duration, delay until the event was seen, note, reason."""
    alert = Alert.of(event)
    data, (glyph, style) = alert.data, alert.sign
    execution = data.get("execution", {})
    subject, _, status = event["type"].partition(".")
    # In `problem.reminder` and the like, `observed` is that of the opening.
    observed = {"at": event["time"]} if subject == "problem" else data["observed"]
    line = Text(f"{datetime.fromisoformat(observed['at']).astimezone():%H:%M:%S} ")
    line.append(f"{glyph} {status if subject in ('execution', 'account') else event['type']:<8}", style=style)
    name = data.get("pipeline", {}).get("name") or data.get("report", {}).get("name")
    about = harmless(first_visible(name, data.get("sink"), data.get("account")))
    line.append(f" {about:<20}")
    id_ = event.get("subject", "")
    line.append(f" {id_ if whole_ids or not id_ else f'{id_[:4]}…{id_[-4:]}'}  ", style="dim")
    ran = f"ran {execution['durationSeconds']:.1f} s" if "durationSeconds" in execution else ""
    line.append(f"{ran:<11} {_seen(observed):<17}{note}", "dim")
    line.append(f"  {reason}" if (reason := reason_of(data)) else "")
    line.rstrip()
    return line


def _seen(observed: Mapping[str, Any]) -> str:
    """Return the delay until an event was seen, or for an event without a date the span in which it happened."""
    if "delaySeconds" in observed:
        return f"seen after {observed['delaySeconds']:.1f} s"
    if "notBefore" in observed:
        at, not_before = (datetime.fromisoformat(observed[key]) for key in ("at", "notBefore"))
        return f"seen within {(at - not_before).total_seconds():.1f} s"
    return ""


def reason_of(data: Mapping[str, Any]) -> str:
    """Return the error of the first node that failed, else the reasons in the event. For a report return its title."""
    if "report" in data:
        return report_title(data["report"])
    execution = with_newest_failure(data).get("execution", {})
    if node := next(iter(execution.get("failedNodes", ())), None):
        return harmless(": ".join(filter(None, map(first_visible, (node.get("name"), node.get("error"))))))
    own = (data.get("reason"), data.get("cause"), data.get("answer"), execution.get("error"))
    return harmless(", ".join(filter(None, map(first_visible, own))))
