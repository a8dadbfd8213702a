"""Messages for Microsoft Teams: Adaptive Cards, which a flow of Workflows posts, and the meaning of the flow's answers.

Teams reads Markdown in a `TextBlock` and in a `Fact`, but not in a `TextRun`: texts from outside go into runs only.
`notice_of` in `watcher/sinks/chat.py` makes the content of a message, this module its form.
https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar

from watcher.domain.envelope import Json
from watcher.domain.event import Severity
from watcher.sinks.chat import ChatTemplate, Newest, Notice
from watcher.sinks.protocol import SendOutcome, SendResult

_COLOURS = {Severity.WARNING: "Warning", Severity.INFO: "Good"}
_CHECK_FLOW = "is the flow turned on, may anyone trigger it, and is url the whole one that it shows?"


class TeamsTemplate(ChatTemplate):
    """One card per event or per group."""

    defaults: ClassVar = {"rate_limit": "1/s"}
    remedies: ClassVar = dict.fromkeys((401, 403, 404), _CHECK_FLOW)

    def payload(self, notice: Notice) -> Json:
        """Return the card."""
        colour = _COLOURS.get(notice.severity, "Attention")
        body = [
            _line(_run(notice.headline, size="Large", weight="Bolder", color=colour)),
            *(_line(_run(each, fontType="Monospace")) for each in notice.error.splitlines()),
            *([_line(_run("Also failed:"))] if notice.nodes else []),
            *(_line(_run(each, fontType="Monospace"), spacing="None") for each in notice.nodes),
            *(_line(_run(f"{name}: ", isSubtle=True), _run(value)) for name, value in notice.facts.items()),
        ]
        if notice.moment is not None:
            when, since = notice.moment
            body.append({"type": "FactSet", "facts": [{"title": when, "value": _date(since)}]})
        if notice.newest:
            body.append(_line(_run(f"The newest {len(notice.newest)}:", weight="Bolder")))
            body += (line for event in notice.newest for line in _newest(event))
        body.append(_line(_run(notice.footer, size="Small", isSubtle=True)))
        card: Json = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "msteams": {"width": "Full"},
            "body": body,
        }
        if notice.links:
            links = notice.links.items()
            card["actions"] = [{"type": "Action.OpenUrl", "title": name, "url": link} for name, link in links]
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        return {"type": "message", "attachments": [attachment]}

    def send_result(self, status: int, body: bytes) -> SendResult:
        """Return the meaning of an answer. A success is `ACCEPTED`: the flow took the card, and posts it later."""
        result = super().send_result(status, body)
        return replace(result, outcome=SendOutcome.ACCEPTED) if result.outcome.is_taken else result


def _newest(event: Newest) -> list[Json]:
    action = {"selectAction": {"type": "Action.OpenUrl", "url": event.link}} if event.link else {}
    return [
        _line(_run(event.headline, **action)),
        *(_line(_run(each, fontType="Monospace"), spacing="None") for each in event.details),
    ]


def _line(*runs: Json, **style: object) -> Json:
    return {"type": "RichTextBlock", "inlines": list(runs), **style}


def _run(text: str, **style: object) -> Json:
    return {"type": "TextRun", "text": text, **style}


def _date(moment: datetime) -> str:
    """Return a time in the form that Teams shows to each reader in their time zone."""
    in_utc = moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"{{{{DATE({in_utc}, SHORT)}}}} {{{{TIME({in_utc})}}}}"
