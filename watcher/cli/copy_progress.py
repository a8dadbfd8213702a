"""How far a copy of a store is: a bar on a terminal, else a line now and then. All on stderr."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from watcher.cli.stdio import put_error
from watcher.domain.timestamps import Monotonic
from watcher.runtime.clock import Clock
from watcher.store.copying.transfer import CopyProgress

LINE_EVERY_S = 10.0

FINISHING = "all rows are written; finishing"


class CopyView(CopyProgress, AbstractContextManager["CopyView"], Protocol):
    """Shows it from its beginning to its end."""


def copy_view(console: Console, *, clock: Clock) -> CopyView:
    """Return what suits that console."""
    return BarView(console) if console.is_terminal and not console.is_dumb_terminal else LinesView(clock)


class LinesView:
    """Says what there is to copy, and at most every 10 s how much of it is copied."""

    def __init__(self, clock: Clock) -> None:
        """Say nothing yet."""
        self._clock = clock
        self._done = self._total = 0
        self._said_at = Monotonic(0)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def begin(self, counts: Mapping[str, int]) -> None:
        """Say how much there is."""
        self._total = sum(counts.values())
        self._say(f"copying {self._total:,} rows")

    def copied(self, table: str, count: int) -> None:
        """Say how far it is, if nothing was said for a while."""
        self._done += count
        if self._clock.monotonic() >= self._said_at + LINE_EVERY_S:
            self._say(f"copied {self._done:,} of {self._total:,} rows ({table})")

    def finish(self) -> None:
        """Say that only the end is missing."""
        self._say(FINISHING)

    def _say(self, text: str) -> None:
        put_error(text)
        self._said_at = self._clock.monotonic()


class BarView:
    """A line that is redrawn in place, and gone at the end."""

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        rows = TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows")
        columns = (TextColumn("{task.description}"), BarColumn(), rows, TimeRemainingColumn(compact=True))
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("reading", total=0, visible=False)

    def __enter__(self) -> Self:
        """Begin."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing on the screen."""
        self._progress.stop()

    def begin(self, counts: Mapping[str, int]) -> None:
        """Show how much there is."""
        self._progress.update(self._task, total=sum(counts.values()), visible=True)

    def copied(self, table: str, count: int) -> None:
        """Show how far it is."""
        self._progress.update(self._task, advance=count, description=f"copying {table}")

    def finish(self) -> None:
        """Show that only the end is missing."""
        self._progress.update(self._task, description="finishing")
