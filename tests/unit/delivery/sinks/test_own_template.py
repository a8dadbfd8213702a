import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from receiver import Receiver
from sample_events import failed, sample
from structlog.testing import capture_logs
from worker_rig import FakeClock

from watcher.delivery.sinks.message_log import MessageLog
from watcher.delivery.sinks.own_template import MESSAGE_BYTES, OwnTemplate, check
from watcher.delivery.sinks.protocol import SendOutcome, SinkContext
from watcher.delivery.sinks.signing import sign, signing_key
from watcher.delivery.sinks.template import TemplateFailure
from watcher.delivery.sinks.template_file import TemplateFile
from watcher.delivery.sinks.webhook import WebhookSettings
from watcher.domain.event import EventType
from watcher.domain.event_ids import group_id

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
TIMES = "\N{MULTIPLICATION SIGN}"
TOO_MUCH = "for execution.new: does too much for one message"
FAILS_LATER = '{"text": {{ headline | tojson }}, "n": {{ 1 / (0 if event.data.execution.error == "boom" else 1) }}}'

MISTAKES = [
    ("{{ x", 1, "unexpected end of template, expected 'end of print statement'."),
    ('{"a": 1,\n{% if %}', 2, "Expected an expression, got 'end of statement block'"),
    ("\n\n{{ hedline }}", 3, 'there is no "hedline"'),
    ("{{ now() }}", 1, 'there is no "now"'),
    ("{{ [1] | random }}", 1, "No filter named 'random'."),
    ('{% include "/etc/passwd" %}', 1, "a template is one file: it can include no other"),
    ("{% extends headline %}", 1, "a template is one file: it can include no other"),
    ("{{ " + "(" * 5000, 0, "is nested too deeply"),
    ('{"a":\n{{ event.data.sink | tojson }}}', 2, 'for execution.new: "sink" is absent'),
    ('{"a":\n"{{ event.data.labels.team.name }}"}', 2, 'for execution.new: "name" is absent'),
    ('{"a": "{{ headline }}"}', 0, "for execution.new: renders no JSON: Expecting ',' delimiter in line 1, column 17"),
    ('{"a": NaN}', 0, "for execution.new: renders no JSON"),
    ("5", 0, "for execution.new: renders no JSON object or list"),
    ("[" * 50_000 + "]" * 50_000, 0, "for execution.new: renders no JSON"),
    ("{% if events | length > 1 %}oops{% else %}{}{% endif %}", 0, "for a group: renders no JSON: Expecting value"),
    ("\n{{ 1 / 0 }}", 2, "for execution.new: cannot be rendered (ZeroDivisionError)"),
    ("{{ headline.__class__ }}", 1, "for execution.new: access to attribute '__class__' of 'str' object is unsafe."),
    ("{{ headline.format(1) }}", 1, "for execution.new: access to attribute 'format' of 'str' object is unsafe."),
    ("{{ events.append(1) }}", 1, "for execution.new: access to attribute 'append' of 'list' object is unsafe."),
    ("{{ 9 ** 9 ** 9 }}", 1, "for execution.new: ** is not available"),
    ('{{ "%999999999d" % 1 }}', 1, "for execution.new: % is not available"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", 1, "for execution.new: calls itself without end"),
]

COSTLY = [
    '{{ "x" * 1000000000 }}',
    '{{ 1000000000 * "x" }}',
    "{{ [1] * 1000000000 }}",
    "{% for i in range(1000000000) %}{% endfor %}",
    "{{ range(1000000000000) | sum }}",
    "{% for i in range(99) %}{% for j in range(99) %}{% for k in range(99) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% set l = range(3000) | list %}{% for i in range(3000) %}{% set x = l | sum %}{% endfor %}",
    '{% set n = namespace(x="a") %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}',
    '{% set n = namespace(x="a") %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}',
    '{% set n = namespace(x=["a"]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}',
    '{% set n = namespace(x="aa") %}{% for i in range(99) %}{% set n.x = n.x | replace("a", n.x) %}{% endfor %}',
    '{% set n = namespace(x="aa") %}{% for i in range(99) %}{% set n.x = ["b", "c"] | join(n.x) ~ n.x %}{% endfor %}',
    "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    '{% set t = "a " * 40000 %}{% for i in range(4000) %}{% set x = t.split() %}{% endfor %}',
    "{% set t %}{% for i in range(9000) %}{{ error * 9 }}{% endfor %}{% endset %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
]


TWICE_ITSELF = "{% set n = namespace(x=[1]) %}{% for i in range(39) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
COSTLY += [
    *(
        f"{TWICE_ITSELF}{{{{ {use} }}}}"
        for use in ("n.x", "n.x | string", "n.x | tojson", "n.x == [n.x]", "n.x in [[n.x]]")
    ),
    '{% set n = namespace(x=1) %}{% for i in range(39) %}{% set n.x = {"a": n.x, "b": n.x} %}{% endfor %}{{ n.x }}',
    "{% set n = namespace(x=1) %}{% for i in range(39) %}{% set n.x = (n.x, n.x) %}{% endfor %}{{ {n.x: 1} }}",
    "{% set n = namespace(x=1) %}{% for i in range(39) %}{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}{{ n.x }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1, varargs, varargs) }}{% endif %}{{ varargs }}{% endmacro %}{{ f(39) }}",
]

LONG_BODY = "{% set x = 1 %}" * 2000
COSTLY += [
    '{% set a = "x" * -100000000 %}{% set b = "x" * 100000000 %}',
    "{% for i in range(999) %}" + LONG_BODY + "{% endfor %}",
    "{% for i in range(999) if [" + "not i, " * 1000 + "] %}{% endfor %}",
    "{% macro m() %}" + LONG_BODY + "{% endmacro %}{% for i in range(999) %}{% set x = m() %}{% endfor %}",
    "{% block b %}" + LONG_BODY + "{% endblock %}{% for i in range(999) %}{% set x = self.b() %}{% endfor %}",
    "{% set n = namespace(x=1) %}{% for i in range(4000) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=1) %}{% for i in range(4000) %}{% set n.x = n.x - (0 - n.x) %}{% endfor %}",
    '{% set x = ("f" * 200000) | int(base=16) %}',
    '{% set x = ([1] * 2000) | map(attribute="' + "a." * 9000 + 'a") | list %}',
    "{% set l = [1] * 1200 %}{% set x = ([[l]] * 1500) | map(attribute=0) | sum(start=[]) %}",
    '{% set s = "x" * 150000 %}{% set x = ([[s]] * 800) | map(attribute=0) | sort %}',
    '{% set s = "x" * 200000 %}{% set x = [[s]] | sort(attribute="' + "0," * 5000 + '0") %}',
    '{% set s = "\u00c9" * 150000 %}{% set x = ([1] * 800) | groupby("a", s) %}',
    '{% set s = "ab" * 200000 %}{% set x = s | sort %}',
    '{% set x = ("x" * 400000) | groupby("a", "b") %}',
]

USES = [
    *(
        "event == 1",
        "1 == event",
        "event in [1]",
        "event is eq 1",
        "event | string",
        "event | tojson",
        "event | urlencode",
    ),
    *("[event]", "(event,)", "{1: event}", "dict(a=event)", "d[t]", "l[:]", "l | sort", "l | unique | list"),
    *("events | join", "event ~ 1", "event | escape", 'event | replace("a", "b")'),
]
"""What goes through all of a value."""


@pytest.mark.parametrize("use", USES)
def test_what_is_used_as_a_whole_costs_all_that_it_holds(use: str) -> None:
    values = "{% set d = {1: 2} %}{% set l = [1] * 50 %}{% set t = (" + "1, " * 50 + ") %}"
    failure = check(values + "{% for i in range(400) %}{% set x = " + use + " %}{% endfor %}{}")
    assert failure is not None
    assert failure.reason == TOO_MUCH


def test_nothing_gives_steps_back() -> None:
    failure = check('{% set a = "x" * -100000000 %}{% for i in range(20000) %}{% endfor %}{}')
    assert failure is not None
    assert failure.reason == TOO_MUCH


def test_a_number_may_be_as_large_as_one_with_a_fraction() -> None:
    assert check('{"a": {{ 1e308 | int - 1 + 2 // 3 }}}') is None


def test_a_namespace_shows_nothing_for_it_may_hold_itself_many_times_over() -> None:
    source = "{% set n = 1 %}" + "{% set n = namespace(x=[n, n]) %}" * 39
    assert check(source + '{"a": {{ n | string | tojson }}}') is None


@pytest.mark.parametrize(
    "source",
    [
        '{"a": {{ headline | replace("a", "b", count=1, count=2) | tojson }}}',
        "{% macro m(a, a) %}{% endmacro %}{}",
        "{% macro m(a) %}{% endmacro %}{{ m(a=1, a=2) }}",
        "{% for a in [1] %}" * 25 + "{% endfor %}" * 25,
        "{{ " + "9" * 5000 + " }}",
    ],
)
def test_what_is_a_template_and_no_program_is_a_mistake_like_any_other(source: str) -> None:
    failure = check(source)
    assert failure is not None
    assert failure.reason.startswith("cannot be compiled (")


@pytest.mark.parametrize(("source", "line", "reason"), MISTAKES)
def test_a_mistake_is_found_at_load_with_its_line_and_the_event(source: str, line: int, reason: str) -> None:
    failure = check(source)
    assert failure is not None
    assert failure.reason.startswith(reason)
    assert failure.line == line


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("{{ hedline }}", "what a template sees is in docs/sinks.md"),
        ('{"a": "{{ event.data.sink }}"}', 'write default(""), or ask by if'),
        ('{"a": "{{ headline }}"}', 'put every value in by tojson, such as {"text": {{ headline | tojson }}}'),
        ('{"a": NaN}', 'put every value in by tojson, such as {"text": {{ headline | tojson }}}'),
        (COSTLY[0], "make it shorter: it may take some thousand steps"),
        ("{{ 1 / 0 }}", "correct the template"),
    ],
)
def test_a_mistake_comes_with_what_to_do(source: str, remedy: str) -> None:
    failure = check(source)
    assert failure is not None
    assert failure.remedy == remedy
    with capture_logs() as logs:
        MessageLog(FakeClock(), hidden=()).failed(failed(), failure)
    assert [line["remedy"] for line in logs] == [f"the plain event was sent instead; {remedy}"]


