"""A wait on a terminal that is not there, on one that goes away, and its sign of life without one."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from uuid import UUID

import pytest
from rich.console import Console

from watcher.cli.stdio import OutputFailedError
from watcher.cli.wait.progress import PollFailure, Progress, RenderTime, StatusPeriod, Subject
from watcher.cli.wait.views import EventView, LineView, live_view
from watcher.delivery.sinks.stdout import StdoutOutput
from watcher.domain.errors import OutputClosedError
from watcher.domain.event import Event, EventType
from watcher.domain.execution import Outcome
from watcher.domain.timestamps import Micros, Monotonic

SUBJECT = Subject("0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", "9a1b0000-0000-4000-8000-000000000001")
MOMENT = RenderTime(Micros(5_000_000), Monotonic(5.0), None)


class Screen(StringIO):
    """A terminal that may be torn away."""

    gone = False

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError
        return super().write(text)


def running() -> Progress:
    progress = Progress(lost_after=3)
    progress.periods = (StatusPeriod("running", Micros(0)),)
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


@dataclass
class Quiet:
    """A view whose lines go nowhere, and what it says beside them."""

    view: EventView | LineView
    said: list[str]

    def signs(self, *seconds: float, progress: Progress | None = None) -> list[str]:
        """Return what is said when it is shown the moments so many seconds from the start."""
        self.said.clear()
        for second in seconds:
            self.view.show(
                progress or running(), RenderTime(Micros(round(second * 1_000_000)), Monotonic(second), None)
            )
        return self.said.copy()


@pytest.fixture(params=[EventView, LineView])
async def quiet(request: pytest.FixtureRequest) -> AsyncIterator[Quiet]:
    fd, said = os.open(os.devnull, os.O_WRONLY), list[str]()
    out = StdoutOutput(fd)
    yield Quiet(request.param(out, said.append), said)
    out.close()
    os.close(fd)


async def test_without_a_terminal_a_minute_of_silence_brings_a_sign_of_life(quiet: Quiet) -> None:
    assert quiet.signs(5, 5.25, 64.9) == []
    assert quiet.signs(65.1, 65.3, 124.9) == ["waiting: running 1 m 5 s · polls 0"]
    assert quiet.signs(125.1) == ["waiting: running 2 m 5 s · polls 0"]


async def test_what_was_stopped_for_long_gives_one_sign_of_life(quiet: Quiet) -> None:
    assert len(quiet.signs(0, 600, 600.25, 601, 659)) == 1


async def test_a_sign_of_life_says_what_the_trouble_is(quiet: Quiet) -> None:
    progress, since = Progress(lost_after=3), datetime(2026, 11, 24, tzinfo=UTC)
    progress.failure = PollFailure(Outcome.RATE_LIMITED, "429", since)
    (sign,) = quiet.signs(0, 60, progress=progress)
    assert sign == f"waiting: not seen yet · polls 0 · API 429 since {since.astimezone():%H:%M}, pausing as requested"


async def test_whatever_is_reported_is_a_sign_of_life_too(quiet: Quiet) -> None:
    assert quiet.signs(0, 59) == []
    await quiet.view.on_event(EVENT, running())
    assert quiet.signs(61, 119) == []
    assert len(quiet.signs(121)) == 1


async def test_a_full_disk_ends_it_with_an_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    output = StdoutOutput(full, sleep=lambda _s: None)
    with pytest.raises(OutputFailedError, match="no space left"):
        await EventView(output, print).on_event(EVENT, running())
    with open("/dev/null", "wb") as nowhere:  # noqa: ASYNC230, PTH123 (a device)
        os.dup2(nowhere.fileno(), full)  # so that its thread comes to an end
    output.close()
