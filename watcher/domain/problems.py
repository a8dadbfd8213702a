"""Problems: the events that open and close them, the state of an open problem, and severities. Frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from watcher.domain.event import EventKey, EventType
from watcher.domain.timestamps import NEVER, Micros


class Severity(StrEnum):
    """The severity of an event or problem, in the words of PagerDuty's Events API."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        """The place among all severities: 0 is the most severe."""
        return list(Severity).index(self)


_TROUBLE: Mapping[EventType, tuple[Severity, EventType | None]] = {
    EventType.PIPELINE_FAILING: (Severity.CRITICAL, EventType.PIPELINE_RECOVERED),
    EventType.ACCOUNT_DEGRADED: (Severity.CRITICAL, EventType.ACCOUNT_RECOVERED),
    EventType.SINK_FAILING: (Severity.ERROR, EventType.SINK_RECOVERED),
    EventType.SINK_DISABLED: (Severity.ERROR, EventType.SINK_RECOVERED),
    EventType.DELIVERY_DEAD: (Severity.ERROR, None),
    EventType.PIPELINE_SILENT: (Severity.WARNING, EventType.PIPELINE_ACTIVE),
    EventType.EXECUTION_FAILED: (Severity.ERROR, None),
    EventType.EXECUTION_LOST: (Severity.ERROR, None),
    EventType.EXECUTION_OVERDUE: (Severity.WARNING, None),
    EventType.EXECUTION_UNRECOGNIZED: (Severity.WARNING, None),
    EventType.PIPELINE_GAP: (Severity.WARNING, None),
    EventType.PIPELINE_SLOW: (Severity.WARNING, EventType.PIPELINE_ON_TIME),
    EventType.EXECUTION_EXPENSIVE: (Severity.WARNING, None),
    EventType.PIPELINE_OVERSPENDING: (Severity.ERROR, None),
    EventType.PIPELINE_NEW_ERROR: (Severity.WARNING, None),
}
"""The severity of an event type, and the type of the closing if the type opens a problem. Other types are `info`."""

CLOSED_BY = {kind: closing for kind, (_, closing) in _TROUBLE.items() if closing is not None}
"""The closing of each opening but `execution.overdue`. Any next event of the execution closes that problem."""

PROBLEM_KINDS = frozenset({*CLOSED_BY, EventType.EXECUTION_OVERDUE})
"""The event types that open a problem. A problem's kind is the type of its opening."""

CLOSINGS = frozenset({*CLOSED_BY.values(), EventType.PROBLEM_CLOSED})
"""The event types that only close a problem. A silence does not apply to them, because a pager waits for them."""

TROUBLED_ENDS = frozenset({EventType.EXECUTION_FAILED, EventType.EXECUTION_LOST, EventType.EXECUTION_UNRECOGNIZED})
"""The event types that may close the problem of an overdue execution, and are trouble themselves."""


def severity_of(type_: EventType, *, percent: int = 100) -> Severity:
    """Return the severity of an event type, or of a kind of problem. `percent` is that of `pipeline.overspending`."""
    if type_ is EventType.PIPELINE_OVERSPENDING and percent < 100:
        return Severity.WARNING
    return _TROUBLE[type_][0] if type_ in _TROUBLE else Severity.INFO


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
