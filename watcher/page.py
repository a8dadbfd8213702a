"""A page of a list as a scan sees it: its rows in the order of reading, and which of them were known. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from watcher.clock import to_us
from watcher.models import Execution


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it was read: its rows in the order of reading, how many there are with those that cannot be read."""

    number: int
    rows: Sequence[Execution]
    row_count: int
    total: int | None
    ground: Collection[str]
    unsettled: Collection[str]
    ends_list: bool

    @property
    def is_known(self) -> bool:
        """Whether it holds anything a complete scan has found."""
        return self.has_ground or bool(self.unsettled)

    @property
    def has_ground(self) -> bool:
        """Whether it holds known ground."""
        return any(row.id in self.ground for row in self.rows)

    @property
    def ends_on_ground(self) -> bool:
        """Whether the last of its rows to be read is known ground."""
        return bool(self.rows) and self.rows[-1].id in self.ground

    @property
    def oldest_at(self) -> int | None:
        """The earliest date on it; an execution is not created after it starts or ends."""
        return min((at for row in self.rows if (at := begun(row)) is not None), default=None)


def begun(execution: Execution) -> int | None:
    """Return when it began, or at least ended (microseconds)."""
    at = execution.started_at or execution.finished_at
    return None if at is None else to_us(at)


def dated(execution: Execution) -> int | None:
    """Return when it ended, or at least began (microseconds)."""
    at = execution.finished_at or execution.started_at
    return None if at is None else to_us(at)
