"""What Alertmanager is told, for how long it holds, and what it is told again and again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from receiver import Receiver, answer, hangs, says
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
from watcher.domain.problems import PROBLEM_KINDS, LatestFailure, Problem, SentOpening
from watcher.domain.timestamps import to_us
from watcher.runtime.http_client import REMEDIES
from watcher.sinks.alertmanager import AlertmanagerTemplate
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext
from watcher.sinks.webhook import WebhookSettings


def clock() -> FakeClock:
    """Return a clock that stands at when the samples were seen."""
    return FakeClock((AT - EPOCH).total_seconds())


def sent(kind: EventType, *, closed_at: datetime | None = None) -> SentOpening:
    """Return the opening of a problem of this kind, as it is refreshed."""
    problem = Problem(UUID(PROBLEM), kind, OPENED_AT, EventKey(b"s", 1))
    return SentOpening(problem, sample(kind).body, closed_at=closed_at)


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


def test_alertmanager_is_told_what_closes_a_problem_while_it_is_open() -> None:
    data = data_of(EventType.PIPELINE_FAILING) | {"closesWhen": "3 in a row succeeded"}
    (opened,) = alertmanager(sample(EventType.PIPELINE_FAILING, data=data))
    assert opened["annotations"]["description"].splitlines()[-1] == "Closes when 3 in a row succeeded"
    data |= {"problem": problem_block(EventType.PIPELINE_FAILING, closed=True)}
    (closed,) = alertmanager(sample(EventType.PROBLEM_CLOSED, data=data))
    assert "Closes when" not in str(closed)


def test_a_refresh_says_the_newest_failure_under_the_same_labels() -> None:
    newest = LatestFailure(to_us(AT), execution_id(28), "Lookup", "upstream returned 404")
    template, failing = AlertmanagerTemplate(clock=clock()), sent(EventType.PIPELINE_FAILING)
    (before,), (after,) = (
        check_alertmanager(template.refreshes([replace(failing, problem=problem)])[0].body)
        for problem in (failing.problem, replace(failing.problem, latest=newest))
    )
    assert after["labels"] == before["labels"]
    assert after["annotations"]["summary"] == "Sales agent keeps failing, last at Lookup"
    assert after["annotations"]["description"] == "upstream returned 404"


def test_what_an_alert_cannot_say_is_no_request() -> None:
    assert AlertmanagerTemplate().messages([sample(EventType.PROBLEM_ACKNOWLEDGED)]) == []


def test_a_sink_that_is_disabled_while_it_fails_is_the_same_alert() -> None:
    data = data_of(EventType.SINK_DISABLED) | {"problem": problem_block(EventType.SINK_FAILING)}
    told = sample(EventType.SINK_DISABLED, data=data)
    (disabled,) = alertmanager(told)
    (again,) = AlertmanagerTemplate(clock=clock()).refreshes([replace(sent(EventType.SINK_FAILING), body=told.body)])
    assert check_alertmanager(again.body)[0]["labels"] == disabled["labels"]
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
        now.elapsed_s = passed_s
        for delivery in [*map(sample, EventType), *OVERDUE_ENDS]:
            for message in template.messages([delivery]):
                check_alertmanager(message.body)


def test_what_is_posted_late_is_still_an_alert_for_a_quarter_of_an_hour() -> None:
    now = clock()
    now.elapsed_s += 3600
    (message,) = AlertmanagerTemplate(clock=now).messages([failed()])
    (alert,) = check_alertmanager(message.body)
    assert alert["endsAt"] == timestamp(AT + timedelta(minutes=75))
    assert ended_after(alert) == timedelta(minutes=75)


@pytest.mark.parametrize("kind", sorted(PROBLEM_KINDS))
def test_a_refresh_is_the_alert_of_the_opening_for_longer_or_until_it_was_closed(kind: EventType) -> None:
    now = clock()
    template = AlertmanagerTemplate(clock=now)
    opened = alertmanager(sample(kind))[0]
    now.elapsed_s += 60
    (message,) = template.refreshes([sent(kind)])
    (refreshed,) = check_alertmanager(message.body)
    assert refreshed == opened | {"endsAt": timestamp(AT + timedelta(minutes=4))}
    (message,) = template.refreshes([sent(kind, closed_at=AT)])
    (closed,) = check_alertmanager(message.body)
    assert closed == opened | {"endsAt": timestamp(AT)}


def test_many_problems_are_refreshed_in_several_requests() -> None:
    messages = AlertmanagerTemplate(clock=clock()).refreshes([sent(EventType.PIPELINE_SILENT)] * 600)
    assert [len(check_alertmanager(message.body)) for message in messages] == [256, 256, 88]


DELIVERED = SendResult(SendOutcome.DELIVERED, "200")
OPEN, OVER = True, False
SILENT, FAILING = "ClerkPipelineSilent", "ClerkPipelineFailing"


class Held:
    """Answers the first request once it is let go, and all others at once."""

    def __init__(self) -> None:
        self.arrived, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        if not self.arrived.is_set():
            self.arrived.set()
            await self.go_on.wait()
        await says(answer(200))(writer)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(says(answer(200))) as receiver:
        yield receiver


@pytest.fixture
async def sink(receiver: Receiver) -> AsyncIterator[Sink]:
    block = {"type": "webhook", "template": "alertmanager", "url": receiver.url, "timeout": "200ms"}
    sink = WebhookSettings.model_validate(block).open(SinkContext(clock()))
    yield sink
    await sink.close()


def said(receiver: Receiver) -> list[list[tuple[str, bool]]]:
    """Return of each request the names of its alerts, and whether each still holds."""
    return [
        [
            (alert["labels"]["alertname"], datetime.fromisoformat(alert["endsAt"]) > AT)
            for alert in check_alertmanager(request.body)
        ]
        for request in receiver.requests
    ]


async def test_an_end_goes_behind_the_refresh_that_is_under_way_and_nothing_else_does(
    receiver: Receiver, sink: Sink
) -> None:
    receiver.reply = held = Held()
    refreshing = asyncio.create_task(sink.refresh([sent(EventType.PIPELINE_FAILING)]))
    await held.arrived.wait()
    ending = [asyncio.create_task(sink.send([sample(EventType.PIPELINE_RECOVERED, number=each)])) for each in (1, 2)]
    for number in range(3):
        assert await sink.send([failed(number)]) == DELIVERED
    held.go_on.set()
    assert await asyncio.gather(refreshing, *ending) == [DELIVERED] * 3
    failures, over = [[("ClerkExecutionFailed", OPEN)]] * 3, [[(FAILING, OVER)]] * 2
    assert said(receiver) == [[(FAILING, OPEN)], *failures, *over]


async def test_an_end_waits_for_a_refresh_that_hangs_no_longer_than_its_timeout(receiver: Receiver, sink: Sink) -> None:
    held = Held()

    async def reply(writer: asyncio.StreamWriter) -> None:
        is_first = not held.arrived.is_set()
        held.arrived.set()
        await (hangs if is_first else says(answer(200)))(writer)

    receiver.reply = reply
    refreshing = asyncio.create_task(sink.refresh([sent(EventType.PIPELINE_FAILING)]))
    await held.arrived.wait()
    assert await sink.send([sample(EventType.PIPELINE_RECOVERED)]) == DELIVERED
    assert await refreshing == SendResult(SendOutcome.RETRY, "timeout", remedy=REMEDIES["timeout"])


def test_each_new_kind_of_error_is_an_alert_of_its_own() -> None:
    kinds = ("2ad8980fe65c6264", "6757ba5bc7ab4c62")
    alerts = []
    for fingerprint in kinds:
        data = data_of(EventType.PIPELINE_NEW_ERROR)
        data["error"] = data["error"] | {"fingerprint": fingerprint}
        alerts += alertmanager(sample(EventType.PIPELINE_NEW_ERROR, data=data))
    assert [each["labels"]["error_kind"] for each in alerts] == list(kinds)
    assert {each["labels"]["alertname"] for each in alerts} == {"ClerkPipelineNewError"}
