"""A wait on a terminal that is not there, and on one that goes away."""

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from watcher.errors import OutputClosedError
from watcher.progress import Moment, Progress, Stay, Subject
from watcher.terminal.views import live_view

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
