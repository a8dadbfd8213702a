"""The overview: its rows in the store, and its models of needs and the states of pipelines, accounts and sinks."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import starmap
from typing import Literal, NamedTuple

from sqlalchemy import Connection, text

from watcher.domain.event import Severity
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.snapshots import PipelineSnapshot
from watcher.domain.timestamps import Micros
from watcher.store.changes import Backlog
from watcher.store.deliveries import backlog
from watcher.store.sources import names_of
from watcher.store.sql_store import SqlStore
from watcher.web import listing
from watcher.web.models import ApiModel, Ends, Id, SilenceView, Time

NEEDS_COUNT = 100
"""Most gaps that the overview shows, and most open problems other than `execution.overdue`."""

DEAD_COUNT = 10_000
"""Most dead letters of one sink that the overview counts."""


class Need(ApiModel):
    """Something that somebody has to look after; `page` is the address of its page.

    The most severe needs come first, and among equals those of accounts and sinks, which may be the cause of others.
    Acknowledged needs come last.
    """

    kind: Literal["problem", "dead_letters", "gap", "config", "store"]
    severity: Severity
    title: str
    reason: str
    since: Time | None = None
    count: int = 1
    page: str
    problems: Sequence[Id] = ()
    """Ids of its problems, at most 200."""
    acknowledged: bool = False
    acknowledged_by: str | None = None
    acknowledged_until: Time | None = None


_STATES = {kind.partition(".")[2] for kind in PROBLEM_KINDS if kind.startswith(("pipeline.", "execution."))}


class PipelineStatus(ApiModel):
    """A watched pipeline. Pipelines with the most severe problems come first.

    `state` is its worst problem, such as `failing` or `overdue`, else `unknown` or `well`. A pipeline is unknown while
    no request of its account succeeds, or while no process has written its state.
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
    """Statuses of the last 60 executions that ended, in the order of their ends.

    `counts_as_failed` is a success that the rule `failing` counts as failed, by its `also`.
    """
    ends_from: Time | None = None
    """Time of the first of these ends."""
    last_ended_at: Time | None = None
    last_failed_at: Time | None = None
    last_started_at: Time | None = None
    problems: tuple[str, ...] = ()
    """Kinds of its open problems."""
    silenced_until: Time | None = None


class PipelineState(NamedTuple):
    """The state of a pipeline, of which `view` makes the model. Times are microseconds UTC."""

    account: str
    id: str
    name: str | None
    state: str
    unknown: bool
    unknown_since: Micros | None
    labels: Mapping[str, str]
    runbook: str | None
    whole: bool
    problems: tuple[str, ...]
    silenced_until: datetime | None
    snapshot: PipelineSnapshot

    def view(self) -> PipelineStatus:
        """Return the model. It takes ten times as long to make as the state."""
        last = self.snapshot
        return PipelineStatus(
            **self._asdict(),
            open=last.open,
            oldest=last.oldest,
            ends=last.ends,
            ends_from=last.ends_from,
            last_ended_at=last.last_ended_at,
            last_failed_at=last.last_failed_at,
            last_started_at=last.last_started_at,
        )


class AccountStatus(ApiModel):
    """An account and its rates, in requests per second. `unknown_since` is the time when its state became unknown."""

    name: str
    state: Literal["well", "degraded", "unknown"]
    unknown_since: Time | None = None
    reason: str | None = None
    """Reason of `account.degraded`."""
    needed: float | None = None
    used: float | None = None
    allowed: float
    longest_gap_seconds: float | None = None
    pipelines: int
    as_of: Time | None = None
    """Time of the last snapshot by the account's owner; absent without an owner."""


class SinkStatus(ApiModel):
    """A sink with its backlog and its last answer. `unknown_since` is the time when its state became unknown.

    A sink is `in_trouble` from a failure until the next success, and `failing` after 5 min of that. It is `in_trouble`,
    too, while its buttons have no connection. It is `behind` if
    it takes deliveries, and one has been due for more than 60 s.
    """

    name: str
    type: str
    state: Literal["well", "behind", "in_trouble", "failing", "disabled", "unknown"]
    unknown_since: Time | None = None
    waiting: int = 0
    oldest_waiting_at: Time | None = None
    dead: int = 0
    answer: str | None = None
    last_delivered_at: Time | None = None
    next_try_at: Time | None = None
    as_of: Time | None = None
    """Time of the last snapshot by the sink's owner; absent without an owner."""


