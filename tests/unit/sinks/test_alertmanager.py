"""What Alertmanager is told, and for how long it holds."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from receivers_rules import check_alertmanager, ended_after
from sample_events import (
    AT,
    KINDS_OF_CLOSINGS,
    OPENED_AT,
    OVERDUE_ENDS,
    PIPELINE,
    PROBLEM,
    closing_overdue,
    data_of,
    execution_id,
    failed,
    problem_block,
    sample,
)
from worker_rig import EPOCH, FakeClock

from watcher.domain.delivery import Delivery, Part
from watcher.domain.envelope import timestamp
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import PROBLEM_KINDS, Problem, SentOpening
from watcher.sinks.alertmanager import AlertmanagerTemplate


def clock() -> FakeClock:
    """Return a clock that stands at when the samples were seen."""
    return FakeClock((AT - EPOCH).total_seconds())


def alertmanager(*batch: Delivery) -> list[dict[str, Any]]:
    messages = AlertmanagerTemplate(clock=clock()).messages(batch)
    return [alert for message in messages for alert in check_alertmanager(message.body)]


def test_alertmanager_is_told_what_it_is_and_for_how_long() -> None:
    (alert,) = alertmanager(failed(link="https://example.com/runs/1"))
    assert alert == {
        "labels": {
            "alertname": "ClerkExecutionFailed",
            "severity": "error",
            "account": "default",
            "pipeline": PIPELINE,
            "execution": execution_id(),
            "team": "sales",
        },
        "annotations": {
            "summary": "Sales agent failed at Greeting",
            "description": "upstream timeout after 30 s",
            "node": "Greeting",
            "event_id": str(failed().event_id),
        },
        "startsAt": timestamp(AT),
        "endsAt": timestamp(AT + timedelta(minutes=15)),
        "generatorURL": "https://example.com/runs/1",
    }


@pytest.mark.parametrize(("closing", "kind"), KINDS_OF_CLOSINGS.items())
def test_a_closing_ends_the_alert_of_its_opening_at_alertmanager(closing: EventType, kind: EventType) -> None:
    data = data_of(kind)
    opened = alertmanager(sample(kind))[0]
    closed = alertmanager(sample(closing, data=data | {"problem": problem_block(kind, closed=True)}))[0]
    reminded = alertmanager(sample(EventType.PROBLEM_REMINDER, data=data))[0]
    assert opened["labels"] == closed["labels"] == reminded["labels"]
    assert opened["startsAt"] == closed["startsAt"] == timestamp(OPENED_AT)
    assert opened["endsAt"] == reminded["endsAt"] == timestamp(AT + timedelta(minutes=3))
    assert closed["endsAt"] == timestamp(AT)


def test_alertmanager_is_sent_both_where_trouble_ends_a_problem_the_closing_first() -> None:
    overdue = alertmanager(sample(EventType.EXECUTION_OVERDUE))[0]
    closed, lost = alertmanager(closing_overdue(EventType.EXECUTION_LOST))
    assert closed["labels"] == overdue["labels"]
    assert (closed["endsAt"], lost["labels"]["alertname"]) == (timestamp(AT), "ClerkExecutionLost")
    assert closed["annotations"]["summary"] == "Sales agent is no longer overdue, after 41 m"
    assert closed["annotations"].keys() == {"summary", "event_id"}
    assert lost["annotations"]["summary"] == "Sales agent: an execution is lost"
    (only,) = alertmanager(closing_overdue(EventType.EXECUTION_SUCCESS))
    assert only["labels"] == overdue["labels"]
    (only,) = alertmanager(replace(closing_overdue(EventType.EXECUTION_LOST), part=Part.CLOSING))
    assert only["labels"] == overdue["labels"]
    (only,) = alertmanager(replace(closing_overdue(EventType.EXECUTION_LOST), part=Part.NEWS))
    assert only["labels"] == lost["labels"]


def test_what_an_alert_cannot_say_is_no_request() -> None:
    assert AlertmanagerTemplate().messages([sample(EventType.PROBLEM_ACKNOWLEDGED)]) == []


def test_a_sink_that_is_disabled_while_it_fails_is_the_same_alert() -> None:
    data = data_of(EventType.SINK_DISABLED) | {"problem": problem_block(EventType.SINK_FAILING)}
    (disabled,) = alertmanager(sample(EventType.SINK_DISABLED, data=data))
    assert disabled["labels"] == alertmanager(sample(EventType.SINK_FAILING))[0]["labels"]
    assert disabled["annotations"]["summary"] == "Sink ops is disabled (503)"


def test_labels_of_the_user_get_names_that_alertmanager_takes_and_never_ours() -> None:
    labels = {"team.name": "sales", "1st": "x", "größe": "L", "severity": "low", "alertname": "Mine", "empty": ""}
    (alert,) = alertmanager(failed(labels=labels))
    assert alert["labels"] | {"team_name": "sales", "_1st": "x", "gr__e": "L"} == alert["labels"]
    assert (alert["labels"]["severity"], alert["labels"]["alertname"]) == ("error", "ClerkExecutionFailed")
    assert "empty" not in alert["labels"]


def test_no_alert_ends_before_it_starts_however_the_clocks_stand() -> None:
    now = clock()
    template = AlertmanagerTemplate(clock=now)
    for passed_s in (-86_400.0, 0.0, 86_400.0):
        now.passed_s = passed_s
        for delivery in [*map(sample, EventType), *OVERDUE_ENDS]:
            for message in template.messages([delivery]):
                check_alertmanager(message.body)


def test_what_is_posted_late_is_still_an_alert_for_a_quarter_of_an_hour() -> None:
    now = clock()
    now.passed_s += 3600
    (message,) = AlertmanagerTemplate(clock=now).messages([failed()])
    (alert,) = check_alertmanager(message.body)
    assert alert["endsAt"] == timestamp(AT + timedelta(minutes=75))
    assert ended_after(alert) == timedelta(minutes=75)


def problem(kind: EventType) -> Problem:
    return Problem(UUID(PROBLEM), kind, OPENED_AT, EventKey(b"s", 1))


@pytest.mark.parametrize("kind", sorted(PROBLEM_KINDS))
def test_a_refresh_is_the_alert_of_the_opening_for_longer_or_until_it_was_closed(kind: EventType) -> None:
    now = clock()
    template = AlertmanagerTemplate(clock=now)
    opened = alertmanager(sample(kind))[0]
    now.passed_s += 60
    (message,) = template.refreshes([SentOpening(problem(kind), sample(kind).body)])
    (refreshed,) = check_alertmanager(message.body)
    assert refreshed == opened | {"endsAt": timestamp(AT + timedelta(minutes=4))}
    (message,) = template.refreshes([SentOpening(problem(kind), sample(kind).body, closed_at=AT)])
    (closed,) = check_alertmanager(message.body)
    assert closed == opened | {"endsAt": timestamp(AT)}


def test_a_problem_opened_by_an_event_of_an_earlier_version_is_refreshed() -> None:
    data = data_of(EventType.ACCOUNT_DEGRADED)
    del data["problem"]
    sent = SentOpening(problem(EventType.ACCOUNT_DEGRADED), sample(EventType.ACCOUNT_DEGRADED, data=data).body)
    (message,) = AlertmanagerTemplate(clock=clock()).refreshes([sent])
    assert check_alertmanager(message.body)[0]["labels"]["alertname"] == "ClerkAccountDegraded"


def test_many_problems_are_refreshed_in_several_requests() -> None:
    sent = SentOpening(problem(EventType.PIPELINE_SILENT), sample(EventType.PIPELINE_SILENT).body)
    messages = AlertmanagerTemplate(clock=clock()).refreshes([sent] * 600)
    assert [len(check_alertmanager(message.body)) for message in messages] == [256, 256, 88]
