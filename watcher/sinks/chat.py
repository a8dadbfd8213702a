"""The content of a message for people about an event or a group. It is the same for every receiver.

Each text is cut to a length of its own. The lengths are chosen so that a whole message, escaped for JSON and Markdown,
stays below the limits of Slack (13,200 characters), Discord (6,000) and Teams (28 KB).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote
from uuid import UUID

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json, group_id
from watcher.domain.event import EventType, Severity
from watcher.domain.history import error_kind_of
from watcher.sinks.alert import (
    GOOD,
    HEADLINE_LENGTH,
    ID_LENGTH,
    NAME_LENGTH,
    Alert,
    clean,
    cut,
    in_utc,
    in_words,
    look_counts,
    shorten,
    span,
    to_json,
    usable_link,
)
from watcher.sinks.report import report_lines, report_span
from watcher.sinks.template import Message, Template

ERROR_LENGTH = 1500
NODES_COUNT = 3
NODE_LENGTH = 200
LABELS_LENGTH = 300
NEWEST_COUNT = 5
NEWEST_ERROR_LENGTH = 150
NEWEST_LINK_LENGTH = 300
"""The most characters of the link in a `Newest`. A longer link is left out."""

NAMES_COUNT, NAMES_LENGTH = 15, 600
CLUSTERS_COUNT = 6
CLUSTER_LENGTH = 140
_WORDS_COUNT = 3

_WORDS = {EventType.EXECUTION_SUCCESS: "succeeded", EventType.WATCHER_TEST: "tests"}


class Newest(NamedTuple):
    """One of the newest events in a group. `details` are lines: the error, if there is one, then time and id."""

    headline: str
    details: list[str]
    link: str


@dataclass(frozen=True, slots=True)
class Notice:
    """The content of one message about an event, a group or a report.

    `error` is the error of an event, a line for each kind of error in a group, or the lines of a report. `nodes` has a
    line for each of the next three nodes that failed. `facts` are other values by name. `moment` is a time with a name.
    `footer` has the ids of an event, the size of a group, or the span of a report.
    """

    id: str
    headline: str
    severity: Severity
    is_trouble: bool
    error: str
    footer: str
    links: Mapping[str, str]
    nodes: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    moment: tuple[str, datetime] | None = None
    newest: Sequence[Newest] = ()


def notice_of(alert: Alert, *, error: str | None = None, error_length: int = ERROR_LENGTH) -> Notice:
    """Return the content of a message about an event. A given `error` replaces the error of the event."""
    if alert.type is EventType.WATCHER_REPORT:
        return _of_report(alert, error_length)
    data = alert.data
    execution = data.get("execution", {})
    was, ran_s = execution.get("previousStatus"), execution.get("durationSeconds")
    labels = ", ".join(f"{key}={value}" for key, value in data.get("labels", {}).items())
    facts = {
        "Status": shorten(f"{execution.get('status', '')}{f', was {was}' if was else ''}", ID_LENGTH),
        "Ran": "" if ran_s is None else in_words(ran_s),
        "Seen": alert.seen_later,
        "Was overdue": alert.overdue_text or "",
        "Closes when": cut(alert.closes_when, LABELS_LENGTH),
        "Labels": cut(labels, LABELS_LENGTH),
        "Account": clean(data.get("account", "")),
        "Comment": cut(data.get("acknowledgement", {}).get("comment") or "", LABELS_LENGTH),
    }
    others = alert.nodes[1 : 1 + NODES_COUNT]
    is_acknowledged = alert.type is EventType.PROBLEM_ACKNOWLEDGED
    page = "Acknowledge" if alert.problem and not alert.closes and not is_acknowledged else "Details"
    return Notice(
        alert.id,
        alert.headline,
        alert.severity,
        alert.is_trouble,
        error=cut(alert.error if error is None else error, error_length),
        footer=alert.ids,
        links={page if name == "Details" else name: link for name, link in alert.links.items()},
        nodes=[cut(": ".join(filter(None, node)), NODE_LENGTH) for node in others if any(node)],
        facts={name: value for name, value in facts.items() if value},
        moment=alert.moment,
    )


def _of_report(alert: Alert, limit: int) -> Notice:
    """Return the content of a message about a report. Its lines have at most `limit` characters together."""
    report = alert.data["report"]
    lines, link = report_lines(report, limit=limit), usable_link(report.get("link"))
    links = {"Details": link} if link else {}
    severity = Severity.WARNING if any(look_counts(report)) else alert.severity
    return Notice(alert.id, alert.headline, severity, alert.is_trouble, "\n".join(lines), report_span(report), links)


def _of_group(alerts: Sequence[Alert]) -> Notice:
    """Return the content of a message about a group: how many events of each type, the kinds of errors, the newest."""
    is_trouble, by_time = any(alert.is_trouble for alert in alerts), sorted(alerts, key=lambda alert: alert.time)
    seen_later = max(alerts, key=lambda alert: alert.delay_s).seen_later
    times = span(by_time[0].time, by_time[-1].time) + (f", seen up to {seen_later}" if seen_later else "")
    worst = min(alerts, key=lambda alert: alert.severity.rank)
    sign = worst.sign[0] if is_trouble or len({alert.sign for alert in alerts}) == 1 else GOOD[0]
    title = f"{sign} {_counted(alerts)}{_where(alerts)} ({times})"
    return Notice(
        str(group_id(UUID(alert.id) for alert in alerts)),
        shorten(title, HEADLINE_LENGTH),
        worst.severity,
        is_trouble,
        error="\n".join([*_clusters(alerts), *_names(alerts)]),
        footer=f"{len(alerts):,} events, {times}. All of them are on the watcher's stdout.",
        links=_links(alerts),
        newest=list(map(_newest, by_time[-NEWEST_COUNT:])),
    )


def notice_of_batch(batch: Sequence[Delivery], public_url: str = "", *, error_length: int = ERROR_LENGTH) -> Notice:
    """Return the content of a message about the event of one delivery, or about a group in the order of recording."""
    return notice_of_alerts([Alert.of_delivery(each, public_url) for each in batch], error_length=error_length)


def notice_of_alerts(alerts: Sequence[Alert], *, error_length: int = ERROR_LENGTH) -> Notice:
    """Return the content of a message about an event or a group."""
    return notice_of(alerts[0], error_length=error_length) if len(alerts) == 1 else _of_group(alerts)


def _newest(alert: Alert) -> Newest:
    when = f"{in_utc(alert.time)} · {shorten(alert.execution or alert.id, ID_LENGTH)}"
    link = alert.link if alert.link and len(alert.link) <= NEWEST_LINK_LENGTH else ""
    return Newest(alert.headline, list(filter(None, (shorten(alert.error, NEWEST_ERROR_LENGTH), when))), link)


def _links(alerts: Sequence[Alert]) -> Mapping[str, str]:
    """Return the link to our page of problems or executions, of one pipeline if the group has only that one."""
    public_url, pipelines = alerts[-1].public_url, {alert.data.get("pipeline", {}).get("id") for alert in alerts}
    of_one = f"?pipeline={quote(pipelines.pop(), safe='')}" if len(pipelines) == 1 and None not in pipelines else ""
    page = "problems" if any(alert.problem for alert in alerts) else "executions"
    return {"Details": f"{public_url}/{page}{of_one}"} if public_url else {}


def _names(alerts: Sequence[Alert]) -> list[str]:
    """Return a line with the pipelines, accounts and sinks of a group of problems; none for other groups."""
    names = list(dict.fromkeys(alert.who for alert in alerts if alert.problem))
    if len(names) < 2:
        return []
    line, rest = ", ".join(names[:NAMES_COUNT]), len(names) - NAMES_COUNT
    return [f"In: {shorten(line, NAMES_LENGTH)}{f' and {rest:,} more' if rest > 0 else ''}"]


def _clusters(alerts: Sequence[Alert]) -> list[str]:
    """Return a line for each frequent kind of error, and one for the rest. The counts add up to all events."""
    clusters = defaultdict[bytes, list[str]](list)
    for alert in alerts:
        node = alert.nodes[0][0] if alert.nodes else ""
        text = clean(": ".join(filter(None, (node, alert.error))))
        if not text or alert.type is EventType.PROBLEM_ACKNOWLEDGED:
            text = alert.happened if alert.problem else alert.title
        clusters[error_kind_of(node, text).fingerprint].append(text)
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


class ChatTemplate(Template):
    """One message per event or per group."""

    def payload(self, notice: Notice) -> Json:
        """Return the message in the receiver's own form."""
        raise NotImplementedError

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one message."""
        notice = notice_of_batch(batch, self.public_url)
        return [Message(notice.id, to_json(self.payload(notice)).encode())]
