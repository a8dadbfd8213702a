"""Problems: the events that open and close them, and the state of an open problem. Frozen values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from watcher.domain.event import EVENT_KINDS, EventKey, EventType, Severity
from watcher.domain.timestamps import NEVER, Micros

CLOSED_BY = {type_: kind.closed_by for type_, kind in EVENT_KINDS.items() if kind.closed_by is not None}
"""The closing of each opening but `execution.overdue`. Any next event of the execution closes that problem."""

PROBLEM_KINDS = frozenset(type_ for type_, kind in EVENT_KINDS.items() if kind.opens)
"""The event types that open a problem. A problem's kind is the type of its opening."""

CLOSINGS = frozenset({*CLOSED_BY.values(), EventType.PROBLEM_CLOSED})
"""The event types that only close a problem. A silence does not apply to them, because a pager waits for them."""

TROUBLED_ENDS = frozenset(
    type_ for type_, kind in EVENT_KINDS.items() if kind.is_status and kind.severity is not Severity.INFO
)
"""The event types that may close the problem of an overdue execution, and are trouble themselves."""


def severity_of(type_: EventType, *, percent: int = 100) -> Severity:
    """Return the severity of an event type, or of a kind of problem. `percent` is that of `pipeline.overspending`."""
    if type_ is EventType.PIPELINE_OVERSPENDING and percent < 100:
        return Severity.WARNING
    return EVENT_KINDS[type_].severity


class LatestFailure(NamedTuple):
    """The newest failure of a pipeline: the time of the end (microseconds UTC, steady), execution, node and error."""

    at: Micros
    execution: str
    node: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem. Only a problem of the kind `pipeline.failing` has `failed_count` and `latest`."""

    id: UUID
    kind: EventType
    """The type of the opening."""
    opened_at: datetime
    """The time of the opening (wall clock)."""
    opening: EventKey
    failed_count: int = 0
    """The number of failures so far, including those that opened the problem."""
    latest: LatestFailure | None = None


@dataclass(frozen=True, slots=True)
class ProblemChange:
    """A change of a problem. The problem opens (`is_new`), closes at `closed_at` (wall clock), or has new failures."""

    problem: Problem
    closed_at: datetime | None = None
    is_new: bool = False


class Press(NamedTuple):
    """The press of a button on the message of a problem: somebody acknowledges the problem, or gives it back."""

    problem: UUID
    event_count: int
    """The number of events in the problem's own stream when the message was made. An old message has a lower one."""
    gives_back: bool
    by: str
    channel: str
    """The channel of the message, as the receiver names it."""
    sink: str | None
    """The sink that posts in that channel, if it is the sink whose connection got the press."""


class IncidentProblem(NamedTuple):
    """An open problem of an incident, the account and pipeline of the problem, if any, and the body of its opening."""

    problem: Problem
    account: str | None = None
    pipeline: str | None = None
    opening: bytes | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """The problems that a pager shows as one. They are as the store had them when a delivery about them was taken."""

    key: UUID
    problems: Sequence[IncidentProblem] = ()
    """The open problems, in the order in which they opened."""
    acked_until: datetime | None = None
    """The time until which all open problems are acknowledged (wall clock); `None` if not all are."""


@dataclass(frozen=True, slots=True)
class SentOpening:
    """A problem whose opening a sink took. `closed_at` and `acked_until` are wall clock, other times are steady."""

    problem: Problem
    body: bytes
    """The body of the opening."""
    recorded_at: Micros = NEVER
    settled_at: Micros = NEVER
    reminded_at: Micros | None = None
    """The time of the sink's last reminder."""
    last_ended_at: Micros | None = None
    """The time at which an execution of the pipeline last ended (`pipeline.failing` only)."""
    closed_at: datetime | None = None
    acked_until: datetime | None = None
    """The end of the acknowledgement. No reminder is sent before that time."""
    incident: bytes | None = None
    """The key of the incident that shows the problem, at a pager."""
