import json
import subprocess
import sys
from typing import Any

import pytest
from receiver import Receiver
from sample_events import failed, sample
from structlog.testing import capture_logs
from worker_rig import FakeClock

from watcher.domain.envelope import group_id
from watcher.domain.event import EventType
from watcher.sinks.own_template import MESSAGE_BYTES, OwnTemplate, check
from watcher.sinks.protocol import SendOutcome, SinkContext
from watcher.sinks.webhook import TemplateFile, WebhookSettings, sign, signing_key

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
TIMES = "\N{MULTIPLICATION SIGN}"
FAILS_LATER = '{"text": {{ headline | tojson }}, "n": {{ 1 / (0 if event.data.execution.error == "boom" else 1) }}}'

FOR = "for execution.failed: "
ABSENT = 'write default(""), or ask by "is defined"; what a template sees is in docs/sinks.md'
TOJSON = 'put every value in by tojson, such as {"text": {{ headline | tojson }}}'
CORRECT = "correct the template"

MISTAKES = [
    ("{{ x", 1, "unexpected end of template, expected 'end of print statement'.", CORRECT),
    ('{"a": 1,\n{% if %}', 2, "Expected an expression, got 'end of statement block'", CORRECT),
    ("{{ [1] | shuffle }}", 1, "No filter named 'shuffle'.", CORRECT),
    ("\n\n{{ hedline }}", 3, FOR + "UndefinedError: 'hedline' is undefined", ABSENT),
    (
        '{"a":\n{{ event.data.sink | tojson }}}',
        2,
        FOR + "UndefinedError: 'dict object' has no attribute 'sink'",
        ABSENT,
    ),
    (
        '{"a":\n{{ event.data.execution.id | tojson }}}',
        2,
        "for account.degraded: UndefinedError: 'dict object' has no attribute 'execution'",
        ABSENT,
    ),
    ('{"a": "{{ error }}"}', 0, FOR + "renders no JSON: Expecting ',' delimiter: line 1 column 18 (char 17)", TOJSON),
    ("5", 0, FOR + "renders no JSON object or list", TOJSON),
    ("[" * 50_000 + "]" * 50_000, 0, FOR + "RecursionError: ", CORRECT),
    ("{% if events | length > 1 %}oops{% else %}{}{% endif %}", 0, "for a group: renders no JSON: Expecting", TOJSON),
    ("\n{{ 1 / 0 }}", 2, FOR + "ZeroDivisionError: division by zero", CORRECT),
    ("{{ headline.__class__ }}", 1, FOR + "SecurityError: access to attribute '__class__' of 'str'", CORRECT),
    ("{{ events.append(1) }}", 1, FOR + "SecurityError: access to attribute 'append' of 'list' object", CORRECT),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", 1, FOR + "RecursionError: ", CORRECT),
    ('{% include "/etc/passwd" %}', 1, FOR + "TypeError: no loader for this environment specified", CORRECT),
    (f'{{"a": "{"x" * MESSAGE_BYTES}"}}', 0, FOR + "renders more than 256 KiB", TOJSON),
]


@pytest.mark.parametrize(("source", "line", "reason", "remedy"), MISTAKES)
def test_a_mistake_is_found_at_load_with_its_line_the_event_and_what_to_do(
    source: str, line: int, reason: str, remedy: str
) -> None:
    failure = check(source, with_group=True)
    assert failure is not None
    assert failure.reason.startswith(reason)
    assert (failure.line, failure.remedy) == (line, remedy)


def test_a_group_is_tried_only_where_there_are_groups() -> None:
    assert check("{% if events | length > 1 %}oops{% else %}{}{% endif %}", with_group=False) is None


def own(source: str, *, timeout_s: float = 15.0) -> OwnTemplate:
    return OwnTemplate(source, timeout_s=timeout_s)


def rendered(source: str, *numbers: int, **data: Any) -> Any:
    (message,) = own(source).messages([failed(number, **data) for number in numbers or (1,)])
    assert message.content_type is None
    return json.loads(message.body)


def test_what_a_template_sees_of_an_event() -> None:
    names = ("id", "headline", "error", "severity", "is_trouble", "link", "page", "runbook")
    source = "{" + ", ".join(f'"{name}": {{{{ {name} | tojson }}}}' for name in names) + "}"
    delivery = failed()
    assert rendered(source) == {
        "id": str(delivery.event_id),
        "headline": "✕ Sales agent failed at Greeting",
        "error": "upstream timeout after 30 s",
        "severity": "error",
        "is_trouble": True,
        "link": "",
        "page": "",
        "runbook": "",
    }
    template = own("[{{ page | tojson }}, {{ runbook | tojson }}]")
    template.public_url = "https://watcher.example.com"
    (one,), (group,) = (
        template.messages([failed(number, runbook="https://wiki.example.com/x") for number in range(count)])
        for count in (1, 2)
    )
    page, runbook = json.loads(one.body)
    assert page.startswith("https://watcher.example.com/executions/default/")
    assert runbook == "https://wiki.example.com/x"
    assert json.loads(group.body)[0].startswith("https://watcher.example.com/executions?pipeline=")
    assert rendered("{{ [event, events] | tojson }}") == [json.loads(delivery.body), [json.loads(delivery.body)]]


