"""What the receivers of alerts accept, by their own documentation: judges of what is sent to them."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from jsonschema import Draft6Validator
from slack_sdk.models.blocks import Block

OURS_IN_MARKUP = re.compile(
    r"\w+\n<!date\^\d+\^\{date_short_pretty\} \{time_secs\}\|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC>"
)
"""All that may stand where Slack reads markup: a word of ours and a time."""

CARD = Draft6Validator(
    json.loads((Path(__file__).parent / "fixtures/adaptive-card/schema-1.4.json").read_text(encoding="utf-8"))
)
DISCORD_OURS = re.compile(
    r"\\[^0-9A-Za-z\s]|```\n[^`]+\n```|`[^`\n]+`|<t:\d+:R>|(?:^|\n)(?:(?: · )?\[(?:Open|Acknowledge|Details|Runbook)\]\(<https?://[^\s<>]+>\))+$"
)
"""What is escaped, code, a time or a link: read from the left, as Discord does."""

DISCORD_MARKUP = re.compile(r"[\\*_~|`<>@#\[\]()]|:\S")
TEAMS_TIME = re.compile(r"\{\{DATE\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ), SHORT\)\}\} \{\{TIME\(\1\)\}\}")
OUR_WORDS = re.compile(r"[\w .]+")

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
SEVERITIES = {"critical", "error", "warning", "info"}


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text in it but keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)


def check_slack(body: bytes) -> dict[str, Any]:
    """Return a payload of an incoming webhook that Slack takes."""
    payload: dict[str, Any] = json.loads(body)
    assert payload["mrkdwn"] is payload["unfurl_links"] is payload["unfurl_media"] is False
    check_slack_blocks(payload)
    return payload


def check_slack_blocks(payload: dict[str, Any]) -> None:
    """Check what is shown of a payload that Slack takes."""
    assert payload["text"]
    assert not re.search(r"[<>]", payload["text"])
    assert not re.search(r"&(?!amp;|lt;|gt;)", payload["text"])
    blocks = payload.get("blocks", [])
    assert [block.to_dict() for block in Block.parse_all(blocks)] == blocks  # raises for what Slack would refuse
    assert len(blocks) <= 50
    assert most_characters(json.dumps(blocks, ensure_ascii=False)) <= 13_200
    for text in _text_objects(blocks):
        assert 0 < most_characters(text["text"]) <= 3000
        if text["type"] == "mrkdwn":
            assert OURS_IN_MARKUP.fullmatch(text["text"])
        else:
            assert text["emoji"] is False
    for block in blocks:
        assert all(most_characters(field["text"]) <= 2000 for field in block.get("fields", ()))
        assert block["type"] != "header" or most_characters(block["text"]["text"]) <= 150


def _text_objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and value.get("type") in {"plain_text", "mrkdwn"}:
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _text_objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from _text_objects(item)


def shown_texts(blocks: Any) -> Iterator[str]:
    """Yield each line that people read in blocks."""
    for text in _text_objects(blocks):
        yield from text["text"].split("\n")


def check_discord(body: bytes) -> dict[str, Any]:
    """Return a message that Discord takes from a webhook, in which it reads no Markdown but ours."""
    payload: dict[str, Any] = json.loads(body)
    assert payload["allowed_mentions"] == {"parse": []}
    assert "content" not in payload
    (embed,) = payload["embeds"]
    fields, footer = embed["fields"], embed["footer"]["text"]
    assert 0 < most_characters(embed["title"]) <= 256
    assert most_characters(embed.get("description", "")) <= 4096
    assert most_characters(footer) <= 2048
    assert len(fields) <= 25
    assert all(
        0 < most_characters(each["name"]) <= 256 and 0 < most_characters(each["value"]) <= 1024 for each in fields
    )
    texts = [embed["title"], embed.get("description", ""), *(each[key] for each in fields for key in ("name", "value"))]
    assert sum(map(most_characters, [*texts, footer])) <= 6000
    for text in texts:
        assert_no_markdown(text)
    assert 0 <= embed["color"] <= 0xFFFFFF
    assert len(embed.get("url", "")) <= 2048
    assert "timestamp" not in embed or RFC_3339.fullmatch(embed["timestamp"])
    return payload


def most_characters(text: str) -> int:
    """Return the most characters that anybody counts in it: an emoji is two in UTF-16."""
    return len(text.encode("utf-16-le")) // 2


def assert_no_markdown(text: str) -> None:
    """All that is not code, a time or a link of ours is escaped."""
    rest = DISCORD_OURS.sub("", text)
    assert not DISCORD_MARKUP.search(rest), rest


def check_teams(body: bytes) -> dict[str, Any]:
    """Return the Adaptive Card of a message that a flow takes, in which Teams reads no Markdown."""
    assert len(body) <= 20_000
    payload: dict[str, Any] = json.loads(body)
    assert payload["type"] == "message"
    (attachment,) = payload["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card: dict[str, Any] = attachment["content"]
    assert (card["type"], card["version"], card["msteams"]) == ("AdaptiveCard", "1.4", {"width": "Full"})
    CARD.validate({name: value for name, value in card.items() if name != "msteams"})  # that is Teams' own
    for element in card["body"]:
        assert element["type"] in {"RichTextBlock", "FactSet"}
        assert all(run["type"] == "TextRun" and run["text"] for run in element.get("inlines", ()))
        for fact in element.get("facts", ()):
            assert OUR_WORDS.fullmatch(fact["title"])
            assert OUR_WORDS.fullmatch(TEAMS_TIME.sub("at", fact["value"]))
    return card


def check_pagerduty(body: bytes) -> dict[str, Any]:
    """Return an event that PagerDuty's Events API v2 takes."""
    event: dict[str, Any] = json.loads(body)
    assert len(body) <= 512_000
    assert len(event["routing_key"]) == 32
    assert 0 < len(event["dedup_key"]) <= 255
    assert UUID(event["dedup_key"])
    if event["event_action"] in {"acknowledge", "resolve"}:
        return event
    assert event["event_action"] == "trigger"
    payload = event["payload"]
    assert 0 < len(payload["summary"]) <= 1024
    assert payload["source"]
    assert payload["severity"] in SEVERITIES
    assert "timestamp" not in payload or RFC_3339.fullmatch(payload["timestamp"])
    assert isinstance(payload["custom_details"], dict)
    assert all(link["href"].startswith("http") for link in event.get("links", ()))
    return event


