"""What PagerDuty is sent: triggers, acknowledgements and resolves."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from receivers_rules import check_pagerduty
from sample_events import (
    AT,
    ERROR,
    KINDS_OF_CLOSINGS,
    OPENED_AT,
    PIPELINE,
    PROBLEM,
    closing_overdue,
    execution_id,
    failed,
    sample,
)

from watcher.domain.delivery import Delivery, Part
from watcher.domain.envelope import timestamp
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import PROBLEM_KINDS, Incident, IncidentProblem, LatestFailure, Problem
from watcher.domain.timestamps import to_us
from watcher.sinks.pagerduty import PagerDutyTemplate

KEY = "k" * 32

NOT_ALONE = {EventType.PROBLEM_REMINDER, EventType.PROBLEM_ACKNOWLEDGED, EventType.WATCHER_TEST}
NOT_ALONE |= {EventType.WATCHER_REPORT}  # the configuration lets no pager have one


def pagerduty(*batch: Delivery) -> list[dict[str, Any]]:
    return [check_pagerduty(message.body) for message in PagerDutyTemplate(routing_key=KEY).messages(batch)]


def of_incident(delivery: Delivery, *kinds: EventType, acknowledged: bool = False) -> Delivery:
    """Return a delivery about an incident whose open problems are of these kinds, the newest last."""
    known = [Problem(UUID(int=nth), kind, OPENED_AT, EventKey(b"s", nth)) for nth, kind in enumerate(kinds)]
    problems = [IncidentProblem(each, "default", f"p{each.opening.sequence}", sample(each.kind).body) for each in known]
    until = datetime.max.replace(tzinfo=UTC) if acknowledged else None
    return replace(delivery, incident=Incident(UUID(PROBLEM), problems, until))


@pytest.mark.parametrize(
    ("delivery", "action"),
    [
        *((of_incident(sample(kind), kind), "trigger") for kind in sorted(PROBLEM_KINDS)),
        (of_incident(sample(EventType.PROBLEM_REMINDER), EventType.PIPELINE_FAILING), "trigger"),
        *((of_incident(sample(closing)), "resolve") for closing in KINDS_OF_CLOSINGS),
        (
            of_incident(sample(EventType.PROBLEM_ACKNOWLEDGED), EventType.PIPELINE_FAILING, acknowledged=True),
            "acknowledge",
        ),
    ],
)
def test_an_incident_is_what_its_open_problems_are(delivery: Delivery, action: str) -> None:
    (event,) = pagerduty(delivery)
    assert (event["event_action"], event["dedup_key"]) == (action, PROBLEM)
    assert action != "trigger" or event["payload"]["class"] == delivery.type


def test_a_trigger_says_the_newest_failure_the_worst_ten_and_how_many() -> None:
    delivery = of_incident(sample(EventType.PIPELINE_FAILING), EventType.PIPELINE_FAILING)
    assert delivery.incident is not None
    (known,) = delivery.incident.problems
    latest = LatestFailure(to_us(AT), execution_id(9), "Booking", "no such calendar")
    problem = replace(known.problem, failed_count=28, latest=latest)
    incident = replace(delivery.incident, problems=[known._replace(problem=problem)])
    (event,) = pagerduty(replace(delivery, incident=incident))
    assert event["payload"]["summary"] == "Sales agent keeps failing, last at Booking: no such calendar"
    assert event["payload"]["custom_details"]["problem"]["count"] == 28
    kinds = [EventType.EXECUTION_OVERDUE] * 3 + [EventType.SINK_FAILING] + [EventType.PIPELINE_SILENT] * 2
    (event,) = pagerduty(of_incident(sample(EventType.PIPELINE_SILENT), *kinds))
    assert event["payload"]["summary"] == (
        "1 sink failing, 3 executions overdue, 2 pipelines silent in account default;"
        " newest: Sales agent, nothing has started since 2026-11-24 05:19:31 UTC"
    )
    assert event["payload"]["severity"] == "error"
    counts = {"execution.overdue": 3, "sink.failing": 1, "pipeline.silent": 2}
    assert event["payload"]["custom_details"]["open"] == counts
    assert event["payload"]["custom_details"]["newest"]["pipeline"]["name"] == "Sales agent"
    kinds = [EventType.EXECUTION_OVERDUE] * 12 + [EventType.PIPELINE_FAILING]
    delivery = of_incident(sample(EventType.PIPELINE_FAILING), *kinds)
    template = PagerDutyTemplate(routing_key=KEY, public_url="https://watcher.example.com")
    (event,) = (check_pagerduty(message.body) for message in template.messages([delivery]))
    worst, *others = event["payload"]["custom_details"]["problems"]
    assert len(others) == 9
    assert worst["problem"] == "Sales agent keeps failing"
    assert (worst["severity"], worst["page"]) == ("critical", f"https://watcher.example.com/problems/{UUID(int=12)}")
    assert [each["page"][-2:] for each in others] == [f"0{nth}" for nth in range(9)]  # the oldest first
    all_of_them = {"href": f"https://watcher.example.com/problems?incident={PROBLEM}", "text": "All 13 problems"}
    assert event["links"][0] == all_of_them


@pytest.mark.parametrize("type_", set(EventType) - PROBLEM_KINDS - set(KINDS_OF_CLOSINGS) - NOT_ALONE)
def test_an_event_that_opens_no_problem_triggers_under_its_own_id(type_: EventType) -> None:
    (event,) = pagerduty(sample(type_))
    assert (event["event_action"], event["dedup_key"]) == ("trigger", str(sample(type_).event_id))


ENDS = of_incident(closing_overdue(EventType.EXECUTION_FAILED))
ITS_OWN = str(ENDS.event_id)


@pytest.mark.parametrize(
    ("delivery", "events"),
    [
        (ENDS, [("resolve", PROBLEM), ("trigger", ITS_OWN)]),  # the closing first
        (of_incident(closing_overdue(EventType.EXECUTION_SUCCESS)), [("resolve", PROBLEM)]),
        (replace(ENDS, part=Part.CLOSING), [("resolve", PROBLEM)]),
        (replace(ENDS, part=Part.NEWS, incident=None), [("trigger", ITS_OWN)]),  # its opening was not sent
    ],
)
def test_where_trouble_ends_a_problem_pagerduty_is_sent_both(delivery: Delivery, events: list[tuple[str, str]]) -> None:
    sent = pagerduty(delivery)
    assert [(event["event_action"], event["dedup_key"]) for event in sent] == events
    if sent[-1]["event_action"] == "trigger":
        assert sent[-1]["payload"]["summary"] == f"Sales agent failed at Greeting: {ERROR}"
        assert "problem" not in sent[-1]["payload"]["custom_details"]


def test_a_test_message_is_resolved_at_once_and_a_trigger_has_all_that_is_known() -> None:
    trigger, resolve = pagerduty(sample(EventType.WATCHER_TEST))
    assert (trigger["event_action"], resolve["event_action"]) == ("trigger", "resolve")
    assert trigger["dedup_key"] == resolve["dedup_key"] == str(sample(EventType.WATCHER_TEST).event_id)
    (event,) = pagerduty(failed(link="https://example.com/runs/1"))
    assert event["links"] == [{"href": "https://example.com/runs/1", "text": "Open"}]
    assert event["client"] == "clerk-watcher"
    assert event["payload"] == {
        "summary": f"Sales agent failed at Greeting: {ERROR}",
        "source": f"default/{PIPELINE}",
        "severity": "error",
        "timestamp": timestamp(AT),
        "component": "Greeting",
        "group": "Sales agent",
        "class": "execution.failed",
        "custom_details": json.loads(failed(link="https://example.com/runs/1").body)["data"],
    }
