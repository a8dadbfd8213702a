"""What a message for people says of an event or a group, and how much of it. Knows no receiver.

Each text is cut to a length of its own. The lengths are such that all of a message, with what JSON and Markdown add for
quoting, stays below what Slack (13,200 characters), Discord (6,000) and Teams (28 KB) take.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote
from uuid import UUID

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json, group_id
from watcher.domain.event import EventType
from watcher.domain.problems import Severity
from watcher.sinks.alert import (
    HEADLINE_LENGTH,
    ID_LENGTH,
    NAME_LENGTH,
    Alert,
    Cutter,
    clean,
    in_words,
    mask,
    shorten,
    span,
    to_json,
)
from watcher.sinks.template import Message, Template

ERROR_LENGTH = 1500
NODES_COUNT = 3
NODE_LENGTH = 200
LABELS_LENGTH = 300
NEWEST_COUNT = 5
NEWEST_ERROR_LENGTH = 150
NEWEST_LINK_LENGTH = 300
"""Of one of the newest in a group: a longer link is left out."""

CLUSTERS_COUNT = 6
CLUSTER_LENGTH = 140
_WORDS_COUNT = 3

_WORDS = {EventType.EXECUTION_SUCCESS: "succeeded", EventType.WATCHER_TEST: "tests"}
_SEVERITIES = tuple(Severity)


class Digest:
    """A group of events as one message tells of it: how many of what, the kinds of errors, the newest."""

    def __init__(self, alerts: Sequence[Alert]) -> None:
        """Take the events in the order in which they were recorded, one at least."""
        self.id = str(group_id(UUID(alert.id) for alert in alerts))
        self.is_trouble = any(alert.is_trouble for alert in alerts)
        self.severity = min((alert.severity for alert in alerts), key=_SEVERITIES.index)
        self.newest = list(map(_newest, alerts[: -NEWEST_COUNT - 1 : -1]))
        self.clusters = _clusters(alerts)
        seen = [alert.seen_at for alert in alerts]
        times = span(min(seen), max(seen))
        title = f"{_counted(alerts)}{_where(alerts)} ({times})"
        self.headline = shorten(f"{'✕' if self.is_trouble else '✓'} {title}", HEADLINE_LENGTH)
        self.rest = f"{len(alerts):,} events, {times}. All of them are on the watcher's stdout."
        self.links = _links(alerts)


class Newest(NamedTuple):
    """One of the newest events in a group: below its headline its error and its id, and the link if there is room."""

    headline: str
    details: list[str]
    link: str


def _newest(alert: Alert) -> Newest:
    texts = (shorten(alert.error, NEWEST_ERROR_LENGTH), shorten(alert.execution or alert.id, ID_LENGTH))
    link = alert.link if alert.link and len(alert.link) <= NEWEST_LINK_LENGTH else ""
    return Newest(alert.headline, list(filter(None, texts)), link)


def _links(alerts: Sequence[Alert]) -> Mapping[str, str]:
    """Return the link to our own page of what happened: of the pipeline's executions, if it is one, else of all."""
    public_url, pipelines = alerts[-1].public_url, {alert.data.get("pipeline", {}).get("id") for alert in alerts}
    of_one = f"?pipeline={quote(pipelines.pop(), safe='')}" if len(pipelines) == 1 and None not in pipelines else ""
    return {"Details": f"{public_url}/executions{of_one}"} if public_url else {}


