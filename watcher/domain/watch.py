"""Watches: the configuration of a pipeline, and the progress of reading its list. Frozen values."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from watcher.domain.execution import OPEN_STATUSES
from watcher.domain.rules import Rules
from watcher.domain.timestamps import NEVER, Micros


class Details(StrEnum):
    """The ends that are polled once more for fields that lists lack (`polling.details`)."""

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
    """The watched executions; empty if the whole pipeline is watched."""
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    overdue_after_s: Mapping[str, float] = field(default_factory=dict)
    """The limit of the time in a status, by status."""
    rules: Rules | None = None
    runbook: str | None = None
    """A URL that events show."""

    @property
    def whole(self) -> bool:
        """Whether every execution of the pipeline is watched."""
        return not self.executions


def has_limit(overdue_after_s: Collection[str], status: str) -> bool:
    """Return whether the time in a status is limited. An unrecognized status is limited if any status is."""
    return status in overdue_after_s or (status not in OPEN_STATUSES and bool(overdue_after_s))


@dataclass(frozen=True, slots=True)
class Cursor:
    """The progress of reading the list of a pipeline that is watched whole. Times are microseconds UTC, steady."""

    since_at: Micros
    """The time since which the pipeline has been watched whole."""
    complete_at: Micros = NEVER
    """The start of the last complete scan."""
    refused: str | None = None
    """The reported reason, while the API refuses the list."""
    found: bool = False
    """Whether the list had any row at the last complete scan. Without one, the next scan meets no known row."""
    name: str | None = None
    """The API's name of the pipeline, if an execution's answer had it. Lists lack it."""
    total: int | None = None
    """The number of rows at the start of the last complete scan, by the list's own `total`."""
    ahead_us: int | None = None
    """The lead of the API's clock over ours at its first answer; `None` before that."""
    known_from: Micros | None = None
    """The time from which the pipeline's history is known."""
    dated: bool = False
    """Whether version 1.0.0 recorded this cursor. Its two times are then on the API's clock until the API answers."""