@pytest.mark.parametrize("source", COSTLY)
def test_a_template_that_does_too_much_is_stopped_before_it_does(source: str) -> None:
    began_at = time.process_time()
    failure = check(source)
    assert failure is not None
    assert failure.reason == TOO_MUCH
    assert time.process_time() - began_at < 1.0


def test_a_message_may_not_be_larger_than_receivers_take() -> None:
    source = f'{{"a": "{"x" * MESSAGE_BYTES}"}}'
    assert check(source) == TemplateFailure(0, "for execution.new: renders more than 256 KiB")


def rendered(source: str, *numbers: int, **data: Any) -> Any:
    (message,) = OwnTemplate(source).messages([failed(number, **data) for number in numbers or (1,)])
    assert message.failure is None
    return json.loads(message.body)


def test_what_a_template_sees_of_an_event() -> None:
    names = ("id", "headline", "error", "severity", "is_trouble", "link")
    source = "{" + ", ".join(f'"{name}": {{{{ {name} | tojson }}}}' for name in names) + "}"
    delivery = failed()
    assert rendered(source) == {
        "id": str(delivery.event_id),
        "headline": "✕ Sales agent failed at Greeting",
        "error": "upstream timeout after 30 s",
        "severity": "error",
        "is_trouble": True,
        "link": "",
    }
    assert rendered("{{ [event, events] | tojson }}") == [json.loads(delivery.body), [json.loads(delivery.body)]]


