"""The models of requests and answers of the API under `/api/v1`; pages and commands show the same answers.

docs/reference/api.md is made from these models. Names in JSON are camelCase, times are RFC 3339 in UTC, and absent
values are left out. Texts of Clerk Chat's API and of receivers are hostile: pages and commands escape them. The
models of the overview, of histories and of reports are in `overview`, `history` and `report`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeAlias, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

from watcher.config.models import UtcMoment, WeeklySettings
from watcher.domain.event import EventType, Severity
from watcher.domain.execution import END_LABELS
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.snapshots import COUNTED
from watcher.domain.timestamps import Micros, from_us
from watcher.runtime.described import DescribedModel
from watcher.runtime.settings import Duration, ShortText
from watcher.sinks.settings import EventGlob, SilenceMatch

T = TypeVar("T")

ENDS = {each.letter: str(label) for label, each in END_LABELS.items()} | {COUNTED: "counts_as_failed"}
"""The statuses of ended executions, by their letters in a snapshot. `counts_as_failed` are successes."""

ACK_COUNT = 200
"""Problems that one request may acknowledge, at most."""

# These types also take the values of rows and snapshots of the store.
Time = Annotated[datetime, BeforeValidator(lambda at: from_us(Micros(at)) if isinstance(at, int) else at)]
Id = Annotated[str, BeforeValidator(lambda id_: str(UUID(bytes=id_)) if isinstance(id_, bytes) else id_)]
# `Ends` is a tuple, because an answer may have thousands of ends: pydantic handles a Sequence in Python, more slowly.
Ends = Annotated[
    tuple[str, ...], BeforeValidator(lambda ends: tuple(map(ENDS.__getitem__, ends)) if isinstance(ends, str) else ends)
]


class _CamelModel(DescribedModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, defer_build=True)


class ApiModel(_CamelModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(populate_by_name=True)


class ApiRequest(_CamelModel):
    """The query or the body of a request. An unknown field is an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Trouble(ApiModel):
    """The answer to a request that is refused or failed (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None


class Page(ApiModel, Generic[T]):
    """A page of a list. `next` is the `after` of the next page.

    A page reads at most 5,000 rows. It may therefore be short, or empty, although the list goes on.
    """

    items: Sequence[T]
    next: str | None = None
    looked_back_to: Time | None = None
    """The time back to which a short page was searched; absent if the page is full, or the last one."""


def _form(pattern: str, words: str) -> tuple[AfterValidator, Any]:
    """Return the metadata of a text that must match `pattern`; `words` are the error for any other text."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(words)
        return text

    return AfterValidator(check), Field(json_schema_extra={"pattern": pattern})


Span = Annotated[Duration, Field(json_schema_extra={"pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"})]
When = Annotated[UtcMoment, WithJsonSchema({"type": "string", "format": "date-time"})]


CURSOR = r"^([oaei]?)\.([0-9]{1,18})\.([0-9a-f]{1,32})$"
"""The `next` of every list but the events: the part of the list, a time or number, and the key of a row."""

NO_CURSOR = 'is no cursor of this list; take the "next" of a page'


class PageQuery(ApiRequest):
    """The page of a list."""

    after: Annotated[str, *_form(CURSOR, NO_CURSOR)] | None = None
    """The `next` of the page before."""
    limit: int = Field(default=50, ge=1, le=200)
    """Most items of the page."""


_LABEL = r"^!?[^:]+:[\s\S]*$"
LabelFilter = Annotated[str, Field(max_length=600), *_form(_LABEL, "write it as team:sales, or as !env:dev")]
"""`team:sales`, or `!env:dev` to leave out all with this label."""

NonEmptyText = Annotated[str, Field(min_length=1)]


class PipelineRef(ApiModel):
    """A pipeline: its id, and its name if that is known."""

    id: str
    name: str | None = None


class PipelineQuery(PageQuery):
    """Filters by pipeline, label and time."""

    pipeline: Sequence[NonEmptyText] = ()
    """Ids of pipelines, any of them."""
    label: Sequence[LabelFilter] = ()
    """All of these labels: `team:sales`, or `!env:dev` to leave out all with this label."""
    since: Span | When | None = None
    """Only what ended, was recorded or was opened within this time, such as `2h`, or since a date."""


# Problems


class Acknowledgement(ApiModel):
    """The acknowledgement of a problem. Without `until` it holds as long as the problem is open."""

    at: Time
    until: Time | None = None
    by: str | None = None
    comment: str | None = None


