"""How a scan ended, and what it hands on to the next. Only facts; what follows from them others say."""

from dataclasses import dataclass, field

from watcher.domain.models import GapReason
from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.sort_order import Ordering
from watcher.polling.pagination.totals import TotalTrust


@dataclass(frozen=True, slots=True)
class TraversalResult:
    """How a scan ended: with everything seen, or with a gap in which `at_most` executions (if known) may be missing."""

    gap: GapReason | None = None
    at_most: int | None = None


@dataclass(frozen=True, slots=True)
class CarryOver:
    """What one complete scan hands on to the next.

    `total` is how many rows the list has (newest first: what the API says, or what its only page shows; oldest first:
    what was seen), `total_before` what that was a scan earlier: what is said once may be untrue. `trust` tells
    whether what is said is believed. `top` are the ids of the rows that it met first. `length` is how many rows were
    seen when all of the list was read last. `seen` are the ids of those that scans saw since which were made anew, for
    they ended too early: together they count. `found` are those that it counted as new: where it probed for the end
    they are not yet known when the next one begins. The list `is_too_long` where it grew by rows that are so far down
    that they were not found: `total` is without these.
    """

    ordering: Ordering
    paging: Paging
    total: int | None = None
    total_before: int | None = None
    trust: TotalTrust = field(default_factory=TotalTrust)
    top: tuple[str, ...] = ()
    length: int = 0
    seen: frozenset[str] = frozenset()
    found: frozenset[str] = frozenset()
    is_too_long: bool = False
