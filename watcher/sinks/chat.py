"""What every message for a chat says of an event or a group, and what goes into one message. Knows no receiver.

Each text is cut to a length of its own. The lengths are such that all of a message, with what JSON and Markdown add for
quoting, stays below what Slack (13,200 characters), Discord (6,000) and Teams (28 KB) take.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from watcher.domain.delivery import Delivery
from watcher.sinks.alert import ID_LENGTH, Alert
from watcher.sinks.alert_text import Cutter, clean, in_words, shorten, to_json
from watcher.sinks.digest import Digest
from watcher.sinks.template import Message, Template

Json = dict[str, Any]

ERROR_LENGTH = 1500
NODES_COUNT = 3
NODE_LENGTH = 200
LABELS_LENGTH = 300
GROUP_ERROR_LENGTH = 150
GROUP_LINK_LENGTH = 300
"""Of one of the newest in a group: a longer link is left out."""


class ChatTemplate(Template):
    """One message per event or per group; good news and bad never share one."""

    def single(self, alert: Alert, cut: Cutter) -> Json:
        """Return the message of an event."""
        raise NotImplementedError

    def grouped(self, group: Digest) -> Json:
        """Return the message of a group."""
        raise NotImplementedError

    def content_of(self, news: Alert | Digest, cut: Cutter) -> Json:
        """Return the message of an event or a group."""
        return self.single(news, cut) if isinstance(news, Alert) else self.grouped(news)

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one message, or two: first that of which the oldest event is."""
        messages = []
        for news in read_batch(batch):
            cut = Cutter()
            body = to_json(self.content_of(news, cut)).encode()
            messages.append(Message(news.id, body, cut.has_cut))
        return messages


def read_batch(batch: Sequence[Delivery]) -> list[Alert | Digest]:
    """Return what each message is about, an event or a group, that of which the oldest event is first.

    Good news and bad never share one.
    """
    groups: defaultdict[bool, Digest] = defaultdict(Digest)
    for delivery in batch:
        alert = Alert.of(delivery.content)
        groups[alert.is_trouble].add(alert, event_id=delivery.event_id)
    return [group.news for group in groups.values()]


def facts_of(alert: Alert, cut: Cutter) -> dict[str, str]:
    """Return what is known of an event by name, but for when."""
    execution = alert.data.get("execution", {})
    was, ran_s = execution.get("previousStatus"), execution.get("durationSeconds")
    status = f"{execution.get('status', '')}{f', was {was}' if was else ''}"
    pairs = (f"{key}={value}" for key, value in alert.data.get("labels", {}).items())
    facts = {
        "Status": shorten(status, ID_LENGTH),
        "Ran": "" if ran_s is None else in_words(ran_s),
        "Was overdue": alert.overdue_text or "",
        "Labels": cut(", ".join(pairs), LABELS_LENGTH),
        "Account": clean(alert.data.get("account", "")),
    }
    return {name: value for name, value in facts.items() if value}


def other_nodes(alert: Alert, cut: Cutter) -> list[str]:
    """Return a line for each further node that failed; one of which nothing is known has none."""
    cut.has_cut = cut.has_cut or len(alert.nodes) > 1 + NODES_COUNT
    return [cut(": ".join(filter(None, node)), NODE_LENGTH) for node in alert.nodes[1 : 1 + NODES_COUNT] if any(node)]


def details_of(alert: Alert) -> list[str]:
    """Return what a group says of one of its newest below the headline: the error and the id."""
    texts = (shorten(alert.error, GROUP_ERROR_LENGTH), shorten(alert.execution or alert.id, ID_LENGTH))
    return [text for text in texts if text]


def link_in_group(alert: Alert) -> str:
    """Return the link of one of a group's newest, if there is room for it."""
    return alert.link if alert.link and len(alert.link) <= GROUP_LINK_LENGTH else ""
