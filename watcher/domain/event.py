"""Events: their types and what distinguishes these, their reasons and their sinks. Frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID


class EventType(StrEnum):
    """The event types. docs/reference/events.md shows these descriptions. `EVENT_KINDS` has a row for each."""

    EXECUTION_NEW = "execution.new"
    """The execution is first seen in this status."""
    EXECUTION_RUNNING = "execution.running"
    """It is first seen running, or runs again after a pause."""
    EXECUTION_PAUSED = "execution.paused"
    """It waits: for a reply, a person, a moment."""
    EXECUTION_SUCCESS = "execution.success"
    """It ended well. Final: a later contradiction by the API is logged, never emitted."""
    EXECUTION_FAILED = "execution.failed"
    """It ended in failure. Final as well. `failedNodes` says where, if the API does."""
    EXECUTION_UNRECOGNIZED = "execution.unrecognized"
    """A status that the API's documentation does not know: `status` is the raw word. Emitted once per new word. The
    execution is still polled, unless the API gives it a `finishedAt`."""
    EXECUTION_OVERDUE = "execution.overdue"
    """Longer in one status than its `overdue_after`. Emitted once per stay (again if the limit was removed and is
    back), and only after a successful poll past the limit. A sink that was sent this is sent the event that closes it,
    too; if its `events` lack that, PagerDuty, Alertmanager and a Slack app get only the closing."""
    EXECUTION_LOST = "execution.lost"
    """The API keeps answering 404 or an error for it: `lost_after` answers in a row over `lost_grace`, while the
    account is well. `reason` is `not_found`, `rejected`, `forbidden` or `unreadable`. It is polled for another day; if
    it answers again, its next event has `previousStatus: lost`."""
    EXECUTION_EXPENSIVE = "execution.expensive"
    """It used more tokens than the rule `tokens.execution` allows. Emitted once per execution, as soon as an answer
    shows it, and before its end. It opens and closes no problem, so an overdue execution stays overdue."""
    PIPELINE_FAILING = "pipeline.failing"
    """The rule `failing` holds: too many executions failed in a row, or too large a share of the last. It opens a
    [problem](../alerts.md); `execution` is the end that did it. With `also` that may be a success, and its `error` says
    why it counts as a failure."""
    PIPELINE_RECOVERED = "pipeline.recovered"
    """It closes the problem ([when](../rules.md)), and goes exactly where `pipeline.failing` went."""
    PIPELINE_SILENT = "pipeline.silent"
    """No execution has started for longer than the rule `silent` allows. Emitted only after a complete scan of the
    list. It opens a problem."""
    PIPELINE_ACTIVE = "pipeline.active"
    """An execution started again. It closes the problem, and goes exactly where `pipeline.silent` went."""
    PIPELINE_SLOW = "pipeline.slow"
    """An open execution runs for longer than the rule `slow` allows, compared with the last successes. Emitted only
    after an answer that shows it open. It opens a [problem](../rules.md#slow); `execution` is the slowest at that
    time."""
    PIPELINE_ON_TIME = "pipeline.on_time"
    """No execution is slow any more. It closes the problem, and goes exactly where `pipeline.slow` went."""
    PIPELINE_OVERSPENDING = "pipeline.overspending"
    """The executions that ended today (UTC) used `percent` % of the rule `tokens.per_day`. Emitted once a day for 80
    and once for 100; if an end leads past both, for 100 only. It opens no problem."""
    PIPELINE_NEW_ERROR = "pipeline.new_error"
    """An execution failed with a [kind of error](../history.md#kinds-of-errors) that was not seen in this pipeline for
    30 days, by the rule `new_error`. It opens no problem."""
    PIPELINE_GAP = "pipeline.gap"
    """A scan of a whole pipeline's list may have missed executions. `reason` is `lookback`,
    `deleted`, `unordered`, `outrun`, `not_found`, `rejected`, `forbidden` or `unreadable`: [what each
    means](../pipelines.md#what-it-can-miss-and-how-you-would-know)."""
    ACCOUNT_DEGRADED = "account.degraded"
    """The API cannot be used with this key. `reason` is `unauthorized` (at once), `rate_limited`, `unreachable`,
    `invalid`, or `over_budget` (`max_interval` cannot be kept within `rate_limit`). Nothing is known of its executions
    meanwhile."""
    ACCOUNT_RECOVERED = "account.recovered"
    """It can be used again. `reason` says what is over."""
    SINK_FAILING = "sink.failing"
    """Nothing got through to this sink for 5 minutes though something waited to be sent. Sent to the other sinks.
    Deliveries wait."""
    SINK_RECOVERED = "sink.recovered"
    """Something got through again."""
    SINK_DISABLED = "sink.disabled"
    """The receiver answered 410 Gone. Deliveries wait until the sink's block in the configuration changes, or somebody
    enables it."""
    DELIVERY_DEAD = "delivery.dead"
    """Deliveries of this sink became dead letters: refused five times in a row, or retried for `give_up_after`. Sent
    to the other sinks at the first, then at the end of each minute in which there were more. It opens no problem. Not
    reported: a `delivery.dead` that becomes a dead letter itself, and the deliveries of a removed sink."""
    PROBLEM_REMINDER = "problem.reminder"
    """A problem is still open after another `remind_every` of a sink, to which alone this goes, in a sequence of its
    own. It has the data of the opening, with the count as it is now and the `latest` failure."""
    PROBLEM_ACKNOWLEDGED = "problem.acknowledged"
    """Somebody acknowledged a problem. It has the data of the opening, and goes to the sinks that got that, right after
    it. If the opening is silenced, so is this; both go when the silence ends."""
    PROBLEM_CLOSED = "problem.closed"
    """Nothing watches for a problem any more: its rule, watch, account or sink was removed from the configuration
    (`reason` is `removed`), or an overdue execution ended without an event (`ended`). It has the data of the opening,
    and goes exactly where that went."""
    WATCHER_REPORT = "watcher.report"
    """A [report](../reports.md) is due. It goes to the sinks that `reports` names, whatever their `events` and
    silences. `time` is the moment at which it was due. `from` until `until` are whole hours. `pipelines` are the worst
    20 at most."""
    WATCHER_TEST = "watcher.test"
    """A test, sent by `watcher check --send` to every sink but stdout, whatever its `events`; to PagerDuty and
    Alertmanager also what closes it. Recorded nowhere. Its `sequence` is always 1."""


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


@dataclass(frozen=True, slots=True)
class EventKind:
    """All that distinguishes one event type from the others. Routing, alerts, checks, pages and docs read it."""

    title: str
    """The title of a message. `Alert` says what its fields are."""
    severity: Severity = Severity.INFO
    closed_by: EventType | None = None
    """The type that closes the problem that this type opens."""
    is_status: bool = False
    """Whether the type is a change of an execution's status."""
    is_about_problem: bool = False
    """Whether the type is about a problem that another event opened."""
    to_chats: bool = True
    """Whether chats, mail and Alertmanager get the type by default. Pagers get what opens a problem."""
    with_openings: bool = False
    """Whether a chat gets the type as soon as the opening of a problem, and in one group with it."""
    sign: tuple[str, str] | None = None
    """The sign, with its style on a terminal, of a type whose severity does not say it."""
    setting: str = ""
    """An example of the setting of a watch that leads to the type."""
    closes_when: str | None = None
    """The condition that closes the problem, in words, unless it depends on the settings. Without `closed_by` the next
    event of the execution closes the problem."""
    remedy: str | None = None
    """The action that helps, where the reason in the event does not say it."""

    @property
    def opens(self) -> bool:
        """Return whether the type opens a problem."""
        return self.closed_by is not None or self.closes_when is not None


_T, _CRITICAL, _ERROR, _WARNING = EventType, Severity.CRITICAL, Severity.ERROR, Severity.WARNING

EVENT_KINDS: Mapping[EventType, EventKind] = {
    _T.EXECUTION_NEW: EventKind("{who}: a new execution", is_status=True, to_chats=False, sign=("○", "")),
    _T.EXECUTION_RUNNING: EventKind("{who} is running", is_status=True, to_chats=False, sign=("▶", "blue")),
    _T.EXECUTION_PAUSED: EventKind("{who} is paused", is_status=True, to_chats=False, sign=("‖", "yellow")),
    _T.EXECUTION_SUCCESS: EventKind("{who} succeeded", is_status=True, to_chats=False),
    _T.EXECUTION_FAILED: EventKind("{who} failed{node}", _ERROR, is_status=True),
    _T.EXECUTION_UNRECOGNIZED: EventKind("{who} has the undocumented status {status}", _WARNING, is_status=True),
    _T.EXECUTION_OVERDUE: EventKind(
        "{who} has been {dwell}",
        _WARNING,
        setting="overdue_after: {running: 15m}",
        closes_when="the execution leaves this status",
    ),
    _T.EXECUTION_LOST: EventKind("{who}: an execution is lost", _ERROR, is_status=True),
    _T.EXECUTION_EXPENSIVE: EventKind(
        "{who} is expensive: {tokens} in one execution",
        _WARNING,
        with_openings=True,
        setting="rules: {tokens: {execution: 20000}}",
    ),
    _T.PIPELINE_FAILING: EventKind(
        "{who} keeps failing{last}",
        _CRITICAL,
        closed_by=_T.PIPELINE_RECOVERED,
        setting="rules: {failing: {consecutive: 3}}",
    ),
    _T.PIPELINE_RECOVERED: EventKind("{who} recovered{after}"),
    _T.PIPELINE_SILENT: EventKind(
        "{who} is silent: {silent}",
        _WARNING,
        closed_by=_T.PIPELINE_ACTIVE,
        setting="rules: {silent: 6h}",
        closes_when="an execution starts",
        remedy="check what triggers the pipeline",
    ),
    _T.PIPELINE_ACTIVE: EventKind("{who} is active again{after}"),
    _T.PIPELINE_SLOW: EventKind(
        "{who} is slow: {running}",
        _WARNING,
        closed_by=_T.PIPELINE_ON_TIME,
        setting="rules: {slow: {}}",
        closes_when="no execution has been running for longer than the limit",
        remedy="open the execution and see which node it waits for",
    ),
    _T.PIPELINE_ON_TIME: EventKind("{who} is on time again{after}"),
    _T.PIPELINE_OVERSPENDING: EventKind(
        "{who} used {percent} % of its tokens for today{tokens}",
        _ERROR,
        setting="rules: {tokens: {per_day: 2000000}}",
    ),
    _T.PIPELINE_NEW_ERROR: EventKind(
        "{who} failed with a new error{node}", _WARNING, with_openings=True, setting="rules: {new_error: true}"
    ),
    _T.PIPELINE_GAP: EventKind("{who}: executions may have been missed", _WARNING),
    _T.ACCOUNT_DEGRADED: EventKind(
        "Account {who}: the API cannot be used",
        _CRITICAL,
        closed_by=_T.ACCOUNT_RECOVERED,
        closes_when="a request succeeds",
    ),
    _T.ACCOUNT_RECOVERED: EventKind("Account {who} recovered{after}"),
    _T.SINK_FAILING: EventKind(
        "Sink {who} is failing{answer}",
        _ERROR,
        closed_by=_T.SINK_RECOVERED,
        closes_when="a delivery gets through",
        remedy="watcher test-sink tries it and says what to do; what waits is sent once it works",
    ),
    _T.SINK_RECOVERED: EventKind("Sink {who} recovered{after}"),
    _T.SINK_DISABLED: EventKind(
        "Sink {who} is disabled{answer}",
        _ERROR,
        closed_by=_T.SINK_RECOVERED,
        closes_when="somebody enables the sink and a delivery gets through",
        remedy="set a new url, or enable the sink once its receiver is back; what waits is sent then",
    ),
    _T.DELIVERY_DEAD: EventKind("Sink {who}: {letters}{answer}", _ERROR),
    _T.PROBLEM_REMINDER: EventKind("{who}: problem.reminder", is_about_problem=True),
    _T.PROBLEM_ACKNOWLEDGED: EventKind("{who}: problem.acknowledged", is_about_problem=True, sign=("◆", "blue")),
    _T.PROBLEM_CLOSED: EventKind("{who}: problem.closed", is_about_problem=True),
    _T.WATCHER_REPORT: EventKind("{who}: watcher.report", sign=("≡", "blue")),
    _T.WATCHER_TEST: EventKind("Test message from clerk-watcher to its sink {who}"),
}


TROUBLES_WITHOUT_PROBLEM = tuple(
    type_
    for type_, kind in EVENT_KINDS.items()
    if kind.severity is not Severity.INFO and not kind.opens and not type_.startswith("execution.")
)
"""The types that report trouble of a pipeline or a sink, and open no problem."""


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
