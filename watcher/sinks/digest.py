"""A group of events as one message tells of it: how many of what, the kinds of errors, the newest, the ids.

It holds little of each event, for a group may have thousands.
"""

from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from watcher.domain.event import EventType
from watcher.domain.event_ids import group_id
from watcher.domain.problems import Severity
from watcher.sinks.alert import HEADLINE_LENGTH, ID_LENGTH, NAME_LENGTH, Alert
from watcher.sinks.alert_text import clean, mask, shorten, span

NEWEST_COUNT = 5
CLUSTERS_COUNT = 6
CLUSTER_LENGTH = 140
_WORDS_COUNT = 3

_WORDS = {EventType.EXECUTION_SUCCESS: "succeeded", EventType.WATCHER_TEST: "tests"}
_SEVERITIES = tuple(Severity)


class Digest:
    """What a message says of the events that are added, in the order in which they were recorded; of one at least."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.is_trouble = False
        self.event_ids: list[UUID] = []
        self.executions: list[str] = []  # of an event without one its own id
        self._newest: deque[Alert] = deque(maxlen=NEWEST_COUNT)
        self._clusters: Counter[tuple[str, str]] = Counter()  # by node, and error without what varies
        self._texts: dict[tuple[str, str], str] = {}  # the first of each cluster
        self._varying: set[tuple[str, str]] = set()
        self._words: Counter[str] = Counter()
        self._names: dict[tuple[str, str], str] = {}  # of each pipeline, or account, by its id
        self._severities: set[Severity] = set()
        self._seen: list[datetime] = []

    def add(self, alert: Alert, *, event_id: UUID) -> None:
        """Count one event more."""
        self.event_ids.append(event_id)
        self.is_trouble = self.is_trouble or alert.is_trouble
        self.executions.append(alert.execution or alert.id)
        self._newest.append(alert)
        self._add_error(alert)
        self._words[_WORDS.get(alert.type) or alert.type.rpartition(".")[2]] += 1
        account, pipeline = alert.data.get("account", ""), alert.data.get("pipeline", {}).get("id", "")
        self._names[account, pipeline] = alert.pipeline or account
        self._severities.add(alert.severity)
        self._seen = [min([*self._seen, alert.seen_at]), max([*self._seen, alert.seen_at])]

    def _add_error(self, alert: Alert) -> None:
        node = alert.nodes[0][0] if alert.nodes else ""
        text = clean(": ".join(filter(None, (node, alert.error)))) or alert.title
        cluster = (node, mask(text))
        self._clusters[cluster] += 1
        if self._texts.setdefault(cluster, text) != text:
            self._varying.add(cluster)

    @property
    def id(self) -> str:
        """Return the id of these events together, the same on every attempt."""
        return str(group_id(self.event_ids))

    @property
    def count(self) -> int:
        """Return how many there are."""
        return len(self.event_ids)

    @property
    def news(self) -> "Alert | Digest":
        """Return what a message is about: the event itself if there is one alone, else the group."""
        return self._newest[0] if self.count == 1 else self

    @property
    def headline(self) -> str:
        """Return the one line that has to do."""
        return shorten(f"{'✕' if self.is_trouble else '✓'} {self.title}", HEADLINE_LENGTH)

    @property
    def title(self) -> str:
        """Return how many of what, where and when."""
        return f"{_counted(self._words)}{_where(list(self._names.values()))} ({self.times})"

    @property
    def times(self) -> str:
        """Return from when to when they were seen."""
        return span(*self._seen)

    @property
    def severity(self) -> Severity:
        """Return that of the worst."""
        return min(self._severities, key=_SEVERITIES.index)

    @property
    def clusters(self) -> list[str]:
        """Return a line for each kind of error, the most frequent first. Their counts add up to all events."""
        ranked = self._clusters.most_common()
        lines = [f"{count:,} \N{MULTIPLICATION SIGN} {self._text_of(each)}" for each, count in ranked[:CLUSTERS_COUNT]]
        if rest := ranked[CLUSTERS_COUNT:]:
            count = sum(count for _, count in rest)
            lines.append(f"{count:,} \N{MULTIPLICATION SIGN} other, of {len(rest):,} kinds")
        return lines

    def _text_of(self, cluster: tuple[str, str]) -> str:
        text = shorten(self._texts[cluster], CLUSTER_LENGTH)
        return f"{text} (numbers and ids vary)" if cluster in self._varying else text

    @property
    def newest(self) -> list[Alert]:
        """Return the newest five, the newest first."""
        return list(reversed(self._newest))

    @property
    def ids(self) -> str:
        """Return the ids of the newest."""
        return " ".join(shorten(alert.execution or alert.id, ID_LENGTH) for alert in self.newest)

    @property
    def rest(self) -> str:
        """Return how many there are, when they were seen, and where all of them stand."""
        return f"{self.count:,} events, {self.times}. All of them are on the watcher's stdout."


def _counted(words: Counter[str]) -> str:
    ranked = words.most_common()
    parts = [f"{count:,} {word}" for word, count in ranked[:_WORDS_COUNT]]
    rest = sum(count for _, count in ranked[_WORDS_COUNT:])
    return ", ".join([*parts, f"{rest:,} more"] if rest else parts)


def _where(names: Sequence[str]) -> str:
    if len(names) > 1:
        return f" in {len(names):,} pipelines"
    return f" in {shorten(names[0], NAME_LENGTH)}" if names[0] else ""
