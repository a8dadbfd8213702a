"""Snapshots: the state in an owner's memory, which the owner writes to the store every few seconds. `web` shows it.

Times are microseconds UTC on the steady clock. Frozen values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from watcher.domain.timestamps import Micros

ENDS_COUNT = 60
"""The most ends of a pipeline that a snapshot has. Pages show them as a strip."""


@dataclass(frozen=True, slots=True)
class PipelineSnapshot:
    """The state of a pipeline: its open executions and its last ends."""

    open: Mapping[str, int] = field(default_factory=dict)
    """The number of open executions in each status."""
    oldest: Mapping[str, Micros] = field(default_factory=dict)
    """The time since which the oldest of them has been in each status."""
    ends: str = ""
    """The first letter of each of the last ends, oldest first: `s`uccess, `f`ailed, `u`nrecognized."""
    ends_from: Micros | None = None
    """The time of the first of these ends."""
    last_ended_at: Micros | None = None
    last_failed_at: Micros | None = None
    last_started_at: Micros | None = None
    name: str | None = None
    """The API's name of the pipeline, if an answer had it."""
    is_read: bool = True
    """Whether a scan of the pipeline was ever complete. Always true for a pipeline with named executions."""


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """The requests of an account, and its pipelines by id."""

    wanted_per_s: float
    """Requests per second that the account needs."""
    used_per_s: float
    """Requests per second over the last minute."""
    longest_gap_s: float
    """The longest time since an execution or a list was last polled."""
    pipelines: Mapping[str, PipelineSnapshot] = field(default_factory=dict)
    known_at: Micros | None = None
    """The time of the last success, 0 for never, while no request succeeds; `None` while requests succeed."""


@dataclass(frozen=True, slots=True)
class SinkSnapshot:
    """The last answer of a sink and its next attempt."""

    answer: str
    through_at: Micros | None = None
    """The time of the last success."""
    next_try_at: Micros | None = None
    """The time of the next attempt; `None` while no delivery is pending."""
    has_failed: bool = False
    """Whether nothing succeeded since the last failure."""