def test_what_a_template_sees_of_a_group() -> None:
    source = '{"t": {{ headline | tojson }}, "e": {{ error | tojson }}, "n": {{ events | length }}, "i": "{{ id }}"}'
    batch = [failed(1), failed(2), sample(EventType.EXECUTION_LOST, number=3)]
    (message,) = OwnTemplate(source).messages(batch)
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
        ('event.data.nothing.at.all | default("none")', "none"),
        ('"yes" if event.data.nothing else "no"', "no"),
        ('"yes" if event.data.reason == "removed" else "no"', "no"),
        ('event.data.nothing | join(", ")', ""),
        ("event.data.labels.items", "a label"),
        ('"<b>&\'é" ~ 1', "<b>&'é1"),
        ('"<" | e ~ "<"', "&lt;<"),
        ('event.data.observed.items() | map("first") | first', "at"),
        ("1.25 | round(1)", 1.2),
        ("range(3) | map('string') | join('-')", "0-1-2"),
        ('"a b" | truncate(2, true, "…", 0)', "a…"),
    ],
)
def test_what_is_absent_is_no_error_in_a_condition_and_json_is_plain(expression: str, value: object) -> None:
    source = f'{{"v": {{{{ ({expression}) | tojson }}}}}}'
    (message,) = OwnTemplate(source).messages([failed(labels={"items": "a label"})])
    assert json.loads(message.body) == {"v": value}
    assert b"\\u" not in message.body


def test_a_text_of_others_is_never_read_as_a_template() -> None:
    assert rendered("[{{ error | tojson }}]", error="{{ 1 / 0 }}{% raw %}") == ["{{ 1 / 0 }}{% raw %}"]


def test_the_same_comes_out_on_every_attempt() -> None:
    batch = [failed(number) for number in range(50)]
    source = "[{% for each in events %}{{ each | tojson }},{% endfor %}{{ headline | tojson }}]"
    first, second = (OwnTemplate(source).messages(batch)[0] for _ in range(2))
    assert (first.body, first.id) == (second.body, second.id)


def test_a_group_of_any_size_is_rendered() -> None:
    numbers = range(5_000)
    source = "[{% for each in events %}{{ each.sequence | int }},{% endfor %}0]"
    assert rendered(source, *numbers) == [*numbers, 0]


def test_jinja2_is_loaded_only_for_a_template_of_ones_own() -> None:
    loading = "import sys, watcher.cli.main, watcher.daemon.app; assert 'jinja2' not in sys.modules"
    subprocess.run([sys.executable, "-c", loading], check=True)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


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
    assert "boom" not in str(lines)
