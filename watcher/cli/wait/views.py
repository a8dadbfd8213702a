"""Where a wait is shown: events or lines on stdout, or a live display on a terminal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from watcher.cli.stdio import OutputFailedError
from watcher.cli.wait.display import change_line, picture, sign_of_life, wrapped_count
from watcher.cli.wait.follower import View
from watcher.cli.wait.progress import Progress, RenderTime, Subject
from watcher.delivery.sinks.stdout import StdoutOutput
from watcher.domain.errors import OutputClosedError
from watcher.domain.event import Event
from watcher.domain.timestamps import Monotonic

STDOUT_FD = 1
SIGN_OF_LIFE_S = 60.0


class _OutputView:
    """A view that writes what is reported, and between that says every minute, beside it, that it still waits."""

    def __init__(self, out: StdoutOutput, say: Callable[[str], None]) -> None:
        self._out = out
        self._say = say
        self._sign_at: Monotonic | None = None

    def show(self, progress: Progress, moment: RenderTime) -> None:
        """Say how it stands, if nothing was said for a minute."""
        if self._sign_at is None:
            self._sign_at = Monotonic(moment.monotonic + SIGN_OF_LIFE_S)
        if moment.monotonic >= self._sign_at:
            self._sign_at = Monotonic(moment.monotonic + SIGN_OF_LIFE_S)
            self._say(sign_of_life(progress, moment))

    async def _write(self, line: bytes) -> None:
        """Write a line. Raises `OutputFailedError` when the disk is full: nobody would see what the wait is for."""
        loop, is_full = asyncio.get_running_loop(), asyncio.Event()

        def note_full(_why: str) -> None:
            loop.call_soon_threadsafe(is_full.set)

        writing = asyncio.create_task(self._out.write([line], retried=note_full))
        failing = asyncio.create_task(is_full.wait())
        try:
            await asyncio.wait({writing, failing}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                raise OutputFailedError("cannot write to stdout (no space left on device)")
            writing.result()
        finally:
            writing.cancel()
            failing.cancel()
        self._sign_at = None


class EventView(_OutputView):
    """The events as the daemon gives them, one per line."""

    async def on_event(self, event: Event, progress: Progress) -> None:
        """Write the event."""
        await self._write(event.body)


class LineView(_OutputView):
    """One line per change of the execution."""

    async def on_event(self, event: Event, progress: Progress) -> None:
        """Write the line of an event of the execution; the account's trouble is part of a sign of life."""
        if event.type.startswith("execution."):
            await self._write(change_line(event, progress.execution).encode())


class LiveView:
    """Four lines redrawn in place, the last of which stay."""

    def __init__(self, live: Live, subject: Subject) -> None:
        self._live = live
        self._subject = subject
        self._shown = Text()

    async def on_event(self, event: Event, progress: Progress) -> None:
        """Leave it to the next picture."""

    def show(self, progress: Progress, moment: RenderTime) -> None:
        """Redraw."""
        columns = self._live.console.width
        try:
            for _ in range(wrapped_count(self._shown, columns=columns)):
                # There only since the terminal became narrower: Rich does not know of these rows.
                self._live.console.control(Control((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)))
            self._shown = picture(self._subject, progress, moment, columns=columns)
            self._live.update(self._shown, refresh=True)
        except OSError:
            raise OutputClosedError("the terminal is gone") from None


@asynccontextmanager
async def stdout_view(*, as_json: bool, say: Callable[[str], None]) -> AsyncIterator[View]:
    """Show a wait to programs, or to people later. A reader that is slow holds up nothing but its lines.

    `say` takes a sign of life for people, and must not wait for anybody.
    """
    out = StdoutOutput(STDOUT_FD)
    try:
        yield EventView(out, say) if as_json else LineView(out, say)
    finally:
        out.close()


@asynccontextmanager
async def live_view(console: Console, subject: Subject) -> AsyncIterator[View]:
    """Show a wait to whoever sits before the terminal."""
    live = Live(Text(), console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    live.start()
    try:
        yield LiveView(live, subject)
    finally:
        with suppress(OSError):  # gone as well: that is reported already, if anybody still reads
            live.stop()
