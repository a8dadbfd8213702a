"""The history of a pipeline: its counts by the hour and the day (UTC), and the kinds of its errors. Pure functions.

A start counts in the period of the start, an end in the period of the end.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from math import floor, log, sqrt
from typing import NamedTuple

from watcher.domain.envelope import cut
from watcher.domain.execution import (
    END_LABELS,
    LOST,
    TERMINAL_STATUSES,
    UNRECOGNIZED,
    ExecutionRecord,
    ExecutionSnapshot,
    FailedNode,
    Status,
)
from watcher.domain.timestamps import Micros

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

BUCKET_RATIO = 1.1
"""The upper bound of a duration bucket, divided by its lower bound. Quantiles are therefore right within 5 %."""

SHORTEST_S = 0.001
"""The shortest duration that is counted. Shorter ones count as this one, because the logarithm of 0 has no value."""

MAX_TOKENS = 1_000_000_000
"""The most tokens that are counted for one execution. The sum of an hour therefore fits into its column."""

COUNTS = ("started", *END_LABELS, "tokens")
"""The names of the plain numbers of `Totals`. The store's columns have the same names."""

ERROR_LENGTH = 300
"""The most characters that are stored of an error's text."""

_FINGERPRINT_VERSION = "1"
_VARYING = re.compile(
    r"""\w+://\S+|[^\s@]+@[^\s@]+\.\w+|(?<!\w)(?:"[^"]*"|'[^']*'|`[^`]*`)(?!\w)|\b[0-9a-fA-F]{8,}\b"""
    r"""|“[^”]*”|„[^“”]*[“”]|«[^»]*»|[^\s,;()\[\]{}]*\d[^\s,;()\[\]{}]*"""
    r"""|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b"""
)
"""The parts of an error text that may differ each time: addresses, quoted words, words with digits (ids, dates)."""

_IN_JSON = re.compile(r'"(error|error_code|code|type|message|reason|detail|title|status)"\s*:\s*"([^"]*)"')
"""A value in JSON that says what the error is: unlike other quoted words it does not vary."""

_SIGNIFICANT_Z = 1.96
"""The standard deviations by which two rates must differ for p < 0.05."""


class ErrorKind(NamedTuple):
    """A kind of error: its fingerprint, the failed node, and the first lines of one such error's text."""

    fingerprint: bytes
    node: str | None
    text: str


class EndedExecution(NamedTuple):
    """An ended execution, as the history counts it. Times are microseconds UTC on the steady clock."""

    started_at: Micros
    ended_at: Micros
    status: str
    """One of `END_LABELS`, or `lost`."""
    tokens: int = 0
    duration_s: float | None = None
    """Only a success has a duration."""
    error: ErrorKind | None = None
    """Only a failure has an error."""
    execution: str = ""
    """The id."""
    nodes: float | None = None
    """The number of nodes that started."""
    node: FailedNode | None = None
    """The node that failed first, with its texts cut as in events."""
    text: str | None = None
    """The text of the execution's own error, cut as in events."""


@dataclass(slots=True)
class Totals:
    """The counts of a pipeline over some period."""

    counts: Counter[str] = field(default_factory=Counter)
    """The number of started executions, of ended ones by `END_LABELS`, and of tokens, by the names in `COUNTS`."""
    durations: Counter[int] = field(default_factory=Counter)
    """The number of successes in each duration bucket."""

    @property
    def started(self) -> int:
        """Return the number of executions that started and have ended since."""
        return self.counts["started"]

    @property
    def tokens(self) -> int:
        """Return the number of AI tokens that ended executions have used."""
        return self.counts["tokens"]

    @property
    def success(self) -> int:
        """Return the number of successes."""
        return self.counts[Status.SUCCESS]

    @property
    def failed(self) -> int:
        """Return the number of failures."""
        return self.counts[Status.FAILED]

    @property
    def ended(self) -> int:
        """Return the number of ended executions. Lost executions are not counted."""
        return sum(self.counts[label] for label in END_LABELS)

    def add(self, other: "Totals") -> None:
        """Add the counts of another period."""
        self.counts.update(other.counts)
        self.durations.update(other.durations)

    def quantile(self, share: float) -> float | None:
        """Return the `share` quantile (0.5: the median) of the successes' durations in seconds; `None` without any."""
        rank, seen = share * sum(self.durations.values()), 0
        for bucket in sorted(self.durations):
            seen += self.durations[bucket]
            if seen >= rank:
                return float(f"{BUCKET_RATIO ** (bucket + 0.5):.3g}")
        return None


