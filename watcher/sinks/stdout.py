"""The stdout sink: one event per line and nothing else, JSON for programs or a line for people.

Its one thread writes; a reader that is slow or hangs holds up that thread alone, and never the end of the program. A
line may be left half written by that end. In a file the next start ends it; out of a pipe it cannot be taken back.

What the API said is text and nothing else: never markup, and no character of it is obeyed by a terminal.
"""

import errno
import fcntl
import os
import select
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Literal

import structlog
from pydantic import Field
from rich.console import Console
from rich.text import Text

from watcher.domain.delivery import Delivery
from watcher.domain.errors import OutputClosedError
from watcher.runtime.terminal import first_visible, harmless, printable
from watcher.runtime.threads import WorkerThreads
from watcher.sinks.alert import Alert
from watcher.sinks.protocol import (
    Output,
    RetryRules,
    SendOutcome,
    SendResult,
    Sink,
    SinkContext,
    WorkerRules,
)
from watcher.sinks.settings import SinkSettings

log = structlog.get_logger()

FULL_DISK_WAIT_S = 1.0
FULL_DISK_NOTE = "stdout is on a full disk, so events wait; make room there"

BATCH_COUNT = 256
"""So many lines are written at once at most."""

WIDE_COLUMNS = 120
"""On a terminal so wide the execution's whole id is shown, for `watcher wait`."""

_WRITTEN = SendResult(SendOutcome.DELIVERED, "written")
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StdoutOutput:
    """Writes lines to a file descriptor, blocking or not. All sinks share one, or their lines would mix."""

    def __init__(self, fd: int, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Start the thread."""
        self.fd = fd
        self._sleep = sleep
        self._thread = WorkerThreads("stdout")
        self._thread.put(self._end_half_line)

    @property
    def is_terminal(self) -> bool:
        """Whether people read it."""
        return os.isatty(self.fd)

    async def write(self, lines: Iterable[bytes], *, sink: str, retried: Callable[[str], None]) -> None:
        """Return once the lines, which are `sink`'s, are written in full.

        The thread takes the lines from the iterable, and calls `retried` at each further try on a full disk. Raises
        `OutputClosedError`, which says why, if they can never be written.
        """
        if error := await self._thread.run(partial(self._write, lines, sink=sink, retried=retried)):
            is_closed = error.errno == errno.EPIPE
            why = "was closed by its reader" if is_closed else f"cannot be written: {error.strerror}"
            raise OutputClosedError(f"stdout {why}")

    def close(self) -> None:
        """Let the thread end after what it was given; nobody waits for it."""
        self._thread.close()

    def _end_half_line(self) -> None:
        if _stands_in_mid_line(self.fd):
            self._write([b""], sink="", retried=lambda _why: None)  # it is no delivery that is written

    def _write(self, lines: Iterable[bytes], *, sink: str, retried: Callable[[str], None]) -> OSError | None:
        """Write all of them, however long that takes. Return why that is impossible, if it is."""
        rest, full = memoryview(b"".join(line + b"\n" for line in lines)), False
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                space = select.poll()
                space.register(self.fd, select.POLLOUT)
                space.poll()
            except OSError as error:
                if error.errno not in _DISK_FULL:
                    return error
                if not full:
                    log.warning("stdout.full", sink=sink, note=FULL_DISK_NOTE)
                full = True
                self._sleep(FULL_DISK_WAIT_S)
                retried("disk_full")
        if full:
            log.info("stdout.recovered", sink=sink)
        return None


class StdoutSink(Sink):
    """Sends each event to the program's output as one line."""

    batch_count = BATCH_COUNT

    def __init__(
        self, output: Output, *, format_: str = "json", retried: Callable[[str], None] = lambda _why: None
    ) -> None:
        """Call `retried` at each further try on a full disk."""
        readable = format_ == "text" or (format_ == "auto" and output.is_terminal)
        self._console = event_console(output.fd) if readable else None
        self._output = output
        self._retried = retried

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Return once the lines are written in full. Raises `OutputClosedError` if they can never be."""
        # Made as they are written, in that thread: to render 256 lines for people in one turn would hold up every poll.
        await self._output.write(map(self._line, batch), sink=batch[0].sink, retried=self._retried)
        return _WRITTEN

    async def close(self) -> None:
        """Leave the output to the others."""

    def _line(self, delivery: Delivery) -> bytes:
        return delivery.body if self._console is None else render(delivery.content, console=self._console)


class StdoutSettings(SinkSettings):
    """`{type: stdout}`."""

    type: Literal["stdout"] = Field(description="Writes each event to stdout, one line each.", examples=["stdout"])
    format: Literal["auto", "json", "text"] = Field(
        default="auto",
        description="`text` is a readable line, `json` the event itself; `auto` is `text` on a terminal, else `json`.",
        examples=["json"],
    )

    @property
    def rules(self) -> WorkerRules:
        """Send without a pace, and try again for ever: nothing but a full disk fails."""
        return WorkerRules(RetryRules((1.0,), None), float("inf"), breaks=False)

    def open(self, context: SinkContext) -> Sink:
        """Return the sink. Needs a running event loop."""
        assert context.output is not None
        return StdoutSink(context.output, format_=self.format, retried=context.retried)


def _stands_in_mid_line(fd: int) -> bool:
    """Return whether fd is a file that goes on right after half a line. One that cannot be read counts as whole."""
    with suppress(OSError):
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode):
            appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
            position = found.st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
            return position > 0 and _byte_at(position - 1, fd=fd) != b"\n"
    return False


def _byte_at(position: int, *, fd: int) -> bytes:
    """Read from an open file, which may be open for writing alone."""
    reading = os.open(f"/dev/fd/{fd}", os.O_RDONLY)
    try:
        return os.pread(reading, 1, position)
    finally:
        os.close(reading)


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
