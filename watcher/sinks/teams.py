"""Messages for Microsoft Teams: an Adaptive Card that a flow of Workflows posts. Also what the flow's answers mean.

Teams reads Markdown in a `TextBlock` and in a `Fact`, and none in a `TextRun`: all but words of ours stand in runs.
https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar

from watcher.domain.envelope import Json
from watcher.domain.problems import Severity
from watcher.sinks.chat import ChatTemplate, Digest, Newest, Single
from watcher.sinks.protocol import SendOutcome, SendResult

_COLOURS: Mapping[Severity, str] = {
    Severity.CRITICAL: "Attention",
    Severity.ERROR: "Attention",
    Severity.WARNING: "Warning",
    Severity.INFO: "Good",
}
_CHECK_FLOW = "is the flow turned on, may anyone trigger it, and is url the whole one that it shows?"


class TeamsTemplate(ChatTemplate):
    """One card per event or per group."""

    defaults: ClassVar = {"rate_limit": "1/s"}
    remedies: ClassVar = dict.fromkeys((401, 403, 404), _CHECK_FLOW)

    def single(self, event: Single) -> Json:
        """Return the card of an event."""
        body = [
            _headline(event),
            *([_line(_run(event.error, fontType="Monospace"))] if event.error else []),
            *([_line(_run("Also failed:"))] if event.nodes else []),
            *(_line(_run(each, fontType="Monospace"), spacing="None") for each in event.nodes),
            *(_line(_run(f"{name}: ", isSubtle=True), _run(value)) for name, value in event.facts.items()),
            {"type": "FactSet", "facts": [{"title": event.when, "value": _date(event.since)}]},
            _small(event.ids),
        ]
        return _payload(body, event.links)

    def grouped(self, group: Digest) -> Json:
        """Return the card of a group."""
        body = [
            _headline(group),
            *(_line(_run(line, fontType="Monospace")) for line in group.clusters),
            _line(_run(f"The newest {len(group.newest)}:", weight="Bolder")),
            *(line for event in group.newest for line in _newest(event)),
            _small(group.rest),
        ]
        return _payload(body, group.links)

    def send_result(self, status: int, said: bytes) -> SendResult:
        """Return what an answer means: with any success the flow has the card and has yet to post it."""
        result = super().send_result(status, said)
        return replace(result, outcome=SendOutcome.ACCEPTED) if result.is_taken else result


def _newest(event: Newest) -> list[Json]:
    action = {"selectAction": {"type": "Action.OpenUrl", "url": event.link}} if event.link else {}
    return [
        _line(_run(event.headline, **action)),
        *(_line(_run(each, fontType="Monospace"), spacing="None") for each in event.details),
    ]


def _payload(body: Sequence[Json], links: Mapping[str, str]) -> Json:
    card: Json = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": list(body),
    }
    if links:
        card["actions"] = [{"type": "Action.OpenUrl", "title": name, "url": link} for name, link in links.items()]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}


def _headline(news: Single | Digest) -> Json:
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