class Latest(ApiModel):
    """The newest failed execution of a problem: its end, its id, its first failed node, and its error."""

    at: Time
    execution: str
    node: str | None = None
    error: str | None = None


ProblemKind: TypeAlias = Literal[tuple(sorted(each.value for each in PROBLEM_KINDS))]  # type: ignore[valid-type]


class ProblemView(ApiModel):
    """A problem, open or closed."""

    id: Id
    kind: ProblemKind
    severity: Severity
    title: str
    reason: str
    opened_at: Time
    closed_at: Time | None = None
    count: int | None = None
    """Number of failed executions (`pipeline.failing`)."""
    latest: Latest | None = None
    """The newest failed execution; `title` and `reason` describe it."""
    rule: str | None = None
    """The rule that opened the problem, in words."""
    closes_when: str | None = None
    """The condition that closes the problem, in words."""
    last_ended_at: Time | None = None
    """Last end of an execution of its pipeline."""
    remedy: str | None = None
    """The next thing to do, if there is a general one."""
    account: str | None = None
    pipeline: PipelineRef | None = None
    execution: Id | None = None
    """The overdue execution, or the one that opened `pipeline.slow`."""
    sink: str | None = None
    labels: Mapping[str, str] = {}
    link: str | None = None
    runbook: str | None = None
    acknowledged: Acknowledgement | None = None


class ProblemQuery(PipelineQuery):
    """The filters of problems. A pipeline or a label leaves out the problems of accounts and sinks."""

    state: Literal["open", "closed", "all"] = "open"
    """The state of the problems."""
    kind: Sequence[ProblemKind] = ()
    """Kinds of problems, any of them."""
    account: Sequence[NonEmptyText] = ()
    """Names of accounts, any of them."""
    incident: UUID | None = None
    """Key of an incident (`dedup_key` at PagerDuty): only its problems."""


class CsvQuery(ApiRequest):
    """A query whose answer may also be in CSV."""

    format: Literal["json", "csv"] = "json"
    """`csv` for a table: of executions all pages, unless `limit` is given; of a history its periods."""


class PersonalRequest(ApiRequest):
    """A request that names a person and the reason."""

    by: Annotated[str, Field(max_length=64)] | None = None
    """Name of the person."""
    comment: ShortText | None = None
    """The reason; at most 256 characters."""
    for_s: Span | None = Field(default=None, alias="for")
    """Duration, such as `2h`. Without it an acknowledgement holds until the problem is closed."""


class AckRequest(PersonalRequest):
    """The acknowledgement of a problem. Without `for` it holds as long as the problem is open."""


class AckSeveralRequest(AckRequest):
    """The acknowledgement of several problems. The answer has those that were open; all other ids are ignored."""

    ids: Sequence[UUID] = Field(min_length=1, max_length=ACK_COUNT)
    """The whole ids of the problems."""


# Silences


class SilenceView(ApiModel):
    """A silence. One of the configuration file has no `id`."""

    id: str | None = None
    match: SilenceMatch
    from_: Time | None = Field(default=None, alias="from")
    until: Time | None = None
    weekly: WeeklySettings | None = None
    active: bool
    pipelines: int
    """Number of watched pipelines that the silence may concern."""
    by: str | None = None
    comment: str | None = None


class SilenceRequest(PersonalRequest):
    """A new silence, which begins now; one of `for` and `until` is required."""

    match: SilenceMatch = Field(json_schema_extra={"minProperties": 1})
    """The events that are silenced: those that match all given fields, at least one."""
    until: When | None = None
    """End of the silence, with its zone."""

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.for_s is None) == (self.until is None):
            raise ValueError('give one of "for", such as "2h", and "until"')
        return self


# Executions, events, deliveries


class ExecutionView(ApiModel):
    """An execution with its present status."""

    account: str
    pipeline: PipelineRef
    id: Id
    status: str | None = None
    since: Time
    """Time when the status was first seen."""
    ended_at: Time | None = None
    """`finishedAt` by the watcher's clock, or `endSeenAt` if the API gives no date."""
    end_seen_at: Time | None = None
    """Time when the end was seen."""
    lost: str | None = None
    """The reason why the execution is lost."""
    overdue: bool = False
    unknown: bool = False
    """Whether the execution was open when last seen, and its present status is unknown."""
    unknown_since: Time | None = None
    started_at: Time | None = None
    """The API's own date."""
    finished_at: Time | None = None
    """The API's own date."""
    duration_seconds: float | None = None
    error: str | None = None
    node: str | None = None
    """The first node that failed."""
    labels: Mapping[str, str] = {}
    link: str | None = None


