"""Executions: their statuses, the API's answer about an execution, and its row in the store. Frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from watcher.domain.timestamps import NEVER, Micros


class Status(StrEnum):
    """The statuses that the API documents. Any other word is an unrecognized status, recorded as it is, but cut."""

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCESS = "success"
    FAILED = "failed"


class EndLabel(NamedTuple):
    """The letter of an ended execution in a strip of ends, and its word in counts ("3 succeeded")."""

    letter: str
    word: str


UNRECOGNIZED = "unrecognized"
"""The label of all statuses that the API does not document."""

END_LABELS: Mapping[str, EndLabel] = {
    Status.SUCCESS: EndLabel("s", "succeeded"),
    Status.FAILED: EndLabel("f", "failed"),
    UNRECOGNIZED: EndLabel("u", "unrecognized"),
}
"""The final statuses, and `unrecognized`. Ended executions are counted under them, in the store by a column each."""

TERMINAL_STATUSES = tuple(status for status in Status if status in END_LABELS)
OPEN_STATUSES = tuple(status for status in Status if status not in END_LABELS)
LOST = "lost"
"""The word in place of a status for a lost execution, in `previousStatus` and in the store."""


class LostReason(StrEnum):
    """The reason of `execution.lost`."""

    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    FORBIDDEN = "forbidden"
    UNREADABLE = "unreadable"


class Outcome(StrEnum):
    """The outcome of one request to the API. The metrics' label `outcome` has the same values."""

    OK = "ok"
    NOT_FOUND = "not_found"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    REJECTED = "rejected"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    REDIRECT = "redirect"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class FailedNode:
    """A failed node of an execution. The texts are the API's; events cut them."""

    id: str | None
    name: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ExecutionSnapshot:
    """The API's answer about an execution: only the fields that may leave the process. Events cut the texts.

    `started_at` and `finished_at` are the API's own dates, for events. `began_at` and `ended_at` are the same moments
    on our steady clock, for decisions and the store. They are `None` if the API gave no date, or one in its own future.
    """

    id: str
    status: str
    pipeline_id: str | None = None
    version_id: str | None = None
    pipeline_name: str | None = None
    version_number: float | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    ai_tokens_used: float | None = None
    nodes_started: float | None = None
    triggered_by: str | None = None
    triggered_by_entity_id: str | None = None
    conversation_id: str | None = None
    failed_nodes: tuple[FailedNode, ...] = ()
    goals: tuple[str, ...] = ()
    began_at: Micros | None = field(default=None, compare=False)
    ended_at: Micros | None = field(default=None, compare=False)

    @property
    def dated_at(self) -> Micros | None:
        """The end of the execution on our clock, else its beginning; `None` without both dates."""
        return self.began_at if self.finished_at is None else self.ended_at

    @property
    def duration_s(self) -> float | None:
        """Return the seconds between the API's own dates. It is `None` without both, or if the end is the earlier one.

        In the second case the API has two clocks, and one of them is wrong.
        """
        if self.started_at is None or self.finished_at is None or self.finished_at < self.started_at:
            return None
        return (self.finished_at - self.started_at).total_seconds()


Counts = tuple[tuple[str, int], ...]
"""The number of an execution's events, by kind: (`running`, 2), (`unrecognized:odd`, 1), …"""


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """The row of one execution in the store. Times but `overdue_at` are microseconds UTC on the steady clock."""

    execution: str
    pipeline: str
    status: str | None = None
    """The last status as the API wrote it; `None` before the first successful poll."""
    since_at: Micros = NEVER
    """The time at which the present status began."""
    polled_at: Micros = NEVER
    sequence: int = 0
    """The sequence of the execution's last event."""
    counts: Counts = ()
    overdue_sequence: int | None = None
    """The sequence of the `execution.overdue` whose problem is open; `None` if none is open."""
    overdue_at: Micros | None = None
    """The time at which that problem opened (wall clock)."""
    lost: LostReason | None = None
    """The reason of `execution.lost`, from this event until the execution is found again."""
    lost_at: Micros | None = None
    end_seen_at: Micros | None = None
    """The time at which the watcher saw the end, or stopped polling a lost execution; `None` before that."""
    was_paused: bool = False
    found_at: Micros = NEVER
    """The time at which a list first showed the execution. Its row is recorded at that time, even without an event."""
    ended_at: Micros | None = None
    """The end by the API's date, else the time at which the end was seen; `None` while the execution is open."""
    started_at: Micros | None = None
    """The start by the API's date at the first poll, else the time of that poll. After a dated end: `ended_at` less the
    duration by the API's dates."""

    def moved(self, by_us: int, *, now: Micros) -> "ExecutionRecord":
        """Return this record with its start and that of its status moved by `by_us`, but not beyond `now`."""
        started_at = None if self.started_at is None else min(now, Micros(self.started_at + by_us))
        return replace(self, since_at=min(now, Micros(self.since_at + by_us)), started_at=started_at)
