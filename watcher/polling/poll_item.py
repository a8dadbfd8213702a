"""What an account asks for, executions and lists, by which rules, and what is known of each meanwhile. Pure data."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, LATEST, NEVER, Micros, Monotonic
from watcher.domain.watch import Details, FirstSight, Watch

CONFIRM_WITHIN_S = 30.0
"""An end that cannot be confirmed in this time becomes the status."""

NEVER_TRIED = EARLIEST


class QueueKind(Enum):
    """Why something waits: it is due, it is growing stale, or it is a list whose scan is under way."""

    DUE = "due"
    STALE = "stale"
    BEGUN = "begun"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRules:
    """What the configuration says of polling. Times in microseconds or, with `_s`, seconds.

    What ended longer than `history_us` ago may be forgotten, so it is never reported. `pages_at_most` is what a scan
    may read before it counts as outrun, `confirmed_at_most` are the ends that can be confirmed in time.
    """

    details: Details
    first_sight: FirstSight
    lookback_us: int
    history_us: int
    pages_at_most: int
    confirmed_at_most: float
    min_interval_s: float
    max_interval_s: float
    lost_after: int
    lost_grace_s: float
    degraded_after_s: float


@dataclass(slots=True)
class Failures:
    """Failures in a row of one item: how many poll errors, and how many refusals, which may become a loss.

    The first of these came at `refused_from`, the last at `refused_at`. Since `unreadable_since` it could not be read;
    by then the process had run for `ran_s`. Moments are monotonic seconds.
    """

    count: int = 0
    refusals: int = 0
    refused_from: Monotonic = EARLIEST
    refused_at: Monotonic = EARLIEST
    unreadable_since: Monotonic = LATEST
    ran_s: float = 0.0


@dataclass(slots=True, eq=False, kw_only=True)
class PollItem:
    """Something to ask for: an execution, or a pipeline's list. Times are monotonic seconds.

    `due_at` is the next request, or the moment from which one makes sense; `asked_at` was the last. `failures` are
    those since it was last well, `None` while it is. `unwatched` is set while it is in flight and nobody wants to know
    any more. `queue` says why it waits, `number` which of a heap's items is meant.
    """

    due_at: Monotonic = Monotonic(0.0)
    asked_at: Monotonic = Monotonic(0.0)
    failures: Failures | None = None
    weight: ClassVar[float] = 1.0
    """How many times as fast it grows stale."""

    any_failure_counts: ClassVar[bool] = False
    """Whether every failure but a refusal makes it unreadable in time; else only a body that cannot be read does."""

    number: int = 0
    queued: bool = False
    queue: QueueKind = QueueKind.DUE
    unwatched: bool = False


@dataclass(slots=True)
class PendingConfirmation:
    """A row of a list that says an execution has ended: when its page was asked for, when it was read.

    Both, and `retry_at`, before which no GET is to be tried again, are monotonic seconds.
    """

    execution: ExecutionSnapshot
    sent_at: Monotonic
    at: Monotonic
    retry_at: Monotonic = NEVER_TRIED

    @property
    def expires_at(self) -> Monotonic:
        """Return when it need wait no longer; what cannot be written then is tried again later."""
        return max(Monotonic(self.at + CONFIRM_WITHIN_S), self.retry_at)

    def retry_after(self, wait_s: float, *, now: Monotonic) -> None:
        """Wait before another try, but not beyond the time in which the end is to be confirmed."""
        due_at = self.at + CONFIRM_WITHIN_S
        self.retry_at = Monotonic(min(now + wait_s, due_at) if now < due_at else now + wait_s)


@dataclass(slots=True, eq=False)
class TrackedExecution(PollItem):
    """One open execution.

    `recorded` says whether the store has it. `polled_at` is the end of the last poll that counts (microseconds,
    steady), of which the store learns lazily: not yet while it is `unflushed`. `body_hash` is that of the last answer,
    `row` the last row of a list, while all that it led to is written and it would lead to nothing if it came again.
    `position` is where a list showed it last, less the rows that had come by then; `missed_page` did not show it.
    `pending` is a row that says it has ended; until `denied_until` no other such row is believed.
    """

    known: ExecutionRecord
    watch: Watch
    polled_at: Micros = NEVER
    body_hash: int | None = None
    row: ExecutionSnapshot | None = None
    unflushed: bool = False
    recorded: bool = False
    position: int | None = None
    missed_page: int | None = None
    pending: PendingConfirmation | None = None
    denied_until: Monotonic = Monotonic(0.0)