def check_alertmanager(body: bytes) -> list[dict[str, Any]]:
    """Return alerts that Alertmanager's API v2 takes."""
    alerts: list[dict[str, Any]] = json.loads(body)
    assert alerts
    for alert in alerts:
        assert set(alert) <= {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}
        assert alert["labels"]["alertname"]
        assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) for name in (*alert["labels"], *alert["annotations"]))
        assert all(isinstance(value, str) and value for value in (*alert["labels"].values(),))
        assert alert["labels"]["severity"] in SEVERITIES
        assert RFC_3339.fullmatch(alert["startsAt"])
        assert RFC_3339.fullmatch(alert["endsAt"])
        assert ended_after(alert) >= timedelta()
        assert "generatorURL" not in alert or re.fullmatch(r"https?://\S+", alert["generatorURL"])
    return alerts


CHECKS: Mapping[str, Callable[[bytes], Any]] = {
    "slack": check_slack,
    "discord": check_discord,
    "teams": check_teams,
    "pagerduty": check_pagerduty,
    "alertmanager": check_alertmanager,
}
"""What judges the messages of a template."""


def ended_after(alert: dict[str, Any]) -> timedelta:
    """Return for how long an alert holds."""
    return datetime.fromisoformat(alert["endsAt"]) - datetime.fromisoformat(alert["startsAt"])
