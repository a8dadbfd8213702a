"""What each template makes of events, judged by what its receiver accepts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from receivers_rules import CHECKS, check_slack, texts_of
from sample_events import (
    AT,
    BLANKS,
    OVERDUE_ENDS,
    PIPELINE,
    PROBLEM,
    changed,
    closing_overdue,
    execution_id,
    failed,
    huge,
    sample,
)
from worker_rig import EPOCH, FakeClock

from watcher.domain.delivery import Delivery, Part
from watcher.domain.envelope import encode, group_id
from watcher.domain.event import EventType
from watcher.sinks.alert import Alert, clean
from watcher.sinks.chat import ChatTemplate, notice_of_batch
from watcher.sinks.slack import SlackTemplate
from watcher.sinks.template import BatchTemplate, EventTemplate, Template
from watcher.sinks.webhook import PRESETS

Check = Callable[[bytes], Any]
KEY = "k" * 32
CLOCK = FakeClock((AT - EPOCH).total_seconds())
"""Stands at when the samples were seen."""


OWN_PAGES = f"https://{'w' * 60}.example.com"
CHECKED: Sequence[tuple[Template, Check]] = [
    (PRESETS[name](clock=CLOCK, public_url=OWN_PAGES, routing_key=KEY), check) for name, check in CHECKS.items()
]
GROUPED = [each for name, each in zip(CHECKS, CHECKED, strict=True) if name != "pagerduty"]
"""Those that groups are sent to."""
EVERYTHING = [*map(sample, EventType), *OVERDUE_ENDS]


@pytest.mark.parametrize(("template", "check"), CHECKED, ids=CHECKS)
@pytest.mark.parametrize("delivery", EVERYTHING, ids=lambda delivery: delivery.type)
def test_a_receiver_takes_every_event_also_minimal(template: Template, check: Check, delivery: Delivery) -> None:
    for each in (delivery, replace(delivery, rejections=1)):
        for message in template.messages([each]):
            check(message.body)
            assert message.id == str(delivery.event_id)


@pytest.mark.parametrize(("template", "check"), CHECKED, ids=CHECKS)
@pytest.mark.parametrize("type_", EventType)
def test_a_receiver_takes_the_largest_event(template: Template, check: Check, type_: EventType) -> None:
    for message in template.messages([huge(type_)]):
        check(message.body)
        assert all(
            clean(text.replace("\n", "")) == text.replace("\n", "") for text in texts_of(json.loads(message.body))
        )


@pytest.mark.parametrize(("template", "check"), CHECKED, ids=CHECKS)
@pytest.mark.parametrize("blank", BLANKS)
@pytest.mark.parametrize("count", [1, 2])
def test_no_receiver_is_shown_what_nobody_sees(template: Template, check: Check, blank: str, count: int) -> None:
    nodes = {"error": blank, "failedNodes": [{"id": blank, "name": blank, "error": blank}] * 3}
    batch = [failed(number, pipeline={"name": blank}, execution=nodes) for number in range(count)]
    for message in template.messages(batch):
        check(message.body)
        content = json.loads(message.body)
        if "payload" in content:
            del content["payload"]["custom_details"]  # holds all as the API said it
        texts = [line for text in texts_of(content) for line in text.split("\n")]
        assert any(PIPELINE in text for text in texts)
        assert all(clean(blank).strip() not in text.split() for text in texts)


@pytest.mark.ci
@pytest.mark.parametrize(("template", "check"), GROUPED)
@pytest.mark.parametrize("count", [2, 100, 10_000])
def test_a_receiver_takes_the_largest_group_in_one_request(template: Template, check: Check, count: int) -> None:
    batch = [failed(number) for number in range(min(count, template.group_count))]
    (message,) = template.messages([*batch[1:], sample(EventType.EXECUTION_SUCCESS)])
    check(message.body)


@pytest.mark.parametrize(("template", "check"), GROUPED)
def test_a_receiver_takes_a_group_of_the_largest_and_most_hostile_events(template: Template, check: Check) -> None:
    batch = [huge(EventType.EXECUTION_FAILED, number, link_length=300) for number in range(40)]
    for message in template.messages(batch):
        check(message.body)


@pytest.mark.parametrize(("template", "check"), CHECKED, ids=CHECKS)
@pytest.mark.parametrize("character", ['"', "\\", "*", "`", "漢", "🎉", "x"])
def test_constant_cuts_leave_room_for_whatever_is_written(template: Template, check: Check, character: str) -> None:
    text, link = character * 2000, "https://example.com/".ljust(2048, "x")
    more = {
        "labels": {str(label): text[:256] for label in range(32)},
        "runbook": link[:512],
        "pipeline": {"name": text},
    }
    batch = []
    for number in range(40):
        nodes = [{"name": text[:100], "error": f"{chr(97 + number % 26)}{text}"}] * 20
        block = {"status": text, "id": text, "previousStatus": text, "failedNodes": nodes}
        batch.append(with_data(failed(number), link=link[:300], execution=block, **more))
    for each in (batch, [with_data(batch[0], link=link)]):
        for message in template.messages(each):
            check(message.body)


def with_data(delivery: Delivery, **changes: Any) -> Delivery:
    """Return a delivery with these changes, however large they make it."""
    event = delivery.content
    return replace(delivery, body=encode(event | {"data": changed(event["data"], changes)}))


LINK, RUNBOOK, PUBLIC = "https://example.com/runs/1", "https://wiki.example.com/sales", "https://watcher.example.com"
OF_EXECUTION = f"/executions/default/{PIPELINE}/{execution_id()}"
PAGES = [
    (sample(EventType.PIPELINE_FAILING), f"/problems/{PROBLEM}"),
    (failed(), OF_EXECUTION),
    (replace(closing_overdue(EventType.EXECUTION_LOST), part=Part.NEWS), OF_EXECUTION),
]


@pytest.mark.parametrize(("delivery", "page"), PAGES)
@pytest.mark.parametrize("template", [each for each, _ in CHECKED], ids=CHECKS)
def test_a_message_leads_to_account_page_and_runbook(template: Template, delivery: Delivery, page: str) -> None:
    linked = with_data(delivery, link=LINK, runbook=RUNBOOK)
    shown = " ".join(texts_of([json.loads(message.body) for message in template.messages([linked])]))
    assert all(url in shown for url in (LINK, f"{template.public_url}{page}", RUNBOOK))


def test_a_page_is_of_a_problem_or_execution_whose_name_cannot_lead_elsewhere() -> None:
    alert = Alert.of_delivery(failed(execution={"id": "../../x?y#z"}), PUBLIC)
    assert alert.page == f"{PUBLIC}/executions/default/{PIPELINE}/..%2F..%2Fx%3Fy%23z"
    assert Alert.of_delivery(sample(EventType.PIPELINE_GAP), PUBLIC).links == {}


def test_what_is_posted_and_where_a_group_leads_is_checked_for_each() -> None:
    other = failed(2, pipeline={"id": str(UUID(int=1))})
    for batch, query in (([failed(1), failed(2)], f"?pipeline={PIPELINE}"), ([failed(1), other], "")):
        group = notice_of_batch(batch, PUBLIC)
        assert group.links == {"Details": f"{PUBLIC}/executions{query}"}
        for template in (each for each, _ in CHECKED if isinstance(each, ChatTemplate)):
            (message,) = template.messages(batch)
            assert f"{template.public_url}/executions{query}" in list(texts_of(json.loads(message.body)))
    assert notice_of_batch([failed(1), failed(2)]).links == {}
    batch = [failed(1), failed(2)]
    (message,) = BatchTemplate().messages(batch)
    assert json.loads(message.body) == [json.loads(delivery.body) for delivery in batch]
    assert message.body == b"[%b,%b]" % (batch[0].body, batch[1].body)
    assert UUID(message.id) == group_id([batch[0].event_id, batch[1].event_id])
    (single,) = BatchTemplate().messages(batch[:1])
    assert (json.loads(single.body), single.id != str(batch[0].event_id)) == ([json.loads(batch[0].body)], True)
    (plain,) = EventTemplate().messages(batch[:1])
    assert (plain.body, plain.id) == (batch[0].body, str(batch[0].event_id))
    assert CHECKS.keys() == PRESETS.keys(), "a function, and a row of CHECKS, in tests/receivers_rules.py"


@pytest.mark.parametrize("delivery", [failed(), huge(EventType.EXECUTION_FAILED)])
def test_what_slack_refused_comes_in_one_short_block(delivery: Delivery) -> None:
    (whole,), (minimal,) = (
        SlackTemplate().messages([replace(delivery, rejections=rejections)]) for rejections in (0, 1)
    )
    check_slack(minimal.body)
    assert minimal.id == whole.id
    assert len(minimal.body) < len(whole.body)
    (block,) = json.loads(minimal.body)["blocks"]
    assert len(block["text"]["text"]) < 1000