def _clusters(alerts: Sequence[Alert]) -> list[str]:
    """Return a line for each kind of error, the most frequent first. Their counts add up to all events."""
    clusters: defaultdict[tuple[str, str], list[str]] = defaultdict(list)  # by node, and error without what varies
    for alert in alerts:
        node = alert.nodes[0][0] if alert.nodes else ""
        text = clean(": ".join(filter(None, (node, alert.error)))) or alert.title
        clusters[node, mask(text)].append(text)
    ranked = sorted(clusters.values(), key=len, reverse=True)
    lines = []
    for texts in ranked[:CLUSTERS_COUNT]:
        note = " (numbers and ids vary)" if len(set(texts)) > 1 else ""
        lines.append(f"{len(texts):,} \N{MULTIPLICATION SIGN} {shorten(texts[0], CLUSTER_LENGTH)}{note}")
    if rest := ranked[CLUSTERS_COUNT:]:
        lines.append(f"{sum(map(len, rest)):,} \N{MULTIPLICATION SIGN} other, of {len(rest):,} kinds")
    return lines


def _counted(alerts: Sequence[Alert]) -> str:
    ranked = Counter(_WORDS.get(alert.type) or alert.type.rpartition(".")[2] for alert in alerts).most_common()
    parts = [f"{count:,} {word}" for word, count in ranked[:_WORDS_COUNT]]
    rest = sum(count for _, count in ranked[_WORDS_COUNT:])
    return ", ".join([*parts, f"{rest:,} more"] if rest else parts)


def _where(alerts: Sequence[Alert]) -> str:
    account, newest = alerts[-1].data.get("account", ""), alerts[-1].pipeline
    count = len({(alert.data.get("account"), alert.data.get("pipeline", {}).get("id")) for alert in alerts})
    name = f"{count:,} pipelines" if count > 1 else shorten(newest or account, NAME_LENGTH)
    return f" in {name}" if name else ""


def read_batch(batch: Sequence[Delivery], public_url: str = "") -> Alert | Digest:
    """Return what the message is about: an event, or a group."""
    alerts = [Alert.of_delivery(delivery, public_url) for delivery in batch]
    return alerts[0] if len(alerts) == 1 else Digest(alerts)


class Single:
    """An event as one message tells of it. `is_cut` says that the lengths left something out."""

    def __init__(self, alert: Alert, *, error: str | None = None, error_length: int = ERROR_LENGTH) -> None:
        """Take the event; with an `error` that one in place of its own."""
        cut, data = Cutter(), alert.data
        execution = data.get("execution", {})
        was, ran_s = execution.get("previousStatus"), execution.get("durationSeconds")
        labels = ", ".join(f"{key}={value}" for key, value in data.get("labels", {}).items())
        facts = {
            "Status": shorten(f"{execution.get('status', '')}{f', was {was}' if was else ''}", ID_LENGTH),
            "Ran": "" if ran_s is None else in_words(ran_s),
            "Was overdue": alert.overdue_text or "",
            "Labels": cut(labels, LABELS_LENGTH),
            "Account": clean(data.get("account", "")),
            "Comment": cut(data.get("acknowledgement", {}).get("comment") or "", LABELS_LENGTH),
        }
        others = alert.nodes[1 : 1 + NODES_COUNT]
        self.id, self.ids, self.time, self.links = alert.id, alert.ids, alert.time, alert.links
        self.headline, self.severity = alert.headline, alert.severity
        self.error = cut(alert.error if error is None else error, error_length)
        self.nodes = [cut(": ".join(filter(None, node)), NODE_LENGTH) for node in others if any(node)]
        """A line for each further node that failed and of which something is known."""
        self.facts = {name: value for name, value in facts.items() if value}
        """What is known of it by name, but for when."""
        self.when, self.since = alert.moment
        self.is_cut = cut.has_cut or len(alert.nodes) > 1 + NODES_COUNT


class ChatTemplate(Template):
    """One message per event or per group."""

    def single(self, event: Single) -> Json:
        """Return the message of an event."""
        raise NotImplementedError

    def grouped(self, group: Digest) -> Json:
        """Return the message of a group."""
        raise NotImplementedError

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the one message."""
        news = read_batch(batch, self.public_url)
        if isinstance(news, Digest):
            return [Message(news.id, to_json(self.grouped(news)).encode())]
        event = Single(news)
        return [Message(event.id, to_json(self.single(event)).encode(), event.is_cut)]
