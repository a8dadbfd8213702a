import json
import re
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver, sink_to
from sample_events import ERROR, OVERDUE_ENDS, PROBLEM, failed, hostile_failures, huge, sample
from structlog.testing import capture_logs
from unit.sinks.test_email import Tags
from worker_rig import FakeClock

from watcher.domain.envelope import group_id
from watcher.domain.event import EventType
from watcher.sinks.own_template import MESSAGE_BYTES, OwnTemplate, check
from watcher.sinks.protocol import SendOutcome
from watcher.sinks.webhook import TemplateFile, sign, signing_key

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
TIMES = "\N{MULTIPLICATION SIGN}"
FAILS_LATER = '{"text": {{ headline | tojson }}, "n": {{ 1 / (0 if event.data.execution.error == "boom" else 1) }}}'

FOR = "for execution.failed: "
UNDEFINED = "UndefinedError: 'dict object' has no attribute "
ABSENT = 'write default(""), or ask by "is defined"; what a template sees is in docs/receivers/template.md'
TOJSON = 'put every value in by tojson, such as {"text": {{ headline | tojson }}}'
CORRECT = "correct the template"
GROUP = "{% if events | length > 1 %}oops{% else %}{}{% endif %}"
ACCESS = FOR + "SecurityError: access to attribute "

MISTAKES = [
    ("{{ x", 1, "unexpected end of template, expected 'end of print statement'.", CORRECT),
    ('{"a": 1,\n{% if %}', 2, "Expected an expression, got 'end of statement block'", CORRECT),
    ("{{ [1] | shuffle }}", 1, "No filter named 'shuffle'.", CORRECT),
    ("\n\n{{ hedline }}", 3, FOR + "UndefinedError: 'hedline' is undefined", ABSENT),
    ('{"a":\n{{ event.data.sink | tojson }}}', 2, f"{FOR}{UNDEFINED}'sink'", ABSENT),
    ('{"a":\n{{ event.data.execution.id | tojson }}}', 2, f"for account.degraded: {UNDEFINED}'execution'", ABSENT),
    ('{"a": "{{ error }}"}', 0, FOR + "renders no JSON: Expecting ',' delimiter: line 1 column 18 (char 17)", TOJSON),
    ("5", 0, FOR + "renders no JSON object or list", TOJSON),
    ("[" * 50_000 + "]" * 50_000, 0, FOR + "RecursionError: ", CORRECT),
    (GROUP, 0, "for a group: renders no JSON: Expecting", TOJSON),
    ("\n{{ 1 / 0 }}", 2, FOR + "ZeroDivisionError: division by zero", CORRECT),
    ("{{ headline.__class__ }}", 1, ACCESS + "'__class__' of 'str'", CORRECT),
    ("{{ events.append(1) }}", 1, ACCESS + "'append' of 'list' object", CORRECT),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", 1, FOR + "RecursionError: ", CORRECT),
    ('{% include "/etc/passwd" %}', 1, FOR + "TypeError: no loader for this environment specified", CORRECT),
    (f'{{"a": "{"x" * MESSAGE_BYTES}"}}', 0, FOR + "renders more than 256 KiB", TOJSON),
]


@pytest.mark.parametrize(("source", "line", "reason", "remedy"), MISTAKES)
def test_a_mistake_is_found_at_load_with_line_event_and_remedy(
    source: str, line: int, reason: str, remedy: str
) -> None:
    failure = check(source, with_group=True)
    assert failure is not None
    assert failure.reason.startswith(reason)
    assert (failure.line, failure.remedy) == (line, remedy)


def own(source: str) -> OwnTemplate:
    return OwnTemplate(source)


def rendered(source: str, *numbers: int, **data: Any) -> Any:
    (message,) = own(source).messages([failed(number, **data) for number in numbers or (1,)])
    assert message.content_type == "application/json; charset=utf-8"
    return json.loads(message.body)


