"""Events and groups as plain text: harmless, and no longer than asked for."""

from html import escape

import pytest
from sample_events import HOSTILE_PARTS, data_of, sample

from watcher.domain.event import EventType
from watcher.sinks.apprise import MESSAGE_BYTES, plain_message

FAILED = EventType.EXECUTION_FAILED


@pytest.mark.parametrize("part", HOSTILE_PARTS)
def test_nobody_is_mentioned_by_what_others_write(part: str) -> None:
    data = data_of(FAILED)
    text = f"{part} @here <@!1> me@example.com"
    data["pipeline"]["name"], data["labels"] = text, {"team": text}
    data["execution"]["failedNodes"] = [{"id": "n", "name": "@everyone", "error": text}] * 3
    title, body, _ = plain_message([sample(FAILED, data=data)])
    shown = f"{title}\n{body}"
    assert not any(mention in shown for mention in ("@everyone", "@here", "<@!1>", "<@U0>"))
    assert "me@example.com" in shown
    assert all(character.isprintable() or character in "\n\u200b" for character in shown)


@pytest.mark.parametrize("type_", EventType)
def test_every_event_has_a_title_and_a_body_with_its_id(type_: EventType) -> None:
    title, body, _ = plain_message([sample(type_)])
    assert title
    assert str(sample(type_).event_id) in body


@pytest.mark.parametrize("text", ["x", "&", '"', "漢", "🎉"])
@pytest.mark.parametrize("count", [1, 50])
def test_what_is_too_long_loses_its_end(text: str, count: int) -> None:
    data = data_of(FAILED)
    data["labels"] = {f"label{number}": text * 50 for number in range(10)}
    data["execution"]["failedNodes"] = [{"id": "n", "name": "Node", "error": text * 900}] * 5
    batch = [sample(FAILED, number=number, data=data) for number in range(count)]
    title, body, _ = plain_message(batch)
    assert len(escape(f"{title}\n{body}").encode()) <= MESSAGE_BYTES
    assert body[0] == (text if count == 1 else "5") or body.startswith("Node")


def test_error_ids_and_link_come_before_what_may_be_cut() -> None:
    data = data_of(FAILED) | {"link": "https://example.com/runs/1"}
    data["execution"]["failedNodes"] += [{"id": "n", "name": "Booking", "error": "no slot"}]
    _, body, _ = plain_message([sample(FAILED, data=data)])
    error, ids, link, facts, nodes = body.split("\n\n")
    assert (error, link) == ("upstream timeout after 30 s", "Open: https://example.com/runs/1")
    assert data["execution"]["id"] in ids
    assert facts.startswith("Ended: 2026-11-24 12:00:31 UTC · Status: failed, was running")
    assert nodes == "Also failed:\nBooking: no slot"


def test_a_group_says_what_the_others_do() -> None:
    _, body, _ = plain_message([sample(FAILED, number=number) for number in range(50)])
    assert body.startswith("50 \N{MULTIPLICATION SIGN} Greeting: upstream timeout after 30 s\n\n50 events, ")
    assert "The newest 5:" in body
