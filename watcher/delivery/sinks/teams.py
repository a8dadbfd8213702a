"""Messages for Microsoft Teams: an Adaptive Card that a flow of Workflows posts. Also what the flow's answers mean.

Teams reads Markdown in a `TextBlock` and in a `Fact`, and none in a `TextRun`: all but words of ours stand in runs.
https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, NamedTuple

from yarl import URL

from watcher.delivery.sinks.alert import Alert
from watcher.delivery.sinks.alert_text import Cutter, to_json
from watcher.delivery.sinks.chat import (
    UNTRUSTED_FACTS,
    ChatFormat,
    Json,
    Limits,
    cluster_lines,
    details_of,
    facts_of,
    ids_of,
    moment_of,
    other_nodes,
    rest_of,
)
from watcher.delivery.sinks.digest import Digest
from watcher.delivery.sinks.http_post import Answer
from watcher.delivery.sinks.protocol import SendOutcome, SendResult
from watcher.delivery.sinks.template import Message, Template, result_of_status
from watcher.domain.delivery import Delivery
from watcher.domain.problems import Severity

MESSAGE_BYTES = 20_000
"""Teams refuses a card at 28 KB, of which it makes larger ones of what it gets (MicrosoftDocs/msteams-docs#11274)."""

NODE_LENGTH = 300

_COLOURS: Mapping[Severity, str] = {
    Severity.CRITICAL: "Attention",
    Severity.ERROR: "Attention",
    Severity.WARNING: "Warning",
    Severity.INFO: "Good",
}
_DATE = re.compile(r"\{\{DATE\(([\d-]+)T([\d:]+)Z, SHORT\)\}\} \{\{TIME\([^)]*\)\}\}")
_CHECK_FLOW = "is the flow turned on, may anyone trigger it, and is url the whole one that it shows?"


class _GroupLimits(NamedTuple):
    """Characters of the clusters, and how many of the newest have a link."""

    clusters: int
    links: int


class TeamsTemplate(Template):
    """One card per event or per group; good news and bad never share one."""

    defaults: ClassVar = {"rate_limit": "1/s"}

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one message, or two: first that of which the oldest event is."""
        return _FORMAT.requests_of(batch)

    def send_result(self, answer: Answer) -> SendResult:
        """Return what an answer means: with any success the flow has the card and has yet to post it."""
        result = result_of_status(answer.status)
        if result.outcome is SendOutcome.DELIVERED:
            return replace(result, outcome=SendOutcome.ACCEPTED)
        return replace(result, remedy=_CHECK_FLOW) if answer.status in {401, 403, 404} else result

    def preview(self, body: bytes) -> list[str]:
        """Return the texts of the card in their order, buttons in brackets, times in UTC."""
        card = json.loads(body)["attachments"][0]["content"]
        lines = [line for element in card["body"] for line in _shown(element)]
        return [*lines, *(f"[{action['title']}]" for action in card.get("actions", ()))]


def is_retired(url: URL) -> bool:
    """Whether this is the address of an Office 365 connector: Microsoft takes nothing there any more."""
    host = (url.host or "").lower().rstrip(".")
    if host in {"outlook.office.com", "outlook.office365.com"}:
        return url.path.startswith("/webhook/")
    return f".{host}".endswith(".webhook.office.com")


def _shown(element: Json) -> list[str]:
    if element["type"] == "FactSet":
        return [_DATE.sub(r"\1 \2 UTC", f"{fact['title']}: {fact['value']}") for fact in element["facts"]]
    return ["".join(run["text"] for run in element["inlines"])]


def _single(alert: Alert, limits: Limits, cut: Cutter) -> Json:
    error = cut(alert.error, limits.error)
    nodes = other_nodes(alert, cut, count=limits.nodes, length=NODE_LENGTH)
    facts = facts_of(alert, cut, labels=limits.labels)
    when, since = moment_of(alert)
    ours = {name: value for name, value in facts.items() if name not in UNTRUSTED_FACTS} | {when: _date(since)}
    body = [
        _headline(alert),
        *([_line(_run(error, fontType="Monospace"))] if error else []),
        *([_line(_run("Also failed:"))] if nodes else []),
        *(_line(_run(each, fontType="Monospace"), spacing="None") for each in nodes),
        *(
            _line(_run(f"{name}: ", isSubtle=True), _run(value))
            for name, value in facts.items()
            if name in UNTRUSTED_FACTS
        ),
        {"type": "FactSet", "facts": [{"title": name, "value": value} for name, value in ours.items()]},
        _small(ids_of(alert)),
    ]
    return _payload(body, link=alert.link)


def _grouped(group: Digest, limits: _GroupLimits, cut: Cutter) -> Json:
    newest = [
        line for number, alert in enumerate(group.newest) for line in _newest(alert, with_link=number < limits.links)
    ]
    clusters = [_line(_run(line, fontType="Monospace")) for line in cluster_lines(group, cut, length=limits.clusters)]
    heading = _line(_run(f"The newest {len(group.newest)}:", weight="Bolder"))
    return _payload([_headline(group), *clusters, heading, *newest, _small(f"{rest_of(group)}.")])


def _newest(alert: Alert, *, with_link: bool) -> list[Json]:
    action = {"selectAction": {"type": "Action.OpenUrl", "url": alert.link}} if alert.link and with_link else {}
    return [
        _line(_run(alert.headline, **action)),
        *(_line(_run(each, fontType="Monospace"), spacing="None") for each in details_of(alert)),
    ]


def _minimal(news: Alert | Digest) -> Json:
    return _payload([_headline(news), _small(ids_of(news))])


def _payload(body: Sequence[Json], *, link: str | None = None) -> Json:
    card: Json = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": list(body),
    }
    if link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": link}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}


def _headline(news: Alert | Digest) -> Json:
    return _line(_run(news.headline, size="Large", weight="Bolder", color=_COLOURS[news.severity]))


def _small(text: str) -> Json:
    return _line(_run(text, size="Small", isSubtle=True))


def _line(*runs: Json, **style: object) -> Json:
    return {"type": "RichTextBlock", "inlines": list(runs), **style}


def _run(text: str, **style: object) -> Json:
    return {"type": "TextRun", "text": text, **style}


def _date(moment: datetime) -> str:
    """Return the form of a time that each reader sees in their zone; there is nothing of others in it."""
    in_utc = moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"{{{{DATE({in_utc}, SHORT)}}}} {{{{TIME({in_utc})}}}}"


def _size(message: Json) -> int:
    return len(to_json(message).encode())


_FORMAT = ChatFormat(
    single=_single,
    grouped=_grouped,
    minimal=_minimal,
    limits=[Limits(600, 4, 1500)],  # leaves room for the largest event, in whatever letters
    group_limits=[_GroupLimits(1500, 5), _GroupLimits(1500, 1), _GroupLimits(750, 0)],
    most=MESSAGE_BYTES,
    size=_size,
)