def test_what_a_template_sees_of_an_event() -> None:
    names = ("id", "headline", "error", "severity", "is_trouble", "link", "page", "runbook")
    texts = (str(failed().event_id), "✕ Sales agent failed at Greeting", ERROR, "error", True, "", "", "")
    seen = rendered("[" + ", ".join(f"{{{{ {name} | tojson }}}}" for name in names) + "]")
    assert seen == list(texts)
    template, its_runbook = own("[{{ page | tojson }}, {{ runbook | tojson }}]"), "https://wiki.example.com/x"
    template.public_url = "https://watcher.example.com"
    batches = [[failed(runbook=its_runbook)], [failed(1), failed(2)], [sample(EventType.PIPELINE_FAILING)]]
    (one,), (group,), (opening,) = map(template.messages, batches)
    page, runbook = json.loads(one.body)
    assert (page.startswith("https://watcher.example.com/executions/default/"), runbook) == (True, its_runbook)
    assert json.loads(group.body)[0].startswith("https://watcher.example.com/executions?pipeline=")
    assert json.loads(opening.body)[0] == f"https://watcher.example.com/problems/{PROBLEM}"
    event = json.loads(failed().body)
    assert rendered("{{ [event, events] | tojson }}") == [event, [event]]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('event.data.execution.goals | default("none")', "none"),
        ('event.data.get("nothing", {}).at | default("none")', "none"),
        ('"yes" if event.data.nothing is defined else "no"', "no"),
        ('"<b>&\'é" ~ 1', "<b>&'é1"),
        ('"<" | e ~ "<"', "&lt;<"),
        ("range(3) | map('string') | join('-')", "0-1-2"),
    ],
)
def test_what_is_absent_can_be_asked_for_and_json_is_plain(expression: str, value: object) -> None:
    (message,) = own(f'{{"v": {{{{ ({expression}) | tojson }}}}}}').messages([failed()])
    assert json.loads(message.body) == {"v": value}
    assert b"\\u" not in message.body


def test_what_a_template_sees_of_a_group_and_of_texts_of_others() -> None:
    assert rendered("[{{ error | tojson }}]", error="{{ 1 / 0 }}{% raw %}") == ["{{ 1 / 0 }}{% raw %}"]
    source = '{"t": {{ headline | tojson }}, "e": {{ error | tojson }}, "n": {{ events | length }}, "i": "{{ id }}"}'
    batch = [failed(1), failed(2), sample(EventType.EXECUTION_LOST, number=3)]
    (message,) = own(source).messages(batch)
    seen = json.loads(message.body)
    assert seen["t"].startswith("✕ 2 failed, 1 lost in Sales agent")
    assert seen["e"] == f"2 {TIMES} Greeting: {ERROR}\n1 {TIMES} the API does not know it"
    assert (seen["n"], seen["i"]) == (3, message.id)
    assert message.id == str(group_id(delivery.event_id for delivery in batch))
    assert rendered('["{{ event.data.execution.id[-1:] }}"]', 1, 2) == ["2"]
    assert check(GROUP, with_group=False) is None


@pytest.mark.parametrize("count", [1, 3])
async def test_what_cannot_be_rendered_is_sent_plain_and_loudly_once_an_hour(receiver: Receiver, count: int) -> None:
    clock, source = FakeClock(), TemplateFile("x.j2", FAILS_LATER)
    batch = [failed(number, execution={"error": "boom"}) for number in range(count)]
    with capture_logs() as logs:
        async with sink_to(receiver.url, secret=SECRET, template=source, clock=clock) as sink:
            for each in ([failed()], batch, batch):
                assert (await sink.send(each)).outcome is SendOutcome.DELIVERED
            clock.elapsed_s += 3600.0
            await sink.send(batch)
    good, *plain = receiver.requests
    assert good.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(good.body) == {"text": "✕ Sales agent failed at Greeting", "n": 1.0}
    bodies = b",".join(each.body for each in batch)
    kind, body = ("cloudevents", bodies) if count == 1 else ("cloudevents-batch", b"[%b]" % bodies)
    for request in plain:
        assert request.headers["content-type"] == f"application/{kind}+json; charset=utf-8"
        assert request.body == body
        id_, timestamp = plain[0].headers["webhook-id"], request.headers["webhook-timestamp"]
        signature = sign(body, message_id=id_, timestamp=timestamp, keys=[signing_key(SECRET)])
        assert (request.headers["webhook-id"], request.headers["webhook-signature"]) == (id_, signature)
    lines = [line for line in logs if line["event"] == "template.failed"]
    assert [(line["count"], line["log_level"], line["line"]) for line in lines] == [(1, "error", 1), (2, "error", 1)]
    assert lines[0]["reason"] == "cannot be rendered (ZeroDivisionError)"
    assert lines[0]["remedy"] == "the plain event was sent instead; correct the template"
    assert "boom" not in str(lines)


