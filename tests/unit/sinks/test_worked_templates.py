"""The templates of `config/templates`, judged by what their receivers accept and by what they read as markup."""

import json
import re
from collections.abc import Callable, Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sample_events import HOSTILE, OVERDUE_ENDS, data_of, failed, hostile_failures, sample

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.sinks.own_template import OwnTemplate, check

NAMES = ("event", "events", "id", "headline", "error", "severity", "is_trouble", "link", "page", "runbook")
"""What a template sees."""

FOLDER = Path(__file__).parents[3] / "config/templates"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.add(tag)


def check_ntfy(body: bytes) -> None:
    """Judge a message: https://docs.ntfy.sh/publish/#limitations and #publish-as-json."""
    message = json.loads(body)
    assert len(message["message"].encode()) <= 4096
    assert len(message["title"].encode()) <= 1024
    assert sum(len(tag.encode()) for tag in message["tags"]) <= 512
    assert len(body) <= 2 * 4096
    assert message["priority"] in range(1, 6)
    assert message["topic"] == "clerk-watcher"
    assert "markdown" not in message
    assert message["message"]


def check_google_chat(body: bytes) -> None:
    """Judge a card: 32,000 bytes; no text of others where Chat reads its own markup or HTML."""
    message = json.loads(body)
    assert len(body) <= 32_000
    assert set(message) == {"fallbackText", "cardsV2"}
    (card,) = message["cardsV2"]
    assert card["card"]["header"]["title"] == message["fallbackText"]
    (section,) = card["card"]["sections"]
    text = section["widgets"][0]["textParagraph"]["text"]
    tags = Tags()
    tags.feed(text)
    assert tags.found <= {"br"}
    assert text
    assert unescape(text).count("&") == text.count("&amp;")


CHECKS: Sequence[tuple[str, Callable[[bytes], None]]] = (
    ("ntfy.json.j2", check_ntfy),
    ("google-chat.json.j2", check_google_chat),
)


def huge(type_: EventType) -> Delivery:
    data: dict[str, Any] = data_of(type_)
    data["link"] = "https://example.com/" + "x" * 2000
    text = (HOSTILE + "<&>\U0001f389") * 40
    if "pipeline" in data:
        data["pipeline"]["name"] = text[:2000]
    if "execution" in data:
        data["execution"] |= {"error": text[:2000], "failedNodes": [{"name": text, "error": "<&\U0001f389>" * 400}] * 9}
    return sample(type_, data=data)


def test_every_worked_template_is_tested() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {name for name, _ in CHECKS}


def test_the_page_shows_what_the_file_holds_and_all_that_a_template_may_use() -> None:
    page = (FOLDER.parents[1] / "docs/sinks.md").read_text()
    _, _, shown = (FOLDER / "ntfy.json.j2").read_text().partition("-#}\n")
    assert f"```jinja\n{shown}```" in page
    _, _, section = page.partition("| a template sees |")
    assert re.findall(r"^\| `(\w+)` \|", section.partition("\n\n")[0], re.MULTILINE) == list(NAMES)


@pytest.mark.parametrize(("name", "judge"), CHECKS)
def test_its_receiver_takes_every_event_and_group(name: str, judge: Callable[[bytes], None]) -> None:
    source = (FOLDER / name).read_text()
    assert check(source, with_group=True) is None
    template = OwnTemplate(source, timeout_s=15.0)
    everything = [*map(sample, EventType), *map(huge, EventType), *OVERDUE_ENDS, *hostile_failures(7, count=50)]
    batches = [*([each] for each in everything), everything, [failed(number) for number in range(500)]]
    for batch in batches:
        (message,) = template.messages(batch)
        assert message.content_type is None
        judge(message.body)


def test_what_they_say() -> None:
    ntfy, chat = (OwnTemplate((FOLDER / name).read_text(), timeout_s=15.0) for name, _ in CHECKS)
    batch = [failed(error="can't <b>reach</b> it", link="https://example.com/x")]
    assert json.loads(ntfy.messages(batch)[0].body) == {
        "topic": "clerk-watcher",
        "title": "✕ Sales agent failed at Greeting",
        "message": "can't <b>reach</b> it",
        "priority": 4,
        "tags": ["rotating_light"],
        "click": "https://example.com/x",
    }
    card = json.loads(chat.messages(batch)[0].body)["cardsV2"][0]["card"]
    assert card["header"] == {"title": "✕ Sales agent failed at Greeting", "subtitle": "error"}
    text, button = card["sections"][0]["widgets"]
    assert text["textParagraph"]["text"] == "can't &lt;b&gt;reach&lt;/b&gt; it"
    assert button["buttonList"]["buttons"][0]["onClick"]["openLink"]["url"] == "https://example.com/x"
