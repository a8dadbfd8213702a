"""A wait on a terminal that is not there, on one that goes away, and its sign of life without one."""

import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from io import StringIO
from uuid import UUID

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from watcher.errors import OutputClosedError
from watcher.models import Event, EventType, Outcome
from watcher.progress import Moment, Progress, Stay, Subject, Trouble
from watcher.sinks.stdout import Output
from watcher.terminal.views import EventView, LineView, live_view

SUBJECT = Subject("0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", "9a1b0000-0000-4000-8000-000000000001")
MOMENT = Moment(5_000_000, 5.0, None)


class Screen(StringIO):
    """A terminal that may be torn away."""

    gone = False

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError
        return super().write(text)


def running() -> Progress:
    progress = Progress(lost_after=3)
    progress.stays = (Stay("running", 0),)
    return progress


def console_on(screen: StringIO, *, columns: int = 100) -> Console:
    return Console(file=screen, force_terminal=True, width=columns, height=20, color_system=None, legacy_windows=False)


async def shown(*widths: int) -> list[str]:
    """Return what is written for each picture, at these widths of the terminal."""
    screen = Screen()
    console, written = console_on(screen), list[str]()
    async with live_view(console, SUBJECT) as view:
        for columns in widths:
            console.width = columns
            begin = screen.tell()
            view.show(running(), MOMENT)
            written.append(screen.getvalue()[begin:])
    return written


UP: Callable[[str], int] = lambda text: text.count("\x1b[1A")  # noqa: E731 (how often the cursor goes up)


async def test_the_next_picture_takes_the_place_of_the_last() -> None:
    first, second = await shown(100, 100)
    assert "running 5 s" in first
    assert UP(second) == 2


async def test_on_a_terminal_that_became_narrower_it_takes_the_place_of_the_wrapped_lines_too() -> None:
    _, second = await shown(100, 30)
    assert UP(second) == 2 + 2
    assert max(len(line) for line in second.split("\n")) < 100


async def test_a_terminal_that_is_gone_ends_it_like_a_closed_pipe() -> None:
    screen = Screen()
    async with live_view(console_on(screen), SUBJECT) as view:
        screen.gone = True
        with pytest.raises(OutputClosedError):
            view.show(running(), MOMENT)


EVENT = Event(
    UUID(int=1),
    EventType.EXECUTION_RUNNING,
    b"stream",
    1,
    b'{"time": "2026-11-24T10:00:00.000Z", "data": {"execution": {"status": "running"}}}',
)


@pytest.fixture(params=[EventView, LineView])
async def quiet(request: pytest.FixtureRequest) -> AsyncIterator[EventView | LineView]:
    fd = os.open(os.devnull, os.O_WRONLY)
    out = Output(fd)
    yield request.param(out)
    out.close()
    os.close(fd)


def signs(view: EventView | LineView, *seconds: float, progress: Progress | None = None) -> list[dict[str, object]]:
    """Return what is logged when the view is shown the moments so many seconds from the start."""
    with capture_logs() as logs:
        for second in seconds:
            view.show(progress or running(), Moment(0, second, None))
    return [dict(entry) for entry in logs]


async def test_without_a_terminal_a_minute_of_silence_brings_a_sign_of_life(quiet: EventView | LineView) -> None:
    sign = {"event": "waiting", "log_level": "info", "status": "running", "looks": 0}
    assert signs(quiet, 5, 5.25, 64.9) == []
    assert signs(quiet, 65.1, 65.3, 124.9) == [sign]
    assert signs(quiet, 125.1) == [sign]


async def test_what_was_stopped_for_long_gives_one_sign_of_life(quiet: EventView | LineView) -> None:
    assert len(signs(quiet, 0, 600, 600.25, 601, 659)) == 1


async def test_a_sign_of_life_says_what_the_trouble_is(quiet: EventView | LineView) -> None:
    progress = Progress(lost_after=3)
    progress.trouble = Trouble(Outcome.RATE_LIMITED, "429", datetime(2026, 11, 24, tzinfo=UTC))
    (sign,) = signs(quiet, 0, 60, progress=progress)
    assert (sign["status"], sign["trouble"]) == (None, "429")


async def test_whatever_is_told_is_a_sign_of_life_too(quiet: EventView | LineView) -> None:
    assert signs(quiet, 0, 59) == []
    await quiet.tell(EVENT, running())
    assert signs(quiet, 61, 119) == []
    assert len(signs(quiet, 121)) == 1
