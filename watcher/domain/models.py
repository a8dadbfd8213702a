"""What the program talks about: statuses, executions, watches, events and deliveries. Frozen values, no I/O."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from watcher.domain.rules import Rules
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


class EventType(StrEnum):
    """Every event type of this version (SPEC 5)."""

    EXECUTION_NEW = "execution.new"
    EXECUTION_RUNNING = "execution.running"
    EXECUTION_PAUSED = "execution.paused"
    EXECUTION_SUCCESS = "execution.success"
    EXECUTION_FAILED = "execution.failed"
    EXECUTION_UNRECOGNIZED = "execution.unrecognized"
    EXECUTION_OVERDUE = "execution.overdue"
    EXECUTION_LOST = "execution.lost"
    PIPELINE_FAILING = "pipeline.failing"
    PIPELINE_RECOVERED = "pipeline.recovered"
    PIPELINE_SILENT = "pipeline.silent"
    PIPELINE_ACTIVE = "pipeline.active"
    PIPELINE_GAP = "pipeline.gap"
    ACCOUNT_DEGRADED = "account.degraded"
    ACCOUNT_RECOVERED = "account.recovered"
    SINK_FAILING = "sink.failing"
    SINK_RECOVERED = "sink.recovered"
    SINK_DISABLED = "sink.disabled"
    PROBLEM_REMINDER = "problem.reminder"
    PROBLEM_CLOSED = "problem.closed"
    WATCHER_TEST = "watcher.test"


class LostReason(StrEnum):
    """Why an execution is reported as lost."""

    NOT_FOUND = "not_found"
    REJECTED = "rejected"
    FORBIDDEN = "forbidden"
    UNREADABLE = "unreadable"


class GapReason(StrEnum):
    """Why a scan of a whole pipeline could not prove that it saw everything."""

    NOT_FOUND = "not_found"
    """The list itself answers 404."""
    REJECTED = "rejected"
    FORBIDDEN = "forbidden"
    UNREADABLE = "unreadable"
    """The list could not be read for an hour, while other things of the account could."""
    LOOKBACK = "lookback"
    """What is older than `polling.lookback` was not read."""
    DELETED = "deleted"
    """The list ended before anything known: the API forgot what was in between."""
    OUTRUN = "outrun"
    """More came than could be read."""
    UNORDERED = "unordered"
    """The list has no order that would show where new rows are, and is too long to be read as a whole."""


class Details(StrEnum):
    """Which ends that a list showed are fetched as well, for what lists do not show (`polling.details`)."""

    FAILED = "failed"
    ALWAYS = "always"
    NEVER = "never"


class FirstSight(StrEnum):
    """What becomes of executions that had ended before a pipeline was first watched whole (`polling.first_sight`)."""

    BASELINE = "baseline"
    """Nothing."""
    NOTIFY = "notify"
    """Their ends."""


class ClosedReason(StrEnum):
    """Why a problem is closed by `problem.closed`."""

    REMOVED = "removed"
    """What watched for it is gone from the configuration."""
    ENDED = "ended"
    """An overdue execution ended without an event."""


class AccountTrouble(StrEnum):
    """Why an account is reported as degraded."""

    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    INVALID = "invalid"
    OVER_BUDGET = "over_budget"


class Outcome(StrEnum):
    """What became of one request to the API; also the values of the metrics' `outcome` label (SPEC 8)."""

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
    """What one answer of the API said of an execution: the allowed fields and no others (SPEC 5).

    `status` is the raw word. Times are aware UTC. Texts are as the API gave them; events cut them.
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


@dataclass(frozen=True, slots=True)
class Watch:
    """What the configuration asks of one pipeline; without `executions` it is watched whole.

    `overdue_after_s` maps a status to its dwell limit in seconds. `rules` are absent where there are none.
    """

    account: str
    pipeline: str
    executions: tuple[str, ...]
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    overdue_after_s: Mapping[str, float] = field(default_factory=dict)
    rules: Rules | None = None

    @property
    def whole(self) -> bool:
        """Whether every execution of the pipeline is watched."""
        return not self.executions


def limits_dwell(overdue_after_s: Collection[str], status: str) -> bool:
    """Return whether there is a limit to the dwell in a status; to one that nobody knows the others' apply."""
    return status in overdue_after_s or (status not in OPEN_STATUSES and bool(overdue_after_s))


