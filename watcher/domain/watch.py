"""Watches: the configuration of a pipeline, and the progress of scanning its list. Frozen values."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from watcher.domain.execution import OPEN_STATUSES
from watcher.domain.rule import Rule
from watcher.domain.timestamps import NEVER, Micros


class Details(StrEnum):
    """The ends in a list that cause one poll more, for the fields that lists lack (`polling.details`)."""

    FAILED = "failed"
    ALWAYS = "always"
    NEVER = "never"


class FirstSight(StrEnum):
    """The events of executions that had ended before their pipeline was watched whole (`polling.first_sight`)."""

    BASELINE = "baseline"
    """No events."""
    NOTIFY = "notify"
    """An event for each end."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The configuration of one pipeline."""

    account: str
    pipeline: str
    executions: tuple[str, ...]
    """The ids of the watched executions; empty if the whole pipeline is watched."""
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    overdue_after_s: Mapping[str, float] = field(default_factory=dict)
    """The seconds in a status after which an execution is overdue, by status."""
    rules: tuple[Rule, ...] = ()
    max_tokens: int | None = None
    """An execution that uses more tokens than this is expensive."""
    runbook: str | None = None
    """The URL of instructions for people. Events carry the URL."""

    @property
    def source(self) -> str:
        """Return the source of the events of the pipeline and its executions."""
        return f"/accounts/{self.account}/pipelines/{self.pipeline}"

    @property
    def whole(self) -> bool:
        """Return whether every execution of the pipeline is watched."""
        return not self.executions


def has_limit(overdue_after_s: Collection[str], status: str) -> bool:
    """Return whether a status has a limit. An unrecognized status counts as limited if any status has a limit."""
    return status in overdue_after_s or (status not in OPEN_STATUSES and bool(overdue_after_s))


@dataclass(frozen=True, slots=True)
class Cursor:
    """The progress of scanning the list of a pipeline that is watched whole. Times are microseconds UTC, steady."""

    since_at: Micros
    """The time since which the pipeline has been watched whole."""
    complete_at: Micros = NEVER
    """The start of the last complete scan."""
    refused: str | None = None
    """The reason that `pipeline.gap` gave, while the API refuses the list."""
    found: bool = False
    """Whether the last complete scan found any row. If it found none, the next scan cannot meet a known row."""
    name: str | None = None
    """The API's name of the pipeline, once an answer about an execution had the name. Lists do not have it."""
    total: int | None = None
    """The number of rows at the start of the last complete scan, as the list's `total` says."""
    ahead_us: int | None = None
    """The lead of the API's clock over our steady clock at the API's first answer; `None` before that answer."""
    known_from: Micros | None = None
    """The time from which the pipeline's history is known."""
    dated: bool = False
    """Whether `since_at` and `complete_at` are still on the API's clock, as version 1.0.0 recorded them."""
