"""Events: their types, their reasons and their sinks. Frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class EventType(StrEnum):
    """The event types of this version. docs/events.md describes each."""

    EXECUTION_NEW = "execution.new"
    EXECUTION_RUNNING = "execution.running"
    EXECUTION_PAUSED = "execution.paused"
    EXECUTION_SUCCESS = "execution.success"
    EXECUTION_FAILED = "execution.failed"
    EXECUTION_UNRECOGNIZED = "execution.unrecognized"
    EXECUTION_OVERDUE = "execution.overdue"
    EXECUTION_LOST = "execution.lost"
    EXECUTION_EXPENSIVE = "execution.expensive"
    PIPELINE_FAILING = "pipeline.failing"
    PIPELINE_RECOVERED = "pipeline.recovered"
    PIPELINE_SILENT = "pipeline.silent"
    PIPELINE_ACTIVE = "pipeline.active"
    PIPELINE_SLOW = "pipeline.slow"
    PIPELINE_ON_TIME = "pipeline.on_time"
    PIPELINE_OVERSPENDING = "pipeline.overspending"
    PIPELINE_NEW_ERROR = "pipeline.new_error"
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
    """The reason why a scan could not prove that it saw every execution of a pipeline."""

    NOT_FOUND = "not_found"
    """The API answers 404 to the request for the list."""
    REJECTED = "rejected"
    FORBIDDEN = "forbidden"
    UNREADABLE = "unreadable"
    """The list could not be read for an hour, while other requests of the account succeeded."""
    LOOKBACK = "lookback"
    """Rows older than `polling.lookback` were not read."""
    DELETED = "deleted"
    """The list ended before any known row: the API has deleted the rows in between."""
    OUTRUN = "outrun"
    """New rows came faster than they could be read."""
    UNORDERED = "unordered"
    """The list has no order that shows the place of new rows, and is too long to be read as a whole."""


class ClosedReason(StrEnum):
    """The reason of `problem.closed`."""

    REMOVED = "removed"
    """The rule, watch, account or sink of the problem was removed from the configuration."""
    ENDED = "ended"
    """The overdue execution ended without an event."""


class AccountTrouble(StrEnum):
    """The reason of `account.degraded`."""

    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    INVALID = "invalid"
    OVER_BUDGET = "over_budget"


class EventKey(NamedTuple):
    """The key of an event: its stream, and its sequence in this stream."""

    stream: bytes
    sequence: int


@dataclass(frozen=True, slots=True)
class Event:
    """One event, ready to be recorded and delivered. Silences and groups go by type, account, pipeline and labels."""

    id: UUID
    type: EventType
    stream: bytes
    """The key of the event's stream, made of its source and its subject."""
    sequence: int
    """The number of the event in its stream, from 1 on."""
    body: bytes
    """The CloudEvents JSON. Sinks sign exactly these bytes."""
    ordering_key: bytes
    """A sink gets the events with the same ordering key in the order of recording."""
    problem: UUID | None = None
    """The id of the problem that the event is about."""
    closes: bool = False
    account: str | None = None
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class Group(NamedTuple):
    """The wait of an event at one sink. The event is due `wait_s` seconds after its recording.

    An event with a `key` is sent together with the events that have the same key and are due.
    """

    key: bytes | None
    wait_s: float


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An event and its sinks. For later events of a problem the store adds the sinks that got the opening."""

    event: Event
    sinks: tuple[str, ...]
    groups: Mapping[str, Group] = field(default_factory=dict)
    """The wait of the event, by sink. A sink that sends the event at once is absent."""