class StatusView(ApiModel):
    """The overview: needs, counts, and the states of pipelines, sinks and accounts."""

    version: str
    needs: Sequence[Need]
    open: Mapping[str, int]
    unknown: int = 0
    """Number of pipelines whose state is unknown."""
    unknown_since: Time | None = None
    """The earliest `unknownSince` of the unknown pipelines; absent if one of them has none."""
    pipelines: Sequence[PipelineStatus]
    sinks: Sequence[SinkStatus]
    accounts: Sequence[AccountStatus]
    silences: Sequence[SilenceView]


# The rows of the overview. Times are microseconds UTC.


class SourceRow(NamedTuple):
    """An account or a sink, and its snapshot."""

    kind: str
    name: str
    state: str | None
    written_at: Micros | None
    body: bytes | None
    """JSON of domain/snapshots; `None` if no owner has written a snapshot yet."""


class OpenProblemRow(NamedTuple):
    """An open problem without its opening."""

    id: bytes
    kind: str
    opened_at: Micros
    acked_at: Micros | None
    acked_until: Micros | None
    owner_kind: str
    pipeline_name: str | None
    """The name (account/id)."""


class Gap(NamedTuple):
    """An event `pipeline.gap`."""

    pipeline_name: str
    recorded_at: Micros
    body: bytes


class DeadLetters(NamedTuple):
    """The dead letters of a sink."""

    all_count: int
    late_count: int
    """The number of those since the requested time."""
    since_at: Micros | None
    """The time of the first of those."""
    answer: str | None
    """The newest answer."""


class OverviewRows(NamedTuple):
    """The rows that the overview is made of."""

    sources: Sequence[SourceRow]
    """All accounts and sinks."""
    others: Sequence[OpenProblemRow]
    """The open problems that are not in `overdue`."""
    overdue: Sequence[OpenProblemRow]
    """The open problems of overdue executions."""
    gaps: Sequence[Gap]
    dead: Mapping[str, DeadLetters]
    """By sink."""
    backlog: Mapping[str, Backlog]


_SOURCES = text(
    "SELECT kind, name, state, written_at, body FROM source"
    " LEFT JOIN snapshot ON snapshot.source_id = source.id WHERE kind IN ('account', 'sink')"
)
_OPEN_PROBLEMS = (
    "SELECT problem.id, problem.kind, problem.opened_at, acked_at, acked_until, owner.kind, pipeline.name"
    " FROM problem JOIN source AS owner ON owner.id = problem.source_id"
    " LEFT JOIN source AS pipeline ON pipeline.id = problem.pipeline_id"
    " WHERE problem.closed_at IS NULL AND problem.kind {} 'execution.overdue' LIMIT :limit"
)
_OVERDUE, _OTHERS = text(_OPEN_PROBLEMS.format("=")), text(_OPEN_PROBLEMS.format("<>"))
_GAPS = text(
    f"SELECT account || '/' || pipeline, recorded_at, body{listing.WITHOUT_EXECUTION % 'DESC'}"
    f" WHERE looked_at.type = 'pipeline.gap' LIMIT {NEEDS_COUNT}"
)
_DEAD_LETTERS = text(
    "SELECT count(*), count(late), min(late), (SELECT answer FROM delivery"
    " WHERE sink_id = :of_sink AND state = 'dead' ORDER BY settled_at DESC LIMIT 1) FROM"
    " (SELECT CASE WHEN settled_at >= :since THEN settled_at END AS late FROM delivery"
    " WHERE sink_id = :of_sink AND state = 'dead' ORDER BY settled_at DESC LIMIT :limit) AS dead"
)


async def load_overview(store: SqlStore, *, since: Micros) -> OverviewRows:
    """Return the rows of the overview, with the gaps and the dead letters since a time. Raises `StoreError`."""

    def read(connection: Connection) -> OverviewRows:
        late, most = {"since": since, "limit": DEAD_COUNT}, {"limit": listing.EXAMINED_COUNT}
        dead = {
            name: DeadLetters(*connection.execute(_DEAD_LETTERS, {"of_sink": number, **late}).one())
            for number, name in names_of(connection, "sink").items()
        }
        return OverviewRows(
            sources=list(starmap(SourceRow, connection.execute(_SOURCES))),
            others=list(starmap(OpenProblemRow, connection.execute(_OTHERS, most))),
            overdue=list(starmap(OpenProblemRow, connection.execute(_OVERDUE, most))),
            gaps=list(starmap(Gap, connection.execute(_GAPS, {"since": since}))),
            dead=dead,
            backlog=backlog(connection),
        )

    return await store.read(read)
