"""The items that an account polls, executions and lists, with their state in memory, and the rules of polling."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NamedTuple

from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import EARLIEST, LATEST, NEVER, Micros, Monotonic
from watcher.domain.watch import Details, FirstSight, Watch
from watcher.store.changes import ExecutionChange

CONFIRM_WITHIN_S = 30.0
"""The time within which a GET is to confirm an end. After this time the row of the list counts."""

NEVER_TRIED = EARLIEST

LOST_EVERY_S = 600.0
"""Interval of the requests for an execution or a list that is lost."""


class QueueKind(Enum):
    """The reason why an item waits: it is queued until due, it grows stale, or it is a list whose scan has begun."""

    DUE = "due"
    STALE = "stale"
    BEGUN = "begun"


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRules:
    """The settings of polling. Durations are in microseconds or, with `_s`, in seconds.

    Executions that ended longer than `history_us` ago may be deleted from the store, so they are never reported. A scan
    is outrun (its list grows faster than it is read) after `pages_at_most` pages without progress. A GET can confirm at
    most `confirmed_at_most` ends within `CONFIRM_WITHIN_S`.
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


LIST_WEIGHT = 3.0
"""The weight of lists. They are read this many times more often than other items, because they show most ends.

First pages show three quarters of all ends. By `make bench`, with 20 pipelines, 1,000 open executions and 10
requests/s, an end is seen after 4.9 s on average, and after 7.6 s without the weight.
"""


@dataclass(slots=True)
class Failures:
    """The failures of one item since its last success: poll errors, and refusals in a row.

    The first refusal in a row came at `refused_from`, the last at `refused_at` (monotonic seconds). Enough refusals
    mean that the item is lost. The item has been unreadable since `unreadable_since` (monotonic seconds), which is
    `ran_s` in running time.
    """

    count: int = 0
    refusals: int = 0
    refused_from: Monotonic = EARLIEST
    refused_at: Monotonic = EARLIEST
    unreadable_since: Monotonic = LATEST
    ran_s: float = 0.0


@dataclass(slots=True, eq=False, kw_only=True)
class PollItem:
    """An execution or a list in the poll queue. Times are monotonic seconds.

    `due_at` is when the next request is due, `asked_at` when the last one was sent. `failures` are those since the last
    success; `None` after a success. `queue` is the reason why the item waits. `number` identifies its current entry in
    a heap: older entries are outdated.
    """

    due_at: Monotonic = Monotonic(0.0)
    asked_at: Monotonic = Monotonic(0.0)
    failures: Failures | None = None
    weight: ClassVar[float] = 1.0
    """The factor by which the item grows stale faster than others."""

    any_failure_counts: ClassVar[bool] = False
    """Whether an hour of failures other than refusals makes the item unreadable. If not, only unreadable bodies do."""

    number: int = 0
    is_queued: bool = False
    queue: QueueKind = QueueKind.DUE


@dataclass(slots=True)
class PendingConfirmation:
    """A row of a list with an end that a GET is to confirm. Times are monotonic seconds.

    The page was requested at `sent_at` and read at `at`. No GET is sent before `retry_at`.
    """

    execution: ExecutionSnapshot
    sent_at: Monotonic
    at: Monotonic
    retry_at: Monotonic = NEVER_TRIED

    @property
    def expires_at(self) -> Monotonic:
        """The time after which the row counts without a GET. It is later if the row could not be written then."""
        return max(Monotonic(self.at + CONFIRM_WITHIN_S), self.retry_at)

    def retry_after(self, wait_s: float, *, now: Monotonic) -> None:
        """Wait `wait_s` before another GET, but not past the time within which the GET is to confirm the end."""
        due_at = self.at + CONFIRM_WITHIN_S
        self.retry_at = Monotonic(min(now + wait_s, due_at) if now < due_at else now + wait_s)


@dataclass(slots=True, eq=False)
class TrackedExecution(PollItem):
    """One open execution.

    `known` is its current record. `is_recorded` means that the store has the execution. `polled_at` is the end of the
    last valid poll (microseconds UTC, steady); `is_unflushed` means that the store does not have this time yet.
    `body_hash` is the hash of the last answer to a GET, and `row` the last row of a list: an equal answer or row
    changes nothing. Both are set only after all that follows from them is written.

    `position` is the index at which a list last showed the execution, less the number of rows that had been added by
    then. The page `missed_page` should have shown it, but did not. `unconfirmed_end` is a row with an end that a GET is
    to confirm. Before `denied_until` no other such row counts. `is_unwatched` is set once the configuration has dropped
    the execution.
    """

    known: ExecutionRecord
    watch: Watch
    polled_at: Micros = NEVER
    body_hash: int | None = None
    row: ExecutionSnapshot | None = None
    is_unflushed: bool = False
    is_recorded: bool = False
    position: int | None = None
    missed_page: int | None = None
    unconfirmed_end: PendingConfirmation | None = None
    denied_until: Monotonic = Monotonic(0.0)
    is_unwatched: bool = False


@dataclass(slots=True, eq=False)
class PolledList(PollItem):
    """The list of a pipeline that is watched whole: its pages poll the open executions of the pipeline."""

    weight: ClassVar[float] = LIST_WEIGHT
    any_failure_counts: ClassVar[bool] = True

    watch: Watch

    @property
    def is_read(self) -> bool:
        """Whether the list was ever read as far as needed."""
        return False

    def enter(self, entry: TrackedExecution) -> None:
        """Add an open execution of the pipeline."""

    def leave(self, entry: TrackedExecution) -> None:
        """Remove an execution that ended, or is no longer watched."""


class Evaluation(NamedTuple):
    """The result of an answer about `entry`: the `change` to record, if any, and the record that is `known` after it.

    `execution` is the state in the answer; `None` without a new one. The next poll is due `next_s` seconds after the
    last request; `None` ends the polls. `polled_at` (microseconds UTC, steady) is set if the poll counts. `contradicts`
    means that the execution has ended with another status than that in the answer.
    """

    entry: TrackedExecution
    execution: ExecutionSnapshot | None
    known: ExecutionRecord
    change: ExecutionChange | None
    next_s: float | None
    polled_at: Micros | None = None
    contradicts: bool = False
