"""What only the owner of an account or a sink knows, as it writes it down every few seconds for all pages.

Times are microseconds UTC, steady, as all that is recorded. Pure values; `web` reads them back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from watcher.domain.timestamps import Micros

ENDS_COUNT = 60
"""The last ends of a pipeline that are kept for its strip."""


@dataclass(frozen=True, slots=True)
class PipelineSnapshot:
    """How a pipeline stands: its open executions by status, since when the oldest of each is in it, and the last ends.

    `ends` has the first letter of each of the last ends, by end time, oldest first: `s`uccess, `f`ailed,
    `u`nrecognized; `ends_from` is when the first of them ended. `name` is what the API calls it, as far as it has said.
    `is_read` says whether its list was ever read as a whole, where it is watched whole.
    """

    open: Mapping[str, int] = field(default_factory=dict)
    oldest: Mapping[str, Micros] = field(default_factory=dict)
    ends: str = ""
    ends_from: Micros | None = None
    last_ended_at: Micros | None = None
    last_failed_at: Micros | None = None
    last_started_at: Micros | None = None
    name: str | None = None
    is_read: bool = True


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """What an account spends: requests a second that it wants, and has used over the last minute; its pipelines by id.

    `longest_gap_s` is for how long the execution or list that waits longest has not been looked at. While no request
    succeeds, `known_at` is when the last one did, 0 for never; it is absent while requests succeed.
    """

    wanted_per_s: float
    used_per_s: float
    longest_gap_s: float
    pipelines: Mapping[str, PipelineSnapshot] = field(default_factory=dict)
    known_at: Micros | None = None


@dataclass(frozen=True, slots=True)
class SinkSnapshot:
    """How a sink is, beside its state: its last answer, when anything last got through, the next try.

    `has_failed` says that nothing got through since its last failure. The next try is only given while something waits.
    """

    answer: str
    through_at: Micros | None = None
    next_try_at: Micros | None = None
    has_failed: bool = False
