"""What PagerDuty is sent: triggers and resolves."""

import json
from dataclasses import replace
from typing import Any

import pytest
from receivers_rules import check_pagerduty
from sample_events import (
    AT,
    KINDS_OF_CLOSINGS,
    PIPELINE,
    PROBLEM,
    closing_overdue,
    failed,
    sample,
)

from watcher.domain.delivery import Delivery, Part
from watcher.domain.envelope import timestamp
from watcher.domain.event import EventType
from watcher.domain.problems import PROBLEM_KINDS
from watcher.sinks.pagerduty import PagerDutyTemplate

KEY = "k" * 32


def pagerduty(*batch: Delivery) -> list[dict[str, Any]]:
    return [check_pagerduty(message.body) for message in PagerDutyTemplate(routing_key=KEY).messages(batch)]


@pytest.mark.parametrize("type_", set(EventType) - {EventType.WATCHER_TEST})
def test_pagerduty_triggers_acknowledges_and_resolves_under_the_problems_key(type_: EventType) -> None:
    (event,) = pagerduty(sample(type_))
    told = {EventType.PROBLEM_REMINDER, EventType.PROBLEM_ACKNOWLEDGED}
    has_problem = type_ in {*PROBLEM_KINDS, *KINDS_OF_CLOSINGS, *told}
    assert event["dedup_key"] == (PROBLEM if has_problem else str(sample(type_).event_id))
    actions = {**dict.fromkeys(KINDS_OF_CLOSINGS, "resolve"), EventType.PROBLEM_ACKNOWLEDGED: "acknowledge"}
    assert event["event_action"] == actions.get(type_, "trigger")


def test_a_test_message_is_triggered_and_resolved_at_once() -> None:
    trigger, resolve = pagerduty(sample(EventType.WATCHER_TEST))
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolve["dedup_key"] == str(sample(EventType.WATCHER_TEST).event_id)


def test_pagerduty_is_sent_both_where_trouble_ends_a_problem_the_closing_first() -> None:
    resolve, trigger = pagerduty(closing_overdue(EventType.EXECUTION_FAILED))
    assert (resolve["event_action"], resolve["dedup_key"]) == ("resolve", PROBLEM)
    assert trigger["event_action"] == "trigger"
    assert trigger["dedup_key"] == str(closing_overdue(EventType.EXECUTION_FAILED).event_id)
    (only,) = pagerduty(closing_overdue(EventType.EXECUTION_SUCCESS))
    assert only["event_action"] == "resolve"
    (only,) = pagerduty(replace(closing_overdue(EventType.EXECUTION_FAILED), part=Part.CLOSING))
    assert only["event_action"] == "resolve"


def test_of_a_problem_whose_opening_was_not_sent_nothing_is_resolved() -> None:
    delivery = replace(closing_overdue(EventType.EXECUTION_FAILED), part=Part.NEWS)
    (only,) = pagerduty(delivery)
    assert (only["event_action"], only["dedup_key"]) == ("trigger", str(delivery.event_id))
    assert only["payload"]["summary"] == "Sales agent failed at Greeting: upstream timeout after 30 s"
    assert "problem" not in only["payload"]["custom_details"]


def test_pagerduty_gets_all_that_is_known() -> None:
    (event,) = pagerduty(failed(link="https://example.com/runs/1"))
    assert event["links"] == [{"href": "https://example.com/runs/1", "text": "Open"}]
    assert event["client"] == "clerk-watcher"
    assert event["payload"] == {
        "summary": "Sales agent failed at Greeting: upstream timeout after 30 s",
        "source": f"default/{PIPELINE}",
        "severity": "error",
        "timestamp": timestamp(AT),
        "component": "Greeting",
        "group": "Sales agent",
        "class": "execution.failed",
        "custom_details": json.loads(failed(link="https://example.com/runs/1").body)["data"],
    }
