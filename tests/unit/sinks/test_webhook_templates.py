"""Templates, groups and signatures over a real socket, and the settings that choose them."""

import asyncio
import base64
import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import SecretStr, ValidationError
from receiver import Receiver, answer, says, sink_to
from receivers_rules import check_alertmanager, check_pagerduty
from sample_events import OPENED_AT, PROBLEM, closing_overdue, failed, sample
from standardwebhooks import Webhook

from watcher.daemon.from_settings import fingerprint_of_sink
from watcher.domain.envelope import group_id
from watcher.domain.event import EventKey, EventType, Severity
from watcher.domain.problems import PROBLEM_KINDS, Incident, Problem, SentOpening, severity_of
from watcher.domain.routing import Grouped, GroupRules, IncidentRules, types_matching
from watcher.runtime.clock import Clock
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.sinks.template import Template
from watcher.sinks.webhook import PRESETS, WebhookSettings, sign, signing_key

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY = "k" * 32
PAGERDUTY: dict[str, Any] = {"template": "pagerduty", "routing_key": KEY}


def settings(url: str = "https://h.example/x", **more: Any) -> WebhookSettings:
    return WebhookSettings.model_validate({"type": "webhook", "url": url, **more})


async def test_a_batch_is_signed_like_any_request_and_read_by_the_libraries(receiver: Receiver) -> None:
    batch = [failed(number) for number in range(100)]
    async with sink_to(receiver.url, group={}, secret=SECRET, clock=Clock()) as sink:
        assert (await sink.send(batch)).outcome is SendOutcome.DELIVERED
    (request,) = receiver.requests
    Webhook(SECRET).verify(request.body, request.headers)
    assert request.headers["content-type"] == "application/cloudevents-batch+json; charset=utf-8"
    assert UUID(request.headers["webhook-id"]) == group_id(delivery.event_id for delivery in batch)
    events = [JSONFormat().read(CloudEvent, json.dumps(each)) for each in json.loads(request.body)]
    assert [event.get_id() for event in events] == [str(delivery.event_id) for delivery in batch]


def answers_in_turn(receiver: Receiver, *codes: int) -> None:
    left = iter(codes)

    async def reply(writer: asyncio.StreamWriter) -> None:
        await says(answer(next(left)))(writer)

    receiver.reply = reply


async def test_a_delivery_is_settled_once_both_of_its_requests_are_taken(receiver: Receiver) -> None:
    both = replace(closing_overdue(EventType.EXECUTION_FAILED), incident=Incident(UUID(PROBLEM)))
    answers_in_turn(receiver, 202, 202, 202, 500)
    async with sink_to(receiver.url, **PAGERDUTY) as sink:
        assert await sink.send([both]) == SendResult(SendOutcome.ACCEPTED, "202")
        assert await sink.send([both]) == Template().send_result(500, b"")
    actions = [check_pagerduty(request.body)["event_action"] for request in receiver.requests]
    assert actions == ["resolve", "trigger"] * 2


async def test_what_a_test_message_opened_is_closed_though_the_answer_was_lost(receiver: Receiver) -> None:
    answers_in_turn(receiver, 503, 202)
    async with sink_to(receiver.url, **PAGERDUTY) as sink:
        assert await sink.send([sample(EventType.WATCHER_TEST)]) == Template().send_result(503, b"")
    actions = [check_pagerduty(request.body)["event_action"] for request in receiver.requests]
    assert actions == ["trigger", "resolve"]


async def test_an_answer_with_large_headers_is_read(receiver: Receiver) -> None:
    many = {f"X_{number}": "x" for number in range(1500)}
    receiver.reply = says(answer(200, body=b"ok", X_Large="x" * 60_000, **many))
    async with sink_to(receiver.url, template="slack") as sink:
        assert await sink.send([failed()]) == SendResult(SendOutcome.DELIVERED, "200")


async def test_alertmanager_is_refreshed_by_its_url_and_nothing_else_asks_for_that(receiver: Receiver) -> None:
    problem = Problem(UUID(PROBLEM), EventType.PIPELINE_SILENT, OPENED_AT, EventKey(b"s", 1))
    receiver.reply = says(answer(200))
    async with sink_to(receiver.url, template="alertmanager") as sink:
        sent = SentOpening(problem, sample(EventType.PIPELINE_SILENT).body)
        assert sink.refresh_every_s == 60
        assert (await sink.refresh([sent])).outcome is SendOutcome.DELIVERED
        receiver.reply = says(answer(500))
        assert await sink.refresh([sent]) == Template().send_result(500, b"")
    assert receiver.requests[0].line == "POST /api/v2/alerts HTTP/1.1"
    check_alertmanager(receiver.requests[0].body)
    async with sink_to(receiver.url, template="slack") as other:
        assert other.refresh_every_s is None