Counts = tuple[tuple[str, int], ...]
"""How many events of each kind an execution had: (`running`, 2), (`unrecognized:odd`, 1), …"""


@lru_cache(maxsize=4096)
def bump(counts: Counts, kind: str) -> tuple[Counts, int]:
    """Count one more of `kind`, and return which number that one has.

    Executions with the same history share the same tuple, so 100,000 cost nothing.
    """
    counted = dict(counts)
    counted[kind] = counted.get(kind, 0) + 1
    return tuple(counted.items()), counted[kind]


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """What is recorded of one execution: one row of the store. Times are microseconds UTC on the steady clock.

    `status` is the last raw word, `None` before the first sight. `lost` holds the reason while it is reported as lost;
    `ended_at` is set once nothing more is to come. `overdue_sequence` is the sequence of the last
    `execution.overdue` that no event has ended yet, `overdue_at` when that was seen (microseconds, wall clock).
    `found_at` is when a list first showed it, 0 if none did; what was found is
    recorded even before its first status is reported.
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


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the lists of a pipeline that is watched whole were read. Times are microseconds UTC, steady.

    `since_at` is when it was first watched whole; `complete_at` the begin of the last complete scan, 0 before the
    first; `refused` the reason reported because the list is refused, until it answers again. `found` says whether the
    list held anything when that scan ended: without it, the next one can meet nothing that is known. `name` is what
    the API calls the pipeline, as far as it has said: no list does. `newest_at` is the latest date that the first scan
    showed where new rows show, by the API's clock, written as soon as that is read; 0 where it showed none, `None`
    before, and where it may not have seen the newest.
    """

    since_at: Micros
    complete_at: Micros = NEVER
    refused: str | None = None
    found: bool = False
    name: str | None = None
    newest_at: Micros | None = None


class EventKey(NamedTuple):
    """Names an event: its stream, and its sequence in that."""

    stream: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class Event:
    """One event, ready to be stored and sent: `body` is the CloudEvents JSON, byte for byte what is signed.

    `stream` is the key of (source, subject), by which events are ordered; `sequence` counts within it from 1.
    """

    id: UUID
    type: EventType
    stream: bytes
    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An event and the sinks it goes to. `with_sinks_of` adds those that another event went to."""

    event: Event
    sinks: tuple[str, ...]
    with_sinks_of: EventKey | None = None


class DeliveryState(StrEnum):
    """Where a delivery stands. Everything but `waiting` is settled."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    """The receiver took it and has yet to show it (202)."""
    SILENCED = "silenced"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one sink.

    `recorded_at`, `due_at` and `tried_at`, when the last attempt ended (0: never tried), are microseconds UTC on the
    steady clock. `first_due_at_s` is the reading of the sink's own clock (seconds during which the sink was served)
    when it was first due, as far as that was noted. Of its `attempts` it took `steps` of its schedule, for the trouble
    was its own; `rejections` counts the answers in a row that said the body itself is unacceptable. Deliveries of one
    `group_id` are sent together; of the first, which stands for them all, `group_count` says how many. `replayed` marks
    what was a dead letter and is sent again.
    """

    sink: str
    event_id: UUID
    type: str
    stream: bytes
    sequence: int
    body: bytes
    recorded_at: Micros
    due_at: Micros
    attempts: int = 0
    steps: int = 0
    rejections: int = 0
    tried_at: Micros = NEVER
    first_due_at_s: float | None = None
    group_id: UUID | None = None
    group_count: int = 1
    replayed: bool = False
