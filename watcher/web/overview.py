"""The models of the overview: needs, and the states of pipelines, accounts and sinks."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from watcher.domain.event import Severity
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.timestamps import Micros
from watcher.web.models import ApiModel, Ends, Id, SilenceView, Time


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
    snapshot: Mapping[str, Any]
    """The fields of a `PipelineSnapshot`; empty without one."""

    def view(self) -> PipelineStatus:
        """Return the model. It takes ten times as long to make as the state."""
        return PipelineStatus(**{**self.snapshot, **self._asdict()})


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

    A sink is `in_trouble` from a failure until the next success, and `failing` after 5 min of that. It is `behind` if
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
