"""Snapshots: state in an owner's memory. The owner writes it to the store every few seconds, and `web` shows it.

Times are microseconds UTC on the steady clock. Frozen values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from watcher.domain.timestamps import Micros

COUNTED = "c"
"""The letter of a success that the rule `failing` counts as failed. Other ends have the letters of `END_LABELS`."""

ENDS_COUNT = 60
"""The most ends of a pipeline that a snapshot has. Pages show them as a strip."""


@dataclass(frozen=True, slots=True)
class PipelineSnapshot:
    """The state of a pipeline: its open executions and its last ends."""

    open: Mapping[str, int] = field(default_factory=dict)
    """The number of open executions in each status."""
    oldest: Mapping[str, Micros] = field(default_factory=dict)
    """The time at which the oldest open execution in each status entered the status."""
    ends: str = ""
    """The last ends as one letter each, oldest first: those of `END_LABELS`, and `COUNTED`.

    The rule `failing` counts a success as failed if it was too short, or started too few nodes.
    """
    ends_from: Micros | None = None
    """The time of the oldest of these ends."""
    last_ended_at: Micros | None = None
    last_failed_at: Micros | None = None
    last_started_at: Micros | None = None
    name: str | None = None
    """The API's name of the pipeline, if an answer had it."""
    is_read: bool = True
    """Whether a scan of the pipeline was ever complete; true, too, if only single executions are watched."""
    counted: tuple[Micros, ...] = ()
    """The times of the ends that are `c`ounted as failed."""


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """The request rates of an account, and the snapshots of its pipelines by id."""

    wanted_per_s: float
    """Requests per second that the account needs."""
    used_per_s: float
    """Requests per second over the last minute."""
    longest_gap_s: float
    """The seconds since the last request about the execution or list that has waited longest."""
    pipelines: Mapping[str, PipelineSnapshot] = field(default_factory=dict)
    known_at: Micros | None = None
    """The time of the last success (0: never) while requests fail; `None` while requests succeed."""
    ahead_us: int | None = None
    """The time (microseconds) by which the API's clock was ahead of our steady clock at the last success."""


@dataclass(frozen=True, slots=True)
class SinkSnapshot:
    """The last answer of a sink and its next attempt."""

    answer: str
    last_success_at: Micros | None = None
    """The time of the last success."""
    next_try_at: Micros | None = None
    """The time of the next attempt; `None` while no delivery is pending."""
    has_failed: bool = False
    """Whether an attempt has failed since the last success."""