@pytest.mark.parametrize(
    ("more", "keeps_state"),
    [({"template": "alertmanager"}, True), (PAGERDUTY, True), ({"template": "slack"}, False), ({}, False)],
)
async def test_some_receivers_keep_problems(receiver: Receiver, more: dict[str, Any], *, keeps_state: bool) -> None:
    async with sink_to(receiver.url, **more) as sink:
        assert sink.keeps_state is keeps_state


@pytest.mark.parametrize(
    ("path", "posted_to"),
    [
        ("", "/api/v2/alerts"),
        ("/", "/api/v2/alerts"),
        ("/alertmanager", "/alertmanager/api/v2/alerts"),
        ("/alertmanager/?tenant=a", "/alertmanager/api/v2/alerts?tenant=a"),
        ("/a%2Fb/api/v2/alerts", "/a%2Fb/api/v2/alerts"),
        ("/api/v2/alerts/", "/api/v2/alerts/"),
    ],
)
async def test_alertmanagers_url_may_be_that_of_its_pages(receiver: Receiver, path: str, posted_to: str) -> None:
    async with sink_to(receiver.url + path, template="alertmanager") as sink:
        await sink.send([failed()])
    assert receiver.requests[0].line == f"POST {posted_to} HTTP/1.1"


RATES = {"slack": 1.0, "discord": 0.5, "teams": 1.0, "pagerduty": 2.0, "alertmanager": 100.0}


@pytest.mark.parametrize("template", PRESETS)
def test_a_template_brings_its_receivers_events_and_rate(template: str) -> None:
    key = {"routing_key": KEY} if template == "pagerduty" else {}
    chosen = settings(template=template, **key)
    quiet = {type_ for type_ in types_matching(("execution.*",)) if severity_of(type_) is Severity.INFO}
    wanted = PROBLEM_KINDS if template == "pagerduty" else set(EventType) - quiet
    assert types_matching(chosen.events) == wanted, "ALERT_EVENTS in watcher/sinks/template.py"
    assert chosen.rate_limit == RATES[template], "a row of RATES"
    own = settings(template=template, events=["execution.new"], rate_limit="7/s", **key)
    assert (own.events, own.rate_limit) == (("execution.new",), 7.0)


