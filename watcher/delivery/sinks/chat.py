"""What every message for a chat says of an event or a group, and what goes into one message. Knows no receiver."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from watcher.delivery.sinks.alert import Alert
from watcher.delivery.sinks.alert_text import Cutter, clean, fit, in_words, shorten, to_json
from watcher.delivery.sinks.digest import NEWEST_COUNT, Digest
from watcher.delivery.sinks.template import Message
from watcher.domain.delivery import Delivery

Json = dict[str, Any]

ID_LENGTH = 200
UNTRUSTED_FACTS = frozenset({"Status", "Labels", "Account"})
"""The facts whose values others may have written; the rest are words of ours and durations."""


GroupLimits = TypeVar("GroupLimits")


class Limits(NamedTuple):
    """Characters of the texts of a message of one event, and how many more failed nodes it names."""

    labels: int
    nodes: int
    error: int


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message as the object that is to be sent as JSON, and the minimal one to send if that is refused.

    `id` is the same on every attempt, `is_cut` tells that the receiver's limits left something out.
    """

    id: str
    content: Json
    minimal: Json | None
    is_cut: bool

    def request(self) -> Message:
        """Return the same for what posts bytes."""
        minimal = None if self.minimal is None else partial(_body, self.minimal)
        return Message(self.id, _body(self.content), minimal, self.is_cut)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat(Generic[GroupLimits]):
    """How the messages for one receiver are made: of an event, of a group, and the minimal one of either.

    The limits are tried in their order until the message has at most the size `most`; if none will do, the last holds.
    """

    single: Callable[[Alert, Limits, Cutter], Json]
    grouped: Callable[[Digest, GroupLimits, Cutter], Json]
    minimal: Callable[[Alert | Digest], Json]
    limits: Sequence[Limits]
    group_limits: Sequence[GroupLimits]
    most: int
    size: Callable[[Json], int]

    def message_of(self, news: Alert | Digest) -> ChatMessage:
        """Return the message of an event or a group."""
        if isinstance(news, Alert):
            content, is_cut = fit(partial(self.single, news), self.limits, most=self.most, size=self.size)
        else:
            content, is_cut = fit(partial(self.grouped, news), self.group_limits, most=self.most, size=self.size)
        return ChatMessage(news.id, content, self.minimal(news), is_cut)

    def requests_of(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one request for a delivery, or one or two for a group."""
        return [self.message_of(news).request() for news in read_batch(batch)]


def read_batch(batch: Sequence[Delivery]) -> list[Alert | Digest]:
    """Return what each message is about, an event or a group, that of which the oldest event is first.

    Good news and bad never share one.
    """
    if len(batch) == 1:
        return [Alert.read(batch[0].body)]
    groups: defaultdict[bool, Digest] = defaultdict(Digest)
    for delivery in batch:
        alert = Alert.read(delivery.body)
        groups[alert.is_trouble].add(alert, event_id=delivery.event_id)
    return [group.news for group in groups.values()]


def facts_of(alert: Alert, cut: Cutter, *, labels: int) -> dict[str, str]:
    """Return what is known of an event by name, but for when; of its labels so many characters."""
    execution = alert.data.get("execution", {})
    was = execution.get("previousStatus")
    status = f"{execution.get('status', '')}{f', was {was}' if was else ''}"
    ran_s, delay_s = execution.get("durationSeconds"), alert.data["observed"].get("delaySeconds")
    pairs = (f"{key}={value}" for key, value in alert.data.get("labels", {}).items())
    facts = {
        "Status": shorten(status, ID_LENGTH) if execution else "",
        "Ran": "" if ran_s is None else in_words(ran_s),
        "Was overdue": alert.overdue_text or "",
        "Seen after": "" if delay_s is None else in_words(delay_s),
        "Labels": cut(", ".join(pairs), labels),
        "Account": clean(alert.data.get("account", "")),
        "Severity": alert.severity,
    }
    return {name: value for name, value in facts.items() if value}


def moment_of(alert: Alert) -> tuple[str, datetime]:
    """Return the moment that matters, and what to call it: since when its problem is open, else when it was."""
    if alert.problem and not alert.closes:
        return "Since", datetime.fromisoformat(alert.problem["openedAt"])
    return "Ended" if "finishedAt" in alert.data.get("execution", {}) else "At", alert.time


def other_nodes(alert: Alert, cut: Cutter, *, count: int, length: int) -> list[str]:
    """Return a line for each further node that failed, of so many nodes, each of so many characters.

    A node of which nothing is known has none.
    """
    cut.has_cut = cut.has_cut or len(alert.nodes) > 1 + count
    return [cut(": ".join(filter(None, node)), length) for node in alert.nodes[1 : 1 + count] if any(node)]


def ids_of(news: Alert | Digest) -> str:
    """Return the ids of an event and of what it is about; of a group those of its newest."""
    if isinstance(news, Digest):
        return " ".join(shorten(each, ID_LENGTH) for each in news.ids[:NEWEST_COUNT])
    pipeline = news.data.get("pipeline", {}).get("id", "")
    names = {"pipeline": pipeline, "execution": news.execution or "", "event": news.id}
    return " · ".join(f"{name} {shorten(id_, ID_LENGTH)}" for name, id_ in names.items() if id_)


def cluster_lines(group: Digest, cut: Cutter, *, length: int) -> list[str]:
    """Return a line for each kind of error, all together of so many characters."""
    lines = [each.line for each in group.clusters]
    return [cut(line, length // len(lines) - 1) for line in lines]


def details_of(alert: Alert, *, error: int = ID_LENGTH) -> list[str]:
    """Return what a group says of one of its newest below the headline: the error, so many characters, and the id."""
    texts = (shorten(alert.error, error) if error else "", shorten(alert.execution or alert.id, ID_LENGTH))
    return [text for text in texts if text]


def rest_of(group: Digest) -> str:
    """Return how many there are, when they were seen, and where all of them stand."""
    return f"{group.count:,} events, {group.times}. All of them are on the watcher's stdout"


def _body(content: Json) -> bytes:
    return to_json(content).encode()
