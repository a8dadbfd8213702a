"""What Alertmanager is told, for how long it holds, and what it is told again and again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from receiver import Receiver, answer, says, sink_to
from receivers_rules import check_alertmanager, ended_after
from sample_events import (
    AT,
    ERROR,
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
from watcher.sinks.protocol import SendOutcome, SendResult, Sink


def clock() -> FakeClock:
    """Return a clock that stands at when the samples were seen."""
    return FakeClock((AT - EPOCH).total_seconds())


def sent(kind: EventType, *, closed_at: datetime | None = None) -> SentOpening:
    """Return the opening of a problem of this kind, as it is refreshed."""
    problem = Problem(UUID(PROBLEM), kind, OPENED_AT, EventKey(b"s", 1))
    return SentOpening(problem, sample(kind).body, closed_at=closed_at)


def alertmanager(*batch: Delivery, at: FakeClock | None = None) -> list[dict[str, Any]]:
    messages = AlertmanagerTemplate(clock=at or clock()).messages(batch)
    return [alert for message in messages for alert in check_alertmanager(message.body)]


def refreshed(*openings: SentOpening, at: FakeClock | None = None) -> list[list[dict[str, Any]]]:
    """Return the alerts of each request of a refresh."""
    messages = AlertmanagerTemplate(clock=at or clock()).refreshes(openings)
    return [check_alertmanager(message.body) for message in messages]


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
            "description": ERROR,
            "node": "Greeting",
            "event_id": str(failed().event_id),
        },
        "startsAt": timestamp(AT),
        "endsAt": timestamp(AT + timedelta(minutes=15)),
        "generatorURL": "https://example.com/runs/1",
    }


@pytest.mark.parametrize(("closing", "kind"), KINDS_OF_CLOSINGS.items())
def test_a_closing_ends_the_alert_of_its_opening_at_alertmanager(closing: EventType, kind: EventType) -> None:
    closing_of_it = sample(closing, data=data_of(kind), problem=problem_block(kind, closed=True))
    reminder = sample(EventType.PROBLEM_REMINDER, data=data_of(kind))
    (opened,), (closed,), (reminded,) = map(alertmanager, (sample(kind), closing_of_it, reminder))
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
    for delivery, its in (
        (closing_overdue(EventType.EXECUTION_SUCCESS), overdue),
        (replace(closing_overdue(EventType.EXECUTION_LOST), part=Part.CLOSING), overdue),
        (replace(closing_overdue(EventType.EXECUTION_LOST), part=Part.NEWS), lost),
    ):
        (only,) = alertmanager(delivery)
        assert only["labels"] == its["labels"]


def test_what_closes_a_problem_and_its_newest_failure_are_said() -> None:
    data = data_of(EventType.PIPELINE_FAILING) | {"closesWhen": "3 in a row succeeded"}
    (opened,) = alertmanager(sample(EventType.PIPELINE_FAILING, data=data))
    assert opened["annotations"]["description"].splitlines()[-1] == "Closes when 3 in a row succeeded"
    closed = problem_block(EventType.PIPELINE_FAILING, closed=True)
    assert "Closes when" not in str(alertmanager(sample(EventType.PROBLEM_CLOSED, data=data, problem=closed)))
    newest = LatestFailure(to_us(AT), execution_id(28), "Lookup", "upstream returned 404")
    failing = sent(EventType.PIPELINE_FAILING)
    ((before, after),) = refreshed(failing, replace(failing, problem=replace(failing.problem, latest=newest)))
    assert after["labels"] == before["labels"]
    assert after["annotations"]["summary"] == "Sales agent keeps failing, last at Lookup"
    assert after["annotations"]["description"] == "upstream returned 404"


@pytest.mark.parametrize("passed_s", [-86_400.0, 0.0, 86_400.0])
def test_no_alert_ends_before_it_starts_however_the_clocks_stand(passed_s: float) -> None:
    for delivery in [*map(sample, EventType), *OVERDUE_ENDS]:
        alertmanager(delivery, at=FakeClock(passed_s))  # is checked


def test_a_sink_that_is_disabled_is_the_same_alert_and_a_late_one_still_holds() -> None:
    told = sample(EventType.SINK_DISABLED, problem=problem_block(EventType.SINK_FAILING))
    (disabled,) = alertmanager(told)
    ((again,),) = refreshed(replace(sent(EventType.SINK_FAILING), body=told.body))
    assert again["labels"] == disabled["labels"] == alertmanager(sample(EventType.SINK_FAILING))[0]["labels"]
    assert disabled["annotations"]["summary"] == "Sink ops is disabled (503)"
    now = clock()
    now.elapsed_s += 3600
    (alert,) = alertmanager(failed(), at=now)
    assert alert["endsAt"] == timestamp(AT + timedelta(minutes=75))
    assert ended_after(alert) == timedelta(minutes=75)


@pytest.mark.parametrize("kind", sorted(PROBLEM_KINDS))
def test_a_refresh_is_the_alert_of_the_opening_for_longer_or_until_it_was_closed(kind: EventType) -> None:
    (opened,), now = alertmanager(sample(kind)), clock()
    now.elapsed_s += 60
    ((is_open, is_closed),) = refreshed(sent(kind), sent(kind, closed_at=AT), at=now)
    assert is_open == opened | {"endsAt": timestamp(AT + timedelta(minutes=4))}
    assert is_closed == opened | {"endsAt": timestamp(AT)}


def test_what_cannot_be_said_is_no_request_and_much_is_several() -> None:
    assert AlertmanagerTemplate().messages([sample(EventType.PROBLEM_ACKNOWLEDGED)]) == []
    assert [len(alerts) for alerts in refreshed(*[sent(EventType.PIPELINE_SILENT)] * 600)] == [256, 256, 88]


def test_labels_are_those_that_it_takes_and_each_new_error_is_an_alert() -> None:
    labels = {"team.name": "sales", "1st": "x", "größe": "L", "severity": "low", "alertname": "Mine", "empty": ""}
    (alert,) = alertmanager(failed(labels=labels))
    assert alert["labels"] | {"team_name": "sales", "_1st": "x", "gr__e": "L"} == alert["labels"]
    assert (alert["labels"]["severity"], alert["labels"]["alertname"]) == ("error", "ClerkExecutionFailed")
    assert "empty" not in alert["labels"]
    for kind in ("2ad8980fe65c6264", "6757ba5bc7ab4c62"):
        (alert,) = alertmanager(sample(EventType.PIPELINE_NEW_ERROR, error={"fingerprint": kind}))
        labels = alert["labels"]
        assert (labels["alertname"], labels["error_kind"]) == ("ClerkPipelineNewError", kind)


DELIVERED = SendResult(SendOutcome.DELIVERED, "200")
OPEN, OVER = True, False
FAILING = "ClerkPipelineFailing"


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
async def sink(receiver: Receiver) -> AsyncIterator[Sink]:
    receiver.reply = Held()
    async with sink_to(receiver.url, template="alertmanager", timeout="200ms", clock=clock()) as sink:
        yield sink


def said(receiver: Receiver) -> list[list[tuple[str, bool]]]:
    """Return of each request the names of its alerts, and whether each still holds."""
    return [
        [
            (alert["labels"]["alertname"], datetime.fromisoformat(alert["endsAt"]) > AT)
            for alert in check_alertmanager(request.body)
        ]
        for request in receiver.requests
    ]


async def refreshing(receiver: Receiver, sink: Sink) -> asyncio.Task[SendResult]:
    """Begin a refresh, and return once its request has arrived."""
    refreshing = asyncio.create_task(sink.refresh([sent(EventType.PIPELINE_FAILING)]))
    assert isinstance(receiver.reply, Held)
    await receiver.reply.arrived.wait()
    return refreshing


async def test_an_end_alone_goes_behind_the_refresh_that_is_under_way(receiver: Receiver, sink: Sink) -> None:
    refresh = await refreshing(receiver, sink)
    ending = [asyncio.create_task(sink.send([sample(EventType.PIPELINE_RECOVERED, number=each)])) for each in (1, 2)]
    for number in range(3):
        assert await sink.send([failed(number)]) == DELIVERED
    assert isinstance(receiver.reply, Held)
    receiver.reply.go_on.set()
    assert await asyncio.gather(refresh, *ending) == [DELIVERED] * 3
    failures, over = [[("ClerkExecutionFailed", OPEN)]] * 3, [[(FAILING, OVER)]] * 2
    assert said(receiver) == [[(FAILING, OPEN)], *failures, *over]


async def test_an_end_waits_for_a_refresh_that_hangs_no_longer_than_its_timeout(receiver: Receiver, sink: Sink) -> None:
    refresh = await refreshing(receiver, sink)
    assert await sink.send([sample(EventType.PIPELINE_RECOVERED)]) == DELIVERED
    assert await refresh == SendResult(SendOutcome.RETRY, "timeout", remedy=REMEDIES["timeout"])