def test_pagerduty_needs_no_url_and_what_a_template_brings_is_not_written() -> None:
    host = "https://events.pagerduty.com"
    chosen = WebhookSettings.model_validate({"type": "webhook", **PAGERDUTY})
    assert (chosen.target, chosen.url.get_secret_value()) == (host, f"{host}/v2/enqueue")
    eu = host.replace("events.", "events.eu.")
    assert settings(f"{eu}/v2/enqueue", **PAGERDUTY).target == eu
    assert KEY not in repr(chosen)
    assert chosen.model_fields_set == {"type", "template", "routing_key"}
    other = WebhookSettings.model_validate({"type": "webhook", **PAGERDUTY, "routing_key": "l" * 32})
    assert fingerprint_of_sink(chosen) != fingerprint_of_sink(other)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"template": "slack", "routing_key": KEY}, "is of template pagerduty only"),
        ({"routing_key": KEY}, "is of template pagerduty only"),
        (PAGERDUTY | {"routing_key": "k"}, "has 1 characters"),
        (PAGERDUTY | {"group": {"by": ["account", "type"]}}, "type is not for incidents"),
    ],
)
def test_a_routing_key_is_pagerdutys_alone_which_groups_by_no_type(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings(**more)


def together(wait_s: float, *by: str, of: Grouped = Grouped.PROBLEMS) -> GroupRules:
    return GroupRules(by, wait_s, 10_000, of)


TEAM_IN_30_S = {"group": {"by": ["labels.team"], "wait": "30s"}}
SLACK, TEAMS_BY_TEAM = {"template": "slack"}, {"template": "teams", "group": {"by": ["labels.team"], "wait": "5s"}}


@pytest.mark.parametrize(
    ("more", "name", "value"),
    [
        ({}, "group", None),
        ({"group": {}}, "group", GroupRules(("pipeline",), 30.0, 100)),
        ({"group": {"by": ["type", "labels.x"], "max": 5}}, "group", GroupRules(("type", "labels.x"), 30.0, 5)),
        (SLACK | {"group": {"wait": "2m"}}, "group", together(120.0, "pipeline", of=Grouped.WITHOUT_PROBLEMS)),
        ({"group": {}, "template": "alertmanager"}, "group", GroupRules(("pipeline",), 30.0, 256)),
        ({}, "problem_group", None),
        (PAGERDUTY, "problem_group", None),
        ({"template": "alertmanager", "group": {}}, "problem_group", None),
        (SLACK, "problem_group", together(10.0, "account")),
        (SLACK | {"group": {}}, "problem_group", together(30.0, "pipeline")),
        (TEAMS_BY_TEAM, "problem_group", together(5.0, "labels.team")),
        ({"template": "discord", "group": "none"}, "problem_group", None),
        # a chat gets failures of a known problem if it asks for them
        ({}, "covers", False),
        (SLACK, "covers", True),
        (SLACK | {"events": ["execution.*"]}, "covers", True),
        (SLACK | {"events": ["execution.failed", "pipeline.*"]}, "covers", False),
        (PAGERDUTY | {"events": ["execution.*"]}, "covers", False),
        (PAGERDUTY, "incidents", IncidentRules(("pipeline",), 10.0)),
        (PAGERDUTY, "group", None),
        (PAGERDUTY | {"group": {"by": ["account"]}}, "incidents", IncidentRules(("account",), 10.0)),
        (PAGERDUTY | TEAM_IN_30_S, "incidents", IncidentRules(("labels.team",), 30.0)),
        (PAGERDUTY | TEAM_IN_30_S, "group", None),
    ],
)
def test_groups_and_incidents_are_as_the_file_says(more: dict[str, Any], name: str, value: object) -> None:
    assert getattr(settings(**more).rules, name) == value


# events, headers and signatures


def secret(byte_count: int) -> str:
    return f"whsec_{base64.b64encode(bytes(byte_count)).decode()}"


def test_what_is_written_right_is_taken() -> None:
    for glob in ("*", "execution.*", "account.degraded", "*.failing", "execution.[rp]*", *EventType):
        assert settings(events=[glob]).events == (glob,)
    for byte_count in (24, 32, 64):
        assert settings(secret=secret(byte_count)).secret == (SecretStr(secret(byte_count)),)
    for name in ("Authorization", "X-Team", "x_1.2"):
        assert settings(headers={name: "a\tb é"}).headers[name].get_secret_value() == "a\tb é"


GLOBS = ("", "Execution.failed", "executions.*", "failed", "problem.taken")
SECRETS = (
    *("", "whsec_", "whsec_é", secret(23), secret(65), secret(31)[:-1], f"WHSEC_{secret(32)[6:]}"),
    *(secret(32).removeprefix("whsec_"), f"{secret(32)}=", f"{secret(32)} ", f"{secret(32)[:-2]}!="),
    secret(32).replace("A", "-"),
)
HEADERS = (
    *("", "a b", "a:", "é", "a\n", "webhook-id", "Webhook-Signature", "CONTENT-TYPE", "Content-Length"),
    *("user-agent", "Host"),
)


@pytest.mark.parametrize(
    "refused",
    [
        *({"events": [glob]} for glob in GLOBS),
        *({"secret": [text]} for text in SECRETS),
        *({"headers": {name: "x"}} for name in HEADERS),
        *({"headers": {"X-A": value}} for value in ("a\nb", "a\r", "\x00", "\x7f")),
    ],
)
def test_others_are_refused(refused: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**refused)


OTHER = "whsec_" + base64.b64encode(bytes(range(64))).decode()


async def test_a_signature_is_that_of_the_specification_for_each_secret(receiver: Receiver) -> None:
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    signature = sign(
        b'{"test": 2432232314}',
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp="1614265330",
        keys=[signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    async with sink_to(receiver.url, secret=[SECRET, OTHER], clock=Clock()) as sink:
        await sink.send([failed(pipeline={"name": "Größe €"})])
    (request,) = receiver.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    for each in (SECRET, OTHER):
        Webhook(each).verify(request.body, request.headers)