class ExecutionQuery(PipelineQuery, CsvQuery):
    """The filters of executions. Open ones come first, the newest status on top; then the latest ends."""

    status: Sequence[NonEmptyText] = ()
    """Statuses, any of them; also `lost`."""
    account: Sequence[NonEmptyText] = ()
    """Names of accounts, any of them."""
    q: str | None = Field(default=None, max_length=200)
    """Beginning of a pipeline's name, or of an execution's id: 4 characters or more, or shortened as on the pages."""


class Stay(ApiModel):
    """A period in one status. `at` is the time of the first poll that saw it, `not_before` that of the poll before."""

    status: str
    at: Time
    not_before: Time | None = None
    until: Time | None = None


class DeliveryView(ApiModel):
    """The delivery of an event to a sink.

    A `held` delivery waits for an earlier event of the same execution or problem, a `paused` one for the end of its
    sink's pause, a `disabled` one until somebody enables the sink.
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
    """The filters of deliveries, which are listed newest first."""

    type: Sequence[EventGlob] = ()
    """Types of events, any of them; globs work: `execution.*`."""
    state: Literal["waiting", "silenced", "delivered", "accepted", "dead"] | None = None
    """The state of the deliveries; `waiting` means all that are not settled."""
    sink: str | None = None
    """Name of the sink."""


class ReplayRequest(ApiRequest):
    """The dead letters of a sink to send again: those with the given ids, or all."""

    sink: str
    """Name of the sink."""
    ids: Sequence[Annotated[str, *_form("^[0-9]{1,18}$", "the id of a delivery is a number")]] | None = Field(
        default=None, min_length=1, max_length=1000
    )
    """The ids of deliveries."""
    state: Literal["dead"] | None = None
    """Instead of `ids`: all dead letters of the sink."""

    @model_validator(mode="after")
    def _which(self) -> Self:
        if (self.ids is None) == (self.state is None):
            raise ValueError('give one of "ids" and "state": "dead"')
        return self


class Replayed(ApiModel):
    """The number of deliveries that are sent again."""

    replayed: int


class EventQuery(PipelineQuery):
    """The filters of events. The last page also has a `next`: a request with that `next` gets all later events."""

    after: Annotated[str, *_form("^[0-9]{1,18}$", NO_CURSOR)] | None = None
    """The `next` of the page before."""
    type: Sequence[EventGlob] = ()
    """Types of events, any of them; globs work: `execution.*`."""
    execution: UUID | None = None
    """Id of the execution."""


class EventView(ApiModel):
    """A CloudEvent as it was recorded (docs/reference/events.md)."""

    model_config = ConfigDict(extra="allow")

    id: str
    source: str
    type: EventType
    subject: str | None = None
    """Id of the execution, if the event is about one."""
    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    sequence: Annotated[str, Field(json_schema_extra={"pattern": "^[0-9]{10}$"})]
    data: Mapping[str, Any]


class Sent(ApiModel):
    """An event that a sink took, and when."""

    type: EventType
    at: Time


class Told(ApiModel):
    """The events of a problem that one sink was sent, and why it was not sent all of them."""

    sink: str
    sent: Sequence[Sent] = ()
    waiting: str | None = None
    """Why the next event is not sent yet: `after 10 m, grouped`, `retry after 503`, `silenced until …`;
    `pending` if it is due and waits for the sink."""
    until: Time | None = None
    """The end of that wait, if it is known."""
    never: str | None = None
    """Why the sink was sent nothing (`not: match`), or not all (`dead letter: 400`)."""


class ProblemDetail(ProblemView):
    """A problem with its events and their deliveries, and what each sink was sent."""

    told: Sequence[Told] = ()
    events: Sequence[EventView] = ()
    deliveries: Sequence[DeliveryView] = ()


class ExecutionDetail(ExecutionView):
    """An execution with its stays, events and deliveries."""

    stays: Sequence[Stay] = ()
    events: Sequence[EventView] = ()
    deliveries: Sequence[DeliveryView] = ()


class Done(ApiModel):
    """Whether an action is done. If not, the owner of the sink or the account does it soon."""

    done: bool


class TestResult(ApiModel):
    """The answer of a receiver to a test message."""

    __test__ = False

    delivered: bool
    answer: str
    took_ms: float
    remedy: str | None = None
