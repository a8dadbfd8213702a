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
        dates = [row.started_at or row.finished_at for row in self.rows]
        return min((to_us(date) for date in dates if date is not None), default=None)
