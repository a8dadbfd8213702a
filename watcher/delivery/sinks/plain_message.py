"""An event or a group as plain text: a title, a body, and how bad it is. For what reaches services of any kind.

Some read mentions and markup in any text. The texts of others mention nobody; whether markup in them is shown as it is,
is up to the service.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from watcher.delivery.sinks.alert import Alert
from watcher.delivery.sinks.alert_text import Cutter, in_utc
from watcher.delivery.sinks.chat import (
    Limits,
    cluster_lines,
    details_of,
    facts_of,
    ids_of,
    moment_of,
    other_nodes,
    read_batch,
    rest_of,
)
from watcher.delivery.sinks.digest import Digest
from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.problems import Severity

NODE_LENGTH = 300

_MENTION = re.compile(r"(?<!\w)@(?=\S)")
_BROKEN_MENTION = "@\N{ZERO WIDTH SPACE}"


class _GroupLimits(NamedTuple):
    """Characters of the clusters, and how many of the newest are named."""

    clusters: int
    newest: int


_LIMITS = (
    *(Limits(600, 4, 1500), Limits(0, 4, 1500), Limits(0, 0, 1500)),
    *(Limits(0, 0, 750), Limits(0, 0, 300), Limits(0, 0, 100)),
)
_GROUP_LIMITS = (_GroupLimits(1500, 5), _GroupLimits(750, 5), _GroupLimits(750, 1), _GroupLimits(300, 0))


@dataclass(frozen=True, slots=True)
class PlainMessage:
    """One message. `is_good` says that what it is about is over, or went well."""

    title: str
    body: str
    severity: Severity
    is_good: bool


def plain_messages(batch: Sequence[Delivery], *, most_bytes: int) -> list[PlainMessage]:
    """Return a message for a delivery, or one or two for a group, each of about that size at most.

    The size is what title and body take in UTF-8 with `& < >` and quotes escaped. It is larger if nothing more can be
    left out.
    """
    return [
        _of_group(news, most_bytes=most_bytes) if isinstance(news, Digest) else _of_event(news, most_bytes=most_bytes)
        for news in read_batch(batch)
    ]


def _of_event(alert: Alert, *, most_bytes: int) -> PlainMessage:
    title = _harmless(alert.headline)
    body = _first_fit((_single(alert, limits) for limits in _LIMITS), title=title, most_bytes=most_bytes)
    is_good = not alert.is_trouble and (alert.closes or alert.type is EventType.EXECUTION_SUCCESS)
    return PlainMessage(title, body, alert.severity, is_good)


def _of_group(group: Digest, *, most_bytes: int) -> PlainMessage:
    title = _harmless(group.headline)
    body = _first_fit((_grouped(group, limits) for limits in _GROUP_LIMITS), title=title, most_bytes=most_bytes)
    return PlainMessage(title, body, group.severity, is_good=False)


def _first_fit(bodies: Iterable[str], *, title: str, most_bytes: int) -> str:
    body = ""
    for body in bodies:
        if len(html.escape(f"{title}\n{body}").encode()) <= most_bytes:
            break
    return body


def _single(alert: Alert, limits: Limits) -> str:
    cut = Cutter()
    nodes = other_nodes(alert, cut, count=limits.nodes, length=NODE_LENGTH)
    when, moment = moment_of(alert)
    facts = {**facts_of(alert, cut, labels=limits.labels), when: in_utc(moment)}
    sections = (
        cut(alert.error, limits.error),
        "\n".join(["Also failed:", *nodes]) if nodes else "",
        " · ".join(f"{name}: {value}" for name, value in facts.items()),
        ids_of(alert),
    )
    return _joined(sections, link=alert.link)


def _grouped(group: Digest, limits: _GroupLimits) -> str:
    newest = group.newest[: limits.newest]
    sections = (
        "\n".join(cluster_lines(group, Cutter(), length=limits.clusters)),
        f"The newest {len(newest)}:" if newest else "",
        *("\n".join([alert.headline, *details_of(alert)]) for alert in newest),
        f"{rest_of(group)}.",
    )
    return _joined(sections, link=None)


def _joined(sections: Iterable[str], *, link: str | None) -> str:
    """Return sections with an empty line between them, and the link as it is."""
    return "\n\n".join(filter(None, [*map(_harmless, sections), link]))


def _harmless(text: str) -> str:
    """Return a text in which no `@everyone` or `<@id>` is a mention; addresses of mail stay as they are."""
    return _MENTION.sub(_BROKEN_MENTION, text)
