"""Watches: what the configuration asks of a pipeline, and how far its lists were read. Frozen values."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from watcher.domain.execution import OPEN_STATUSES
from watcher.domain.rules import Rules
from watcher.domain.timestamps import NEVER, Micros


class Details(StrEnum):
    """Which ends that a list showed are fetched as well, for what lists do not show (`polling.details`)."""

    FAILED = "failed"
    ALWAYS = "always"
    NEVER = "never"


class FirstSight(StrEnum):
    """What becomes of executions that had ended before a pipeline was first watched whole (`polling.first_sight`)."""

    BASELINE = "baseline"
    """Nothing."""
    NOTIFY = "notify"
    """Their ends."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What the configuration asks of one pipeline; without `executions` it is watched whole.

    `overdue_after_s` maps a status to its dwell limit in seconds. `rules` are absent where there are none.
    `runbook` is a URL that events show.
    """

    account: str
    pipeline: str
    executions: tuple[str, ...]
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    overdue_after_s: Mapping[str, float] = field(default_factory=dict)
    rules: Rules | None = None
    runbook: str | None = None

    @property
    def whole(self) -> bool:
        """Whether every execution of the pipeline is watched."""
        return not self.executions


def limits_dwell(overdue_after_s: Collection[str], status: str) -> bool:
    """Return whether there is a limit to the dwell in a status; to one that nobody knows the others' apply."""
    return status in overdue_after_s or (status not in OPEN_STATUSES and bool(overdue_after_s))


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the lists of a pipeline that is watched whole were read. Times are microseconds UTC, steady.

    `since_at` is when it was first watched whole. `complete_at` is the begin of the last complete scan, 0 before the
    first; `refused` the reason reported because the list is refused, until it answers again. `found` says whether the
    list held anything when that scan ended: without it, the next one can meet nothing that is known. `name` is what the
    API calls the pipeline, as far as it has said: no list does. The list had `total` rows when that scan began, by what
    it said, `None` if it says nothing. The API's clock was ahead of ours by `ahead_us` when it first answered, `None`
    before that. The history of the pipeline is known from `known_from` on. `dated` marks a cursor that version 1.0.0
    recorded: both times are by the API's clock until it answers.
    """

    since_at: Micros
    complete_at: Micros = NEVER
    refused: str | None = None
    found: bool = False
    name: str | None = None
    total: int | None = None
    ahead_us: int | None = None
    known_from: Micros | None = None
    dated: bool = False