def ended_execution(known: ExecutionRecord, facts: ExecutionSnapshot | None) -> EndedExecution:
    """Return an ended execution as the history counts it. `facts` is the answer that showed the end; `None` if lost."""
    ended_at = known.ended_at or known.end_seen_at or known.polled_at
    started_at = (facts and facts.began_at) or known.started_at or ended_at
    if facts is None or known.lost is not None:
        return EndedExecution(started_at, ended_at, LOST, execution=known.execution)
    status = known.status if known.status in TERMINAL_STATUSES else UNRECOGNIZED
    tokens = min(MAX_TOKENS, max(0, round(facts.ai_tokens_used or 0)))
    node = facts.failed_nodes[0] if facts.failed_nodes else FailedNode(None, None, None)
    duration_s, error = facts.duration_s if status == Status.SUCCESS else None, None
    if status == Status.FAILED:
        error = error_kind_of(node.name or node.id, node.error or facts.error or "")
    node, text = FailedNode(cut(node.id), cut(node.name), cut(node.error)), cut(facts.error)
    execution, nodes = known.execution, facts.nodes_started
    return EndedExecution(started_at, ended_at, status or "", tokens, duration_s, error, execution, nodes, node, text)


def totals_of(ended: Iterable[EndedExecution], length_us: int) -> Mapping[Micros, Totals]:
    """Return the counts these executions add to the history, by periods of a length (an hour or a day).

    A start and its end may be in different periods.
    """
    periods: dict[Micros, Totals] = {}
    for each in ended:
        periods.setdefault(period_start(each.started_at, length_us), Totals()).counts["started"] += 1
        if each.status == LOST:
            continue
        period = periods.setdefault(period_start(each.ended_at, length_us), Totals())
        period.counts.update({each.status: 1, "tokens": each.tokens})
        if each.duration_s is not None:
            bucket = floor(log(max(SHORTEST_S, each.duration_s), BUCKET_RATIO))
            period.durations[bucket] += 1
    return periods


def period_start(at: Micros, length_us: int) -> Micros:
    """Return the start of the hour, day or other period (UTC) that contains a moment."""
    return Micros(at - at % length_us)


def error_kind_of(node: str | None, text: str) -> ErrorKind:
    """Return the kind of an error.

    Two errors of one node are of the same kind if their first two lines differ only in ids, dates and other
    numbers: `HTTP 502` and `HTTP 503` are of one kind, unless other words differ, too.
    """
    return _kind_of(node, "\n".join(text.strip().splitlines()[:2])[:ERROR_LENGTH])


def kind_without_node(text: str) -> ErrorKind:
    """Return the kind of an error that names no node. `text` is the text of an `ErrorKind`: it is not cut again.

    A cut text may end with a blank, which `error_kind_of` would remove.
    """
    return _kind_of(None, text)


def _kind_of(node: str | None, head: str) -> ErrorKind:
    pattern = _VARYING.sub("#", _IN_JSON.sub(r"\1: \2", head))
    digest = sha256("\n".join((_FINGERPRINT_VERSION, node or "", pattern)).encode()).digest()
    return ErrorKind(digest[:16], node, head)


def sum_up(hours: Mapping[Micros, Totals], since: Micros, until: Micros) -> Totals:
    """Return the counts of all hours from `since` to `until` together. `since` is the start of an hour."""
    totals = Totals()
    for at in range(since, until, HOUR_US):
        if (hour := hours.get(Micros(at))) is not None:
            totals.add(hour)
    return totals


def has_changed(now: Totals, before: Totals) -> bool:
    """Return whether the success rates of two periods differ by more than chance explains (p < 0.05)."""
    if not now.ended or not before.ended:
        return False
    pooled = (now.success + before.success) / (now.ended + before.ended)
    deviation = sqrt(pooled * (1 - pooled) * (1 / now.ended + 1 / before.ended))
    difference = now.success / now.ended - before.success / before.ended
    return deviation > 0 and abs(difference) / deviation > _SIGNIFICANT_Z