def test_what_a_template_sees_of_a_group() -> None:
    source = '{"t": {{ headline | tojson }}, "e": {{ error | tojson }}, "n": {{ events | length }}, "i": "{{ id }}"}'
    batch = [failed(1), failed(2), sample(EventType.EXECUTION_LOST, number=3)]
    (message,) = own(source).messages(batch)
    seen = json.loads(message.body)
    assert seen["t"].startswith("✕ 2 failed, 1 lost in Sales agent")
    assert seen["e"] == f"2 {TIMES} Greeting: upstream timeout after 30 s\n1 {TIMES} the API does not know it"
    assert (seen["n"], seen["i"]) == (3, message.id)
    assert message.id == str(group_id(delivery.event_id for delivery in batch))
    assert rendered('["{{ event.data.execution.id[-1:] }}"]', 1, 2) == ["2"]


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
    source = f'{{"v": {{{{ ({expression}) | tojson }}}}}}'
    (message,) = own(source).messages([failed()])
    assert json.loads(message.body) == {"v": value}
    assert b"\\u" not in message.body


def test_a_text_of_others_is_never_read_as_a_template() -> None:
    assert rendered("[{{ error | tojson }}]", error="{{ 1 / 0 }}{% raw %}") == ["{{ 1 / 0 }}{% raw %}"]


def test_the_same_comes_out_on_every_attempt() -> None:
    batch = [failed(number) for number in range(50)]
    source = "[{% for each in events %}{{ each | tojson }},{% endfor %}{{ headline | tojson }}]"
    first, second = (own(source).messages(batch)[0] for _ in range(2))
    assert (first.body, first.id) == (second.body, second.id)


def test_a_group_of_any_size_is_rendered() -> None:
    numbers = range(5_000)
    source = "[{% for each in events %}{{ each.sequence | int }},{% endfor %}0]"
    assert rendered(source, *numbers) == [*numbers, 0]


def test_jinja2_is_loaded_only_for_a_template_of_ones_own() -> None:
    loading = "import sys, watcher.cli.main, watcher.daemon.app; assert 'jinja2' not in sys.modules"
    subprocess.run([sys.executable, "-c", loading], check=True)


@pytest.mark.parametrize("count", [1, 3])
async def test_what_cannot_be_rendered_is_sent_as_the_plain_event_loudly_once_an_hour(
    receiver: Receiver, count: int
) -> None:
    clock = FakeClock()
    block = {"type": "webhook", "url": receiver.url, "secret": SECRET, "template": TemplateFile("x.j2", FAILS_LATER)}
    sink = WebhookSettings.model_validate(block).open(SinkContext(clock))
    data = json.loads(failed().body)["data"]["execution"]
    batch = [failed(number, execution=data | {"error": "boom"}) for number in range(count)]
    try:
        with capture_logs() as logs:
            assert (await sink.send([failed()])).outcome is SendOutcome.DELIVERED
            for _ in range(2):
                assert (await sink.send(batch)).outcome is SendOutcome.DELIVERED
            clock.passed_s += 3600.0
            await sink.send(batch)
    finally:
        await sink.close()
    good, *plain = receiver.requests
    assert good.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(good.body) == {"text": "✕ Sales agent failed at Greeting", "n": 1.0}
    bodies = b",".join(each.body for each in batch)
    kind, body = ("cloudevents", bodies) if count == 1 else ("cloudevents-batch", b"[%b]" % bodies)
    for request in plain:
        assert request.headers["content-type"] == f"application/{kind}+json; charset=utf-8"
        assert request.body == body
        assert request.headers["webhook-id"] == plain[0].headers["webhook-id"]
        id_, timestamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        signature = sign(body, message_id=id_, timestamp=timestamp, keys=[signing_key(SECRET)])
        assert request.headers["webhook-signature"] == signature
    lines = [line for line in logs if line["event"] == "template.failed"]
    assert [line["count"] for line in lines] == [1, 2]
    assert lines[0]["log_level"] == "error"
    assert (lines[0]["line"], lines[0]["reason"]) == (1, "cannot be rendered (ZeroDivisionError)")
    assert lines[0]["remedy"] == "the plain event was sent instead; correct the template"
    assert "boom" not in str(lines)


@pytest.mark.parametrize("expression", ['event.data[headline + "hush"]', '{}["hush"]', "headline.hush"])
def test_no_word_of_an_event_is_told_of_why_it_cannot_be_rendered(expression: str) -> None:
    with capture_logs() as logs:
        own("\n{{ " + expression + " }}").messages([failed()])
    assert [(line["line"], line["reason"]) for line in logs] == [(2, "cannot be rendered (UndefinedError)")]
    assert "hush" not in str(logs)


async def test_a_template_that_takes_too_long_is_left_alone_and_the_plain_event_sent() -> None:
    slow = "{% for a in range(3000) %}{% for b in range(3000) %}{% endfor %}{% endfor %}{}"
    with capture_logs() as logs:
        (message,) = await own(slow, timeout_s=0.05).prepare([failed()])
    assert message.body == failed().body
    assert [line["reason"] for line in logs] == ["takes longer than the sink's timeout"]


async def test_a_message_is_made_in_a_thread_of_its_own() -> None:
    (message,) = await own('{"text": {{ headline | tojson }}}').prepare([failed()])
    assert json.loads(message.body) == {"text": "✕ Sales agent failed at Greeting"}