@pytest.mark.parametrize("expression", ['event.data[headline + "hush"]', '{}["hush"]', "headline.hush"])
def test_no_word_of_an_event_is_told_of_why_it_cannot_be_rendered(expression: str) -> None:
    with capture_logs() as logs:
        own("\n{{ " + expression + " }}").messages([failed()])
    assert [(line["line"], line["reason"]) for line in logs] == [(2, "cannot be rendered (UndefinedError)")]
    assert "hush" not in str(logs)


NAMES = ("event", "events", "id", "headline", "error", "severity", "is_trouble", "link", "page", "runbook")
"""What a template sees."""

FOLDER = Path(__file__).parents[3] / "config/templates"


def check_ntfy(body: bytes) -> None:
    """Judge a message: https://docs.ntfy.sh/publish/#limitations and #publish-as-json."""
    message = json.loads(body)
    assert 0 < len(message["message"].encode()) <= 4096
    assert len(message["title"].encode()) <= 1024
    assert sum(len(tag.encode()) for tag in message["tags"]) <= 512
    assert len(body) <= 2 * 4096
    assert message["priority"] in range(1, 6)
    assert message["topic"] == "clerk-watcher"
    assert "markdown" not in message


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
    assert tags.tags <= {"br"}
    assert text
    assert unescape(text).count("&") == text.count("&amp;")


CHECKS: Sequence[tuple[str, Callable[[bytes], None]]] = (
    ("ntfy.json.j2", check_ntfy),
    ("google-chat.json.j2", check_google_chat),
)


def test_every_worked_template_is_tested_and_shown_with_all_it_may_use() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {name for name, _ in CHECKS}
    page = (FOLDER.parents[1] / "docs/receivers/template.md").read_text()
    _, _, shown = (FOLDER / "ntfy.json.j2").read_text().partition("-#}\n")
    assert f"```jinja\n{shown}```" in page
    _, _, section = page.partition("A template sees:\n\n")
    assert re.findall(r"^- `(\w+)`: ", section.partition("\n\n")[0], re.MULTILINE) == list(NAMES)


@pytest.mark.parametrize(("name", "judge"), CHECKS)
def test_its_receiver_takes_every_event_and_group(name: str, judge: Callable[[bytes], None]) -> None:
    source = (FOLDER / name).read_text()
    assert check(source, with_group=True) is None
    everything = [*map(sample, EventType), *map(huge, EventType), *OVERDUE_ENDS, *hostile_failures(7, count=20)]
    for batch in [*([each] for each in everything), everything, [failed(number) for number in range(200)]]:
        (message,) = own(source).messages(batch)
        assert message.content_type == "application/json; charset=utf-8"
        judge(message.body)


def test_what_they_say() -> None:
    batch = [failed(error="can't <b>reach</b> it", link="https://example.com/x")]
    ntfy, chat = (json.loads(own((FOLDER / name).read_text()).messages(batch)[0].body) for name, _ in CHECKS)
    assert ntfy == {
        "topic": "clerk-watcher",
        "title": "✕ Sales agent failed at Greeting",
        "message": "can't <b>reach</b> it",
        "priority": 4,
        "tags": ["rotating_light"],
        "click": "https://example.com/x",
    }
    card = chat["cardsV2"][0]["card"]
    assert card["header"] == {"title": "✕ Sales agent failed at Greeting", "subtitle": "error"}
    text, button = card["sections"][0]["widgets"]
    assert text["textParagraph"]["text"] == "can't &lt;b&gt;reach&lt;/b&gt; it"
    assert button["buttonList"]["buttons"][0]["onClick"]["openLink"]["url"] == "https://example.com/x"
