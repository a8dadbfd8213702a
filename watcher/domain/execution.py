"""Executions: their statuses, what an answer of the API says of one, and what is recorded of it. Frozen values."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from watcher.domain.timestamps import NEVER, Micros


class Status(StrEnum):
    """The statuses the API documents. Anything else is an unrecognized word, kept raw."""

    NEW = "new"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCESS = "success"
    FAILED = "failed"


OPEN_STATUSES = frozenset({Status.NEW, Status.RUNNING, Status.PAUSED})
TERMINAL_STATUSES = frozenset({Status.SUCCESS, Status.FAILED})
LOST = "lost"
"""Stands where a status stands, in `previousStatus` and in the store, for an execution the API no longer knows."""


class LostReason(StrEnum):
    """Why an execution is reported as lost."""

    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    FORBIDDEN = "forbidden"
    UNREADABLE = "unreadable"


class Outcome(StrEnum):
    """What became of one request to the API; also the values of the metrics' `outcome` label."""

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
    """A node of an execution that failed. The API's texts, cut."""

    id: str | None
    name: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ExecutionSnapshot:
    """What one answer of the API said of an execution: the allowed fields and no others.

    `status` is the raw word. `started_at` and `finished_at` are as the API dates them, aware UTC: they are passed on.
    `began_at` and `ended_at` are the same moments on our steady clock: they are compared and kept. They are `None`
    where the API gives no date, or one that lies in its future. Texts are as the API gave them; events cut them.
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


Counts = tuple[tuple[str, int], ...]
"""How many events of each kind an execution had: (`running`, 2), (`unrecognized:odd`, 1), …"""


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """What is recorded of one execution: one row of the store. Times are microseconds UTC on the steady clock.

    `status` is the last raw word, `None` before the first sight. `lost` holds the reason while it is reported as lost;
    `ended_at` is set once nothing more is to come. `overdue_sequence` is the sequence of the `execution.overdue` whose
    problem is open, `overdue_at` when that was seen (microseconds, wall clock). `found_at` is when a list first showed
    it, 0 if none did; what was found is recorded even before its first status is reported.
    `finished_at` is when it ended by the API's date, else when that was seen; `None` while it is open. `started_at` is
    when it started by the API's date at first sight, else when it was first seen.
    """

    execution: str
    pipeline: str
    status: str | None = None
    since_at: Micros = NEVER
    polled_at: Micros = NEVER
    sequence: int = 0
    counts: Counts = ()
    overdue_sequence: int | None = None
    overdue_at: Micros | None = None
    lost: LostReason | None = None
    lost_at: Micros | None = None
    ended_at: Micros | None = None
    was_paused: bool = False
    found_at: Micros = NEVER
    finished_at: Micros | None = None
    started_at: Micros | None = None
