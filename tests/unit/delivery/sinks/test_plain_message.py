"""Events and groups as plain text: harmless, and no longer than asked for."""

from html import escape

import pytest
from sample_events import HOSTILE_PARTS, data_of, sample

from watcher.delivery.sinks.plain_message import plain_messages
from watcher.domain.event import EventType

FAILED = EventType.EXECUTION_FAILED


@pytest.mark.parametrize("part", HOSTILE_PARTS)
def test_nobody_is_mentioned_by_what_others_write(part: str) -> None:
    data = data_of(FAILED)
    text = f"{part} @here <@!1> me@example.com"
    data["pipeline"]["name"], data["labels"] = text, {"team": text}
    data["execution"]["failedNodes"] = [{"id": "n", "name": "@everyone", "error": text}] * 3
    (message,) = plain_messages([sample(FAILED, data=data)], most_bytes=3800)
    shown = f"{message.title}\n{message.body}"
    assert not any(mention in shown for mention in ("@everyone", "@here", "<@!1>", "<@U0>"))
    assert "me@example.com" in shown
    assert all(character.isprintable() or character in "\n\u200b" for character in shown)


@pytest.mark.parametrize("type_", EventType)
def test_every_event_has_a_title_and_a_body_with_its_id(type_: EventType) -> None:
    (message,) = plain_messages([sample(type_)], most_bytes=3800)
    assert message.title
    assert str(sample(type_).event_id) in message.body


@pytest.mark.parametrize("most_bytes", [3800, 2000, 1000])
def test_labels_go_first_then_nodes_then_the_end_of_the_error(most_bytes: int) -> None:
    data = data_of(FAILED)
    data["labels"] = {f"label{number}": "x" * 50 for number in range(10)}
    data["execution"]["failedNodes"] = [
        {"id": "n", "name": f"Node {number}", "error": "&" * 900} for number in range(5)
    ]
    (message,) = plain_messages([sample(FAILED, data=data)], most_bytes=most_bytes)
    assert len(escape(f"{message.title}\n{message.body}").encode()) <= most_bytes
    assert "label0" not in message.body
    assert "Node 1" not in message.body
    assert "chars)" in message.body
    assert data["execution"]["id"] in message.body


@pytest.mark.parametrize("most_bytes", [3800, 2000, 1500])
def test_a_group_fits_too(most_bytes: int) -> None:
    data = data_of(FAILED)
    data["execution"]["failedNodes"] = [{"id": "n", "name": "Node", "error": "<" * 900}]
    (message,) = plain_messages(
        [sample(FAILED, number=number, data=data) for number in range(50)], most_bytes=most_bytes
    )
    assert len(escape(f"{message.title}\n{message.body}").encode()) <= most_bytes
    assert "50 events" in message.body
