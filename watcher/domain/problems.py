"""What begins and ends is a problem: what is known of an open one, and how severe events are. Pure values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from watcher.domain.event import EventKey, EventType
from watcher.domain.timestamps import NEVER, Micros


class Severity(StrEnum):
    """How bad it is, in the words of PagerDuty's Events API."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


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
}
"""How severe an event is, and what closes the problem it opens; any other is `info` and opens none."""

CLOSED_BY = {kind: closing for kind, (_, closing) in _TROUBLE.items() if closing is not None}
"""What closes a problem of which kind; that of an overdue execution its next event does, whatever that is."""

PROBLEM_KINDS = frozenset({*CLOSED_BY, EventType.EXECUTION_OVERDUE})
"""The events that open a problem, which is of the kind they are called."""

CLOSINGS = frozenset({*CLOSED_BY.values(), EventType.PROBLEM_CLOSED})
"""What only says that a problem is over, to whoever was sent its opening: a pager waits for it, silence or not."""

TROUBLED_ENDS = frozenset({EventType.EXECUTION_FAILED, EventType.EXECUTION_LOST, EventType.EXECUTION_UNRECOGNIZED})
"""What may close a problem, and is trouble itself."""


def severity_of(type_: EventType) -> Severity:
    """Return how severe an event of that type, or a problem of that kind, is."""
    return _TROUBLE[type_][0] if type_ in _TROUBLE else Severity.INFO


class LatestFailure(NamedTuple):
    """The newest failure of a pipeline: when it ended (microseconds UTC, steady), which execution, node and error."""

    at: Micros
    execution: str
    node: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, open until it is closed. `opened_at` is the wall clock of `opening`, the event that opened it.

    `kind` is that event's type. `failed_count` are the failures so far, those that opened it included, and `latest` is
    the newest of them (both `pipeline.failing` only).
    """

    id: UUID
    kind: EventType
    opened_at: datetime
    opening: EventKey
    failed_count: int = 0
    latest: LatestFailure | None = None


@dataclass(frozen=True, slots=True)
class ProblemChange:
    """What becomes of a problem: it is opened (`is_new`), counted on, or closed at `closed_at` (wall clock)."""

    problem: Problem
    closed_at: datetime | None = None
    is_new: bool = False


class IncidentProblem(NamedTuple):
    """An open problem of an incident, and the account and the pipeline that it is of, where it is of one."""

    problem: Problem
    account: str | None = None
    pipeline: str | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """The problems that a pager shows as one, as they are when deliveries about them are taken.

    `problems` are the open ones, in the order in which they opened; `newest` is the body of the event that opened the
    last. All of them are acknowledged until `acked_until` (wall clock), if they are.
    """

    key: UUID
    problems: Sequence[IncidentProblem] = ()
    newest: bytes | None = None
    acked_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SentOpening:
    """A problem whose opening event, with this body, a sink took, and when it was reminded of it.

    `incident` is the key of the one that shows the problem at a pager. At `last_ended_at` an execution of the pipeline
    last ended (`pipeline.failing` only). Nobody is to be reminded of it before `acked_until`. That and `closed_at` are
    the wall clock, the others microseconds UTC, steady.
    """

    problem: Problem
    body: bytes
    recorded_at: Micros = NEVER
    settled_at: Micros = NEVER
    reminded_at: Micros | None = None
    last_ended_at: Micros | None = None
    closed_at: datetime | None = None
    acked_until: datetime | None = None
    incident: bytes | None = None
