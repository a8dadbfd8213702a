"""An event or a group as plain text: a title, a body, and how bad it is. For what reaches services of any kind.

Some read mentions and markup in any text. The texts of others mention nobody; whether markup in them is shown as it is,
is up to the service.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from watcher.delivery.sinks.alert import Alert
from watcher.delivery.sinks.alert_text import Cutter, in_utc
from watcher.delivery.sinks.chat import (
    details_of,
    facts_of,
    link_in_group,
    other_nodes,
    read_batch,
)
from watcher.delivery.sinks.digest import Digest
from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.problems import Severity

ERROR_LENGTH = 900

_MENTION = re.compile(r"(?<!\w)@(?=\S)")
_BROKEN_MENTION = "@\N{ZERO WIDTH SPACE}"


@dataclass(frozen=True, slots=True)
class PlainMessage:
    """One message. `is_good` says that what it is about is over, or went well."""

    title: str
    body: str
    severity: Severity
    is_good: bool


def plain_messages(batch: Sequence[Delivery], *, most_bytes: int) -> list[PlainMessage]:
    """Return a message for a delivery, or one or two for a group, each of that size at most.

    The size is what title and body take in UTF-8 with `& < >` and quotes escaped. What is too long loses its end.
    """
    return [_message(news, most_bytes=most_bytes) for news in read_batch(batch)]


def _message(news: Alert | Digest, *, most_bytes: int) -> PlainMessage:
    title, is_good = _harmless(news.headline), False
    if isinstance(news, Alert):
        body = _single(news)
        is_good = not news.is_trouble and (news.closes or news.type is EventType.EXECUTION_SUCCESS)
    else:
        body = _grouped(news)
    return PlainMessage(title, _within(body, most_bytes - _size(f"{title}\n")), news.severity, is_good)


def _single(alert: Alert) -> str:
    """Return what matters most first: the end is what may be cut."""
    cut = Cutter()
    nodes = other_nodes(alert, cut)
    when, moment = alert.moment
    facts = {when: in_utc(moment), **facts_of(alert, cut)}
    return _joined(
        _harmless(cut(alert.error, ERROR_LENGTH)),
        _harmless(alert.ids),
        alert.link or "",
        _harmless(" · ".join(f"{name}: {value}" for name, value in facts.items())),
        _harmless("\n".join(["Also failed:", *nodes])) if nodes else "",
    )


def _grouped(group: Digest) -> str:
    newest = [[alert.headline, *details_of(alert), link_in_group(alert)] for alert in group.newest]
    return _joined(
        _harmless("\n".join(group.clusters)),
        group.rest,
        f"The newest {len(newest)}:",
        *(_harmless("\n".join(filter(None, lines))) for lines in newest),
    )


def _joined(*sections: str) -> str:
    return "\n\n".join(filter(None, sections))


def _within(text: str, most_bytes: int) -> str:
    """Return as much of a text as has room."""
    if _size(text) <= most_bytes:
        return text
    kept, left = 0, most_bytes - _size("…")
    for character in text:
        left -= _size(character)
        if left < 0:
            break
        kept += 1
    return f"{text[:kept]}…"


def _size(text: str) -> int:
    return len(html.escape(text).encode())


def _harmless(text: str) -> str:
    """Return a text in which no `@everyone` or `<@id>` is a mention; addresses of mail stay as they are."""
    return _MENTION.sub(_BROKEN_MENTION, text)
