"""A group of events as one message tells of it: how many of what, the kinds of errors, the newest, all ids.

It holds little of each event, for a group may have thousands.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from watcher.delivery.sinks.alert import NAME_LENGTH, Alert
from watcher.delivery.sinks.alert_text import clean, mask, shorten, span
from watcher.domain.models import Delivery, EventType
from watcher.domain.problems import Severity

NEWEST_COUNT = 5
CLUSTERS_COUNT = 10
CLUSTER_LENGTH = 160
HEADLINE_LENGTH = 150
_WORDS_COUNT = 3

_WORDS = {EventType.EXECUTION_SUCCESS: "succeeded", EventType.WATCHER_TEST: "tests"}
_SEVERITIES = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Events with the same node and error, but for numbers and ids: how many, and in which words."""

    count: int
    text: str

    @property
    def line(self) -> str:
        """Return both."""
        return f"{self.count:,} \N{MULTIPLICATION SIGN} {self.text}"


@dataclass(frozen=True, slots=True)
class Digest:
    """What is told of a group. The counts of `clusters` add up to `count`; `newest` and `ids` begin with the newest.

    `ids` are those of executions, of events without one their own.
    """

    count: int
    title: str
    is_trouble: bool
    severity: Severity
    times: str
    clusters: tuple[Cluster, ...]
    newest: tuple[Alert, ...]
    ids: tuple[str, ...]

    @property
    def headline(self) -> str:
        """Return the one line that has to do."""
        return shorten(f"{'✕' if self.is_trouble else '✓'} {self.title}", HEADLINE_LENGTH)


class _Clusters:
    """Counts errors alike. One text stands as it is if all of a cluster have the same."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._texts: dict[str, str] = {}

    def add(self, alert: Alert) -> None:
        node = alert.nodes[0][0] if alert.nodes else ""
        text = clean(": ".join(filter(None, (node, alert.error)))) or alert.title
        masked = mask(text)
        self._counts[masked] += 1
        if self._texts.setdefault(masked, text) != text:
            self._texts[masked] = masked

    def most(self) -> tuple[Cluster, ...]:
        ranked = self._counts.most_common()
        shown = [Cluster(count, shorten(self._texts[key], CLUSTER_LENGTH)) for key, count in ranked[:CLUSTERS_COUNT]]
        rest = ranked[CLUSTERS_COUNT:]
        if rest:
            shown.append(Cluster(sum(count for _, count in rest), f"other, of {len(rest):,} kinds"))
        return tuple(shown)


def digest(batch: Sequence[Delivery]) -> Digest:
    """Return what is told of these events, which are in the order in which they were recorded."""
    words: Counter[str] = Counter()
    names: dict[str, None] = {}
    seen: list[datetime] = []
    ids: list[str] = []
    severities: set[Severity] = set()
    clusters, newest, is_trouble = _Clusters(), [], False
    for number, delivery in enumerate(batch):
        alert = Alert.read(delivery.body)
        words[_WORDS.get(alert.type) or alert.type.rpartition(".")[2]] += 1
        names[alert.pipeline or alert.data.get("account") or ""] = None
        seen.append(alert.seen_at)
        ids.append(alert.execution or alert.id)
        severities.add(alert.severity)
        is_trouble = is_trouble or alert.is_trouble
        clusters.add(alert)
        if number >= len(batch) - NEWEST_COUNT:
            newest.append(alert)
    times = span(min(seen), max(seen))
    return Digest(
        count=len(batch),
        title=f"{_counted(words)}{_where(list(names))} ({times})",
        is_trouble=is_trouble,
        severity=min(severities, key=_SEVERITIES.index),
        times=times,
        clusters=clusters.most(),
        newest=tuple(reversed(newest)),
        ids=tuple(reversed(ids)),
    )


def _counted(words: Counter[str]) -> str:
    ranked = words.most_common()
    parts = [f"{count:,} {word}" for word, count in ranked[:_WORDS_COUNT]]
    rest = sum(count for _, count in ranked[_WORDS_COUNT:])
    return ", ".join([*parts, f"{rest:,} more"] if rest else parts)


def _where(names: Sequence[str]) -> str:
    if len(names) > 1:
        return f" in {len(names):,} pipelines"
    return f" in {shorten(names[0], NAME_LENGTH)}" if names[0] else ""
