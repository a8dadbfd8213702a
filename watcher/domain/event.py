"""Events: their types, the reasons they give, and where they go. Frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class EventType(StrEnum):
    """Every event type of this version: docs/events.md."""

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
    DELIVERY_DEAD = "delivery.dead"
    PROBLEM_REMINDER = "problem.reminder"
    PROBLEM_ACKNOWLEDGED = "problem.acknowledged"
    PROBLEM_CLOSED = "problem.closed"
    WATCHER_REPORT = "watcher.report"
    WATCHER_TEST = "watcher.test"


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


class EventKey(NamedTuple):
    """Names an event: its stream, and its sequence in that."""

    stream: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class Event:
    """One event, ready to be stored and sent: `body` is the CloudEvents JSON, byte for byte what is signed.

    `stream` is the key of (source, subject), within which `sequence` counts from 1. A sink gets the events of one
    `lane` in the order in which they were recorded. `problem` is the one it opens, reminds of or `closes`. With
    `account`, `pipeline` and `labels` it is what silences and groups go by.
    """

    id: UUID
    type: EventType
    stream: bytes
    sequence: int
    body: bytes
    lane: bytes
    problem: UUID | None = None
    closes: bool = False
    account: str | None = None
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class Group(NamedTuple):
    """What an event waits for at one sink: others of that `key`, if any, for so many seconds from its recording."""

    key: bytes | None
    wait_s: float


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An event and the sinks it goes to; what tells more of a problem goes also to those that were sent its opening.

    `groups` has those of the sinks that it is to go to with others.
    """

    event: Event
    sinks: tuple[str, ...]
    groups: Mapping[str, Group] = field(default_factory=dict)
