"""What happened in a pipeline over time: counts by the hour, and the kinds of its errors. Pure.

Hours are those of UTC. An execution counts in the hour in which it ended, its start in the hour in which it started.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from math import floor, log, sqrt
from typing import NamedTuple

from watcher.domain.execution import TERMINAL_STATUSES, ExecutionRecord, ExecutionSnapshot, FailedNode, Status
from watcher.domain.timestamps import Micros

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

BUCKET_RATIO = 1.1
"""Each bucket of durations ends at 1.1 times its beginning: so a quantile is within 5 %."""

SHORTEST_S = 0.001
"""Shorter durations count as this one: zero has no bucket."""

MOST_TOKENS = 1_000_000_000
"""At most so many tokens of one execution count, so that the sum of an hour always fits into its column."""

COUNTS = ("started", "success", "failed", "unrecognized", "tokens")
"""The fields of `Totals` that are numbers; columns of the store have the same names."""

ERROR_LENGTH = 300
"""Characters that are kept of the text of a kind of error."""

_FINGERPRINT_VERSION = "1"
_VARYING = re.compile(
    r"""\w+://\S+|[^\s@]+@[^\s@]+\.\w+|(?<!\w)(?:"[^"]*"|'[^']*'|`[^`]*`)(?!\w)|\b[0-9a-fA-F]{8,}\b"""
    r"""|[^\s,;()\[\]{}]*\d[^\s,;()\[\]{}]*"""
)
"""Addresses, quoted words, hexadecimal numbers, and words with a digit, such as ids and dates."""

_SIGNIFICANT_Z = 1.96
"""The deviation beyond which two proportions differ with p < 0.05."""


class ErrorKind(NamedTuple):
    """A kind of error: its fingerprint, the node that failed, and the newest text, cut."""

    fingerprint: bytes
    node: str | None
    text: str


class EndedExecution(NamedTuple):
    """An execution that has ended, as it counts in the history. Times are microseconds UTC, steady.

    `status` is `success`, `failed`, `unrecognized` or `lost`. Only a success has a `duration_s`, only a failure an
    `error`.
    """

    started_at: Micros
    ended_at: Micros
    status: str
    tokens: int = 0
    duration_s: float | None = None
    error: ErrorKind | None = None


@dataclass(slots=True)
class Totals:
    """What happened in a pipeline within some time. `durations` has how many successes there were of which bucket."""

    started: int = 0
    success: int = 0
    failed: int = 0
    unrecognized: int = 0
    tokens: int = 0
    durations: Counter[int] = field(default_factory=Counter)

    @property
    def ended(self) -> int:
        """Return how many executions ended; a lost one is no end."""
        return self.success + self.failed + self.unrecognized

    def add(self, other: "Totals") -> None:
        """Count what happened within another time, too."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.durations.update(other.durations)

    def quantile(self, share: float) -> float | None:
        """Return the seconds that this share of the successes did not exceed, to three digits; `None` without any."""
        rank, seen = share * sum(self.durations.values()), 0
        for bucket in sorted(self.durations):
            seen += self.durations[bucket]
            if seen >= rank:
                return float(f"{BUCKET_RATIO ** (bucket + 0.5):.3g}")
        return None


def ended_execution(known: ExecutionRecord, facts: ExecutionSnapshot | None) -> EndedExecution:
    """Return an execution that has ended as it counts in the history. `facts` is the answer that said so."""
    ended_at = known.finished_at or known.ended_at or known.polled_at
    started_at = (facts and facts.began_at) or known.started_at or ended_at
    if facts is None or known.lost is not None:
        return EndedExecution(started_at, ended_at, "lost")
    status = known.status if known.status in TERMINAL_STATUSES else "unrecognized"
    tokens = min(MOST_TOKENS, max(0, round(facts.ai_tokens_used or 0)))
    ended = EndedExecution(started_at, ended_at, status or "", tokens)
    if status == Status.FAILED:
        node = facts.failed_nodes[0] if facts.failed_nodes else FailedNode(None, None, None)
        return ended._replace(error=error_kind_of(node.name or node.id, node.error or facts.error or ""))
    if status == Status.SUCCESS and facts.started_at is not None and facts.finished_at is not None:
        return ended._replace(duration_s=max(0.0, (facts.finished_at - facts.started_at).total_seconds()))
    return ended


def totals_of(ended: Iterable[EndedExecution]) -> Mapping[Micros, Totals]:
    """Return what these executions add to each hour, by the start of the hour."""
    hours: dict[Micros, Totals] = {}
    for each in ended:
        hours.setdefault(Micros(each.started_at - each.started_at % HOUR_US), Totals()).started += 1
        if each.status == "lost":
            continue
        hour = hours.setdefault(Micros(each.ended_at - each.ended_at % HOUR_US), Totals())
        setattr(hour, each.status, getattr(hour, each.status) + 1)
        hour.tokens += each.tokens
        if each.duration_s is not None:
            bucket = floor(log(max(SHORTEST_S, each.duration_s), BUCKET_RATIO))
            hour.durations[bucket] += 1
    return hours


def period_start(at: Micros, length_us: int) -> Micros:
    """Return the start of the hour, the day or another period (UTC) that contains a moment."""
    return Micros(at - at % length_us)


def error_kind_of(node: str | None, text: str) -> ErrorKind:
    """Return the kind of an error: errors of one node whose first two lines differ in ids and the like are the same."""
    head = "\n".join(text.strip().splitlines()[:2])[:ERROR_LENGTH]
    digest = sha256("\n".join((_FINGERPRINT_VERSION, node or "", _VARYING.sub("#", head))).encode()).digest()
    return ErrorKind(digest[:16], node, head)


def sum_up(hours: Mapping[Micros, Totals], since: Micros, until: Micros) -> Totals:
    """Return what happened in the hours that begin from `since`, which is the start of one, until `until`."""
    totals = Totals()
    for at in range(since, until, HOUR_US):
        if (hour := hours.get(Micros(at))) is not None:
            totals.add(hour)
    return totals


def has_changed(now: Totals, before: Totals) -> bool:
    """Return whether the success rates of two times differ by more than chance explains (two proportions, p < 0.05)."""
    if not now.ended or not before.ended:
        return False
    pooled = (now.success + before.success) / (now.ended + before.ended)
    deviation = sqrt(pooled * (1 - pooled) * (1 / now.ended + 1 / before.ended))
    difference = now.success / now.ended - before.success / before.ended
    return deviation > 0 and abs(difference) / deviation > _SIGNIFICANT_Z
