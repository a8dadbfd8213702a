"""What the API under `/api/v1` takes and answers; pages and commands show the same. docs/api.md is made from it.

Names are camelCase, times RFC 3339 in UTC; what is absent is left out. What the API of Clerk Chat or a receiver called
something is hostile text: whoever shows it escapes it. The models of history and reports are in `history` and `report`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeAlias, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

from watcher.config.models import Moment, WeeklySettings
from watcher.domain.event import EventType
from watcher.domain.problems import PROBLEM_KINDS, Severity
from watcher.domain.timestamps import Micros, from_us
from watcher.runtime.settings import Duration, ShortText
from watcher.sinks.settings import EventGlob, SilenceMatch

T = TypeVar("T")

ENDS = {"s": "success", "f": "failed", "u": "unrecognized"}
"""The statuses of ends, by the letters of a snapshot."""

ACK_COUNT = 200
"""Problems that are acknowledged by one request, at most."""

# Rows and snapshots of the store become models as they are.
Time = Annotated[datetime, BeforeValidator(lambda at: from_us(Micros(at)) if isinstance(at, int) else at)]
Id = Annotated[str, BeforeValidator(lambda id_: str(UUID(bytes=id_)) if isinstance(id_, bytes) else id_)]
# A tuple, as elsewhere where there are thousands: a Sequence is checked and written in Python.
Ends = Annotated[
    tuple[str, ...], BeforeValidator(lambda ends: tuple(map(ENDS.__getitem__, ends)) if isinstance(ends, str) else ends)
]


class ApiModel(BaseModel):
    """What is answered."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class ApiRequest(BaseModel):
    """What is asked, in a query or a body: what is not known is an error."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


class Trouble(ApiModel):
    """Why something was not done (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None


class Page(ApiModel, Generic[T]):
    """Some of a list. With `next` as `after` the list goes on; it may end early where much had to be looked through."""

    items: Sequence[T]
    next: str | None = None


def _form(pattern: str, words: str) -> tuple[AfterValidator, Any]:
    """Return the metadata of a text that must match `pattern`, and the words for one that does not."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(words)
        return text

    return AfterValidator(check), Field(json_schema_extra={"pattern": pattern})


Span = Annotated[Duration, Field(json_schema_extra={"pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"})]
When = Annotated[Moment, WithJsonSchema({"type": "string", "format": "date-time"})]


CURSOR = r"^([oei]?)\.([0-9]{1,18})\.([0-9a-f]{1,32})$"
"""The `next` of every list but that of events: a part of it, a time or number, and the key of a row."""
NO_CURSOR = 'is no cursor of this list; take the "next" of a page'


class PageQuery(ApiRequest):
    """Which part of a list."""

    after: Annotated[str, *_form(CURSOR, NO_CURSOR)] | None = None
    """The `next` of the page before."""
    limit: int = Field(default=50, ge=1, le=200)
    """So many at most."""


_LABEL = r"^!?[^:]+:[\s\S]*$"
LabelFilter = Annotated[str, Field(max_length=600), *_form(_LABEL, "write it as team:sales, or as !env:dev")]
"""`team:sales`, or `!env:dev` for what is without that."""

NonEmptyText = Annotated[str, Field(min_length=1)]


class PipelineRef(ApiModel):
    """A pipeline by its id, and its name as far as it is known."""

    id: str
    name: str | None = None


class PipelineQuery(PageQuery):
    """Which pipelines, and since when."""

    pipeline: Sequence[NonEmptyText] = ()
    """Any of these, by their ids."""
    label: Sequence[LabelFilter] = ()
    """All of these labels: `team:sales`, or `!env:dev` for what is without it."""
    since: Span | When | None = None
    """Ended, recorded or opened no longer ago than `2h`, or since a time."""


# Problems


class Acknowledgement(ApiModel):
    """That somebody took a problem: who, why, and until when nobody is reminded (absent: as long as it is open)."""

    at: Time
    until: Time | None = None
    by: str | None = None
    comment: str | None = None


class Latest(ApiModel):
    """The newest failure of a problem: when it ended, which execution it is, its first failed node, and the error."""

    at: Time
    execution: str
    node: str | None = None
    error: str | None = None


ProblemKind: TypeAlias = Literal[tuple(sorted(each.value for each in PROBLEM_KINDS))]  # type: ignore[valid-type]


class ProblemView(ApiModel):
    """Something that began and has not ended, or has: what it is about, how bad, since when, and who took it."""

    id: Id
    kind: ProblemKind
    severity: Severity
    title: str
    reason: str
    opened_at: Time
    closed_at: Time | None = None
    count: int | None = None
    """How many executions have failed (`pipeline.failing`)."""
    latest: Latest | None = None
    """The newest of them; `title` and `reason` go by it."""
    rule: str | None = None
    """The rule that opens such a problem, in words."""
    closes_when: str | None = None
    """What closes it, in words."""
    last_ended_at: Time | None = None
    """When an execution of its pipeline last ended."""
    remedy: str | None = None
    """What to do about it, where that is known."""
    account: str | None = None
    pipeline: PipelineRef | None = None
    execution: Id | None = None
    sink: str | None = None
    labels: Mapping[str, str] = {}
    link: str | None = None
    runbook: str | None = None
    acknowledged: Acknowledgement | None = None


class ProblemQuery(PipelineQuery):
    """Which problems, the last opened first; with a pipeline or a label none of accounts and sinks."""

    state: Literal["open", "closed", "all"] = "open"
    """Which of them."""
    kind: Sequence[ProblemKind] = ()
    """Any of these."""
    account: Sequence[NonEmptyText] = ()
    """Any of these."""


class PersonalRequest(ApiRequest):
    """Something that a person asks for."""

    by: Annotated[str, Field(max_length=64)] | None = None
    """Who asks for it."""
    comment: ShortText | None = None
    """Why; at most 256 characters."""
    for_s: Span | None = Field(default=None, alias="for")
    """How long it holds, such as `2h`; a problem else until it is closed."""


class AckRequest(PersonalRequest):
    """Acknowledge a problem: nobody is reminded of it. Without `for` this holds as long as the problem is open."""


class AckSeveralRequest(AckRequest):
    """Acknowledge several problems at once. The answer has those that were open; ids of others are passed over."""

    ids: Sequence[UUID] = Field(min_length=1, max_length=ACK_COUNT)
    """The whole ids of the problems."""


# Silences


class SilenceView(ApiModel):
    """What is kept back, and when. One of the file has no `id`: the file is the truth about it."""

    id: str | None = None
    match: SilenceMatch
    from_: Time | None = Field(default=None, alias="from")
    until: Time | None = None
    weekly: WeeklySettings | None = None
    active: bool
    pipelines: int
    """How many of the watched pipelines it may concern."""
    by: str | None = None
    comment: str | None = None


class SilenceRequest(PersonalRequest):
    """Keep back from now on what matches; give one of `for` and `until`."""

    match: SilenceMatch = Field(json_schema_extra={"minProperties": 1})
    """What is kept back: what matches all that is given; at least one."""
    until: When | None = None
    """Until when, with its zone."""

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.for_s is None) == (self.until is None):
            raise ValueError('give one of "for", such as "2h", and "until"')
        return self


# Executions, events, deliveries


class ExecutionView(ApiModel):
    """An execution as it stands. `since` is when its status was first seen, `end_seen_at` when its end was.

    `started_at` and `finished_at` are the API's own dates. `ended_at` is `finished_at` on the watcher's clock, or
    `end_seen_at` where the API gives no date.
    """

    account: str
    pipeline: PipelineRef
    id: Id
    status: str | None = None
    since: Time
    ended_at: Time | None = None
    end_seen_at: Time | None = None
    lost: str | None = None
    overdue: bool = False
    unknown: bool = False
    """It is open, and nobody knows whether it still is."""
    unknown_since: Time | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    duration_seconds: float | None = None
    error: str | None = None
    node: str | None = None
    """The first node that failed."""
    labels: Mapping[str, str] = {}
    link: str | None = None


class ExecutionQuery(PipelineQuery):
    """Which executions: open ones first, those in their status for the shortest time first; then the latest ended."""

    status: Sequence[NonEmptyText] = ()
    """Any of these; `lost`, too."""
    account: Sequence[NonEmptyText] = ()
    """Any of these."""
    q: str | None = Field(default=None, max_length=200)
    """Beginning of a pipeline's name, or of an execution's id: 4 characters or more, or shortened as on the pages."""


class Stay(ApiModel):
    """A time in one status. Its beginning was seen at `at` and was not so yet at `not_before`."""

    status: str
    at: Time
    not_before: Time | None = None
    until: Time | None = None


class DeliveryView(ApiModel):
    """An event on its way to a sink, or there.

    `held` waits for an earlier event of the same execution or problem, `paused` for its sink, `disabled` for a person.
    """

    id: str
    sink: str
    event: Id
    """The event's id."""
    type: EventType
    account: str | None = None
    pipeline: PipelineRef | None = None
    execution: Id | None = None
    state: Literal["waiting", "retrying", "held", "paused", "disabled", "silenced", "delivered", "accepted", "dead"]
    attempts: int
    answer: str | None = None
    recorded_at: Time
    next_try_at: Time | None = None
    settled_at: Time | None = None


class DeliveryQuery(PageQuery):
    """Which deliveries: newest first."""

    type: Sequence[EventGlob] = ()
    """Of any of these events; globs work: `execution.*`."""
    state: Literal["waiting", "silenced", "delivered", "accepted", "dead"] | None = None
    """Those that are; `waiting` is whatever is not settled."""
    sink: str | None = None
    """Those to this sink."""


class ReplayRequest(ApiRequest):
    """Send dead letters of a sink again: some, by the ids of deliveries, or all of them."""

    sink: str
    """To which they went."""
    ids: Sequence[Annotated[str, *_form("^[0-9]{1,18}$", "the id of a delivery is a number")]] | None = Field(
        default=None, min_length=1, max_length=1000
    )
    """The ids of deliveries."""
    state: Literal["dead"] | None = None
    """Instead of `ids`: all there are."""

    @model_validator(mode="after")
    def _which(self) -> Self:
        if (self.ids is None) == (self.state is None):
            raise ValueError('give one of "ids" and "state": "dead"')
        return self


class Replayed(ApiModel):
    """How many are sent again."""

    replayed: int


class EventQuery(PipelineQuery):
    """Which events, in the order of recording. The last page also has a `next`: asked with it later, none is missed."""

    after: Annotated[str, *_form("^[0-9]{1,18}$", NO_CURSOR)] | None = None
    """The `next` of the page before."""
    type: Sequence[EventGlob] = ()
    """Any of these; globs work, such as `execution.*`."""
    execution: UUID | None = None
    """This one alone."""


class EventView(ApiModel):
    """A CloudEvent as it was recorded: docs/events.md."""

    model_config = ConfigDict(extra="allow")

    id: str
    source: str
    type: EventType
    subject: str | None = None
    """The execution, of an event of one."""
    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    sequence: Annotated[str, Field(json_schema_extra={"pattern": "^[0-9]{10}$"})]
    data: Mapping[str, Any]


class ProblemDetail(ProblemView):
    """One problem with what was told of it to whom."""

    events: Sequence[EventView] = ()
    deliveries: Sequence[DeliveryView] = ()


class ExecutionDetail(ExecutionView):
    """One execution with all that is known of it."""

    stays: Sequence[Stay] = ()
    events: Sequence[EventView] = ()
    deliveries: Sequence[DeliveryView] = ()


# The overview


class Need(ApiModel):
    """Something that needs somebody, with the address of the page about it.

    The most severe come first, and of these the causes; what somebody has acknowledged comes last.
    """

    kind: Literal["problem", "dead_letters", "gap", "config", "store"]
    severity: Severity
    title: str
    reason: str
    since: Time | None = None
    count: int = 1
    page: str
    problems: Sequence[Id] = ()
    """The problems it stands for, at most 200 of them."""
    acknowledged: bool = False
    acknowledged_by: str | None = None
    acknowledged_until: Time | None = None


_STATES = {kind.partition(".")[2] for kind in PROBLEM_KINDS if kind.startswith(("pipeline.", "execution."))}


class PipelineStatus(ApiModel):
    """A watched pipeline. `ends` are the statuses of its last 60 ends by end time, oldest first, since `ends_from`.

    The most severe come first. `state` is its worst problem, such as `failing` or `overdue`, else `unknown` or `well`.
    It is `unknown` while no request of its account succeeds, or nobody says how it is; `unknown_since` is since when.
    """

    account: str
    id: str
    name: str | None = None
    state: Literal[(*sorted(_STATES), "unknown", "well")]  # type: ignore[valid-type]
    unknown: bool = False
    unknown_since: Time | None = None
    labels: Mapping[str, str] = {}
    runbook: str | None = None
    whole: bool
    open: Mapping[str, int] = {}
    oldest: Mapping[str, Time] = {}
    ends: Ends = ()
    ends_from: Time | None = None
    last_ended_at: Time | None = None
    last_failed_at: Time | None = None
    last_started_at: Time | None = None
    problems: tuple[str, ...] = ()
    """The kinds of its open problems."""
    silenced_until: Time | None = None


class AccountStatus(ApiModel):
    """An account and what it spends, in requests a second. It is not known how it is since `unknown_since`."""

    name: str
    state: Literal["well", "degraded", "unknown"]
    unknown_since: Time | None = None
    reason: str | None = None
    """Of `account.degraded`."""
    needed: float | None = None
    used: float | None = None
    allowed: float
    longest_gap_seconds: float | None = None
    pipelines: int
    as_of: Time | None = None
    """Absent while nobody owns it."""


class SinkStatus(ApiModel):
    """A sink, what waits for it, and what it answered last. It is not known how it is since `unknown_since`.

    While nothing got through since its last failure it is `in_trouble`, after 5 min `failing`.
    """

    name: str
    type: str
    state: Literal["well", "in_trouble", "failing", "disabled", "unknown"]
    unknown_since: Time | None = None
    waiting: int = 0
    oldest_waiting_at: Time | None = None
    dead: int = 0
    answer: str | None = None
    last_delivered_at: Time | None = None
    next_try_at: Time | None = None
    as_of: Time | None = None
    """Absent while nobody owns it."""


class StatusView(ApiModel):
    """The first view: what needs somebody, and how everything stands."""

    version: str
    needs: Sequence[Need]
    open: Mapping[str, int]
    unknown: int = 0
    """How many pipelines are unknown, whose executions may be others now."""
    unknown_since: Time | None = None
    """Since when, if that is known of all of them."""
    pipelines: Sequence[PipelineStatus]
    sinks: Sequence[SinkStatus]
    accounts: Sequence[AccountStatus]
    silences: Sequence[SilenceView]


class Done(ApiModel):
    """Whether what was asked for is done; else the owner of what it is about does it soon."""

    done: bool


class TestResult(ApiModel):
    """What a receiver answered to a test message."""

    __test__ = False

    delivered: bool
    answer: str
    took_ms: float
    remedy: str | None = None
