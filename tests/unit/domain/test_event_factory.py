"""Whom an event goes to and what number it gets, whoever it is reported of."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from watcher.domain.envelope import Json, new_problem
from watcher.domain.event import AccountTrouble, ClosedReason, EventType, OutboxEntry
from watcher.domain.event_factory import EventFactory, Reported
from watcher.domain.execution import ExecutionRecord
from watcher.domain.problems import LatestFailure, Problem, ProblemChange, SentOpening
from watcher.domain.routing import Route, Router
from watcher.domain.timestamps import to_us
from watcher.domain.transitions import StatusChange
from watcher.domain.watch import Watch

AT = datetime(2026, 11, 24, 10, 0, 1, 800_000, tzinfo=UTC)
WATCH = Watch("default", "p-1", (), labels={"team": "sales"})
ALL = frozenset(EventType)
Make = Callable[[EventFactory], OutboxEntry]
ROUTES = {
    "sales": Route(ALL, {"team": "sales"}, frozenset()),
    "service": Route(ALL, {"team": "service"}, frozenset()),
    "ops": Route(ALL, {}, frozenset()),
}


@pytest.fixture
def events() -> EventFactory:
    return EventFactory(Router(ROUTES))


def execution(events: EventFactory) -> OutboxEntry:
    status_change = StatusChange(EventType.EXECUTION_RUNNING, "running", "running", None, nth=1, sequence=5)
    known = ExecutionRecord("e-1", "p-1")
    return events.execution(status_change, known, watch=WATCH, observed_at=AT, seen_at=to_us(AT))


def gap(events: EventFactory) -> OutboxEntry:
    return events.pipeline(EventType.PIPELINE_GAP, WATCH, {"reason": "deleted"}, None, after=4, at=AT).entry


def pipeline(events: EventFactory) -> OutboxEntry:
    return events.pipeline(EventType.PIPELINE_SILENT, WATCH, {}, None, after=4, at=AT).entry


def degraded(events: EventFactory) -> Reported:
    return events.account("default", AccountTrouble.INVALID, None, cause="500", problem=None, after=4, at=AT)


def account(events: EventFactory) -> OutboxEntry:
    return degraded(events).entry


def sink(events: EventFactory) -> OutboxEntry:
    return of_sink(events, EventType.SINK_FAILING).entry


def of_sink(events: EventFactory, type_: EventType, sink: str = "ops", **more: Any) -> Reported:
    given = {"problem": None, "after": 4, "at": AT} | more
    return events.of_source(type_, f"/sinks/{sink}", {"sink": sink}, without_sink=sink, **given)


def head_of(entry: OutboxEntry) -> tuple[str, str, int, str | None]:
    """Return type, source, sequence and subject of an event."""
    body = json.loads(entry.event.body)
    assert body["sequence"] == f"{entry.event.sequence:010}"
    return body["type"], body["source"], entry.event.sequence, body.get("subject")


@pytest.mark.parametrize(
    ("make", "type_", "sinks"),
    [
        (execution, EventType.EXECUTION_RUNNING, ("sales", "ops")),
        (gap, EventType.PIPELINE_GAP, ("sales", "ops")),
        (pipeline, EventType.PIPELINE_SILENT, ("sales", "ops")),
        (account, EventType.ACCOUNT_DEGRADED, ("sales", "service", "ops")),
        (sink, EventType.SINK_FAILING, ("sales", "service")),
    ],
)
def test_each_is_numbered_and_sent(events: EventFactory, make: Make, type_: EventType, sinks: tuple[str, ...]) -> None:
    outgoing = make(events)
    assert (outgoing.event.type, outgoing.event.sequence, outgoing.sinks) == (type_, 5, sinks)
    assert json.loads(outgoing.event.body)["sequence"] == "0000000005"


def test_an_event_goes_to_whom_the_routes_name_when_it_is_made(events: EventFactory) -> None:
    events.router.routes = {"late": ROUTES["ops"]}
    assert account(events).sinks == ("late",)


def test_all_events_of_a_problem_and_of_the_next_of_its_kind_have_one_ordering_key(events: EventFactory) -> None:
    def of_account(type_: EventType, **more: Any) -> Reported:
        trouble, none = AccountTrouble.INVALID, None
        now, before = (trouble, none) if type_ is EventType.ACCOUNT_DEGRADED else (none, trouble)
        reported = events.account("default", now, before, cause=None, **more)
        event = reported.entry.event
        assert (event.type, json.loads(event.body)["data"]["reason"]) == (type_, trouble)
        return reported

    def told(make: Callable[..., Reported], opening: EventType, closing: EventType, **more: Any) -> list[bytes]:
        """Return the keys of an opening, a reminder, of its being taken, both ways of closing and the next opening."""
        opened = make(opening, problem=None, after=0, at=AT, **more)
        assert opened.problem is not None
        body, problem = opened.entry.event.body, opened.problem.problem
        return [
            opened.entry.event.ordering_key,
            events.reminder(SentOpening(problem, body), sink="ops", after=0, at=AT).event.ordering_key,
            events.acknowledgement(problem, body, by=None, comment=None, until=None, after=0, at=AT).event.ordering_key,
            events.closing(problem, body, reason=ClosedReason.REMOVED, after=0, at=AT).entry.event.ordering_key,
            make(closing, problem=problem, after=1, at=AT, **more).entry.event.ordering_key,
            make(opening, problem=None, after=2, at=AT, **more).entry.event.ordering_key,
        ]

    keys = [
        told(events.pipeline, EventType.PIPELINE_FAILING, EventType.PIPELINE_RECOVERED, watch=WATCH, more={}),
        told(events.pipeline, EventType.PIPELINE_SILENT, EventType.PIPELINE_ACTIVE, watch=WATCH, more={}),
        told(of_account, EventType.ACCOUNT_DEGRADED, EventType.ACCOUNT_RECOVERED),
        told(partial(of_sink, events), EventType.SINK_FAILING, EventType.SINK_RECOVERED),
        told(partial(of_sink, events), EventType.SINK_DISABLED, EventType.SINK_RECOVERED, sink="hook"),
        [execution(events).event.stream, execution(events).event.ordering_key],
        [gap(events).event.ordering_key],
        [gap(events).event.ordering_key],
    ]
    assert [len(set(each)) for each in keys] == [1] * 8
    assert len({each for ordering_key in keys for each in ordering_key}) == 8
    assert (
        of_sink(events, EventType.SINK_DISABLED).entry.event.ordering_key == sink(events).event.ordering_key
    )  # its one problem


def test_what_a_rule_concludes_opens_a_problem_and_its_end_goes_where_that_went(events: EventFactory) -> None:
    opening = events.pipeline(EventType.PIPELINE_FAILING, WATCH, {}, None, after=4, at=AT)
    assert opening.problem is not None
    problem = opening.problem.problem
    assert (opening.problem.is_new, problem.kind, problem.opened_at) == (True, EventType.PIPELINE_FAILING, AT)
    assert problem.opening == (opening.entry.event.stream, 5)
    events.router.routes = {"late": ROUTES["ops"]}
    later = AT + timedelta(seconds=90)
    counted = replace(problem, failed_count=7)
    closing = events.pipeline(EventType.PIPELINE_RECOVERED, WATCH, {}, counted, after=5, at=later)
    assert closing.problem == ProblemChange(counted, closed_at=later)
    assert (closing.entry.sinks, closing.entry.event.closes) == ((), True)
    assert json.loads(closing.entry.event.body)["data"]["problem"] == {
        "id": str(problem.id),
        "kind": "pipeline.failing",
        "severity": "critical",
        "openedAt": "2026-11-24T10:00:01.800Z",
        "closedAt": "2026-11-24T10:01:31.800Z",
        "durationSeconds": 90.0,
        "count": 7,
    }


@pytest.mark.parametrize(
    ("link", "execution", "expected"),
    [
        ("https://h/{pipelineId}", None, "https://h/p-1"),
        ("https://h/{pipelineId}/{executionId}", {"id": "e-1"}, "https://h/p-1/e-1"),
        ("https://h/{pipelineId}/{executionId}", None, None),
    ],
)
def test_a_pipelines_event_leads_to_the_execution_that_it_is_about(
    events: EventFactory, link: str, execution: Json | None, expected: str | None
) -> None:
    said, name = {"execution": execution}, "Sales agent"
    reported = events.pipeline(EventType.PIPELINE_FAILING, WATCH, said, None, name=name, link=link, after=0, at=AT)
    data = json.loads(reported.entry.event.body)["data"]
    assert (data.get("link"), data.get("execution"), data["pipeline"]["name"]) == (expected, execution, "Sales agent")


def test_a_problem_that_nobody_watches_for_ends_with_the_data_of_its_opening(events: EventFactory) -> None:
    opening = degraded(events)
    assert opening.problem is not None
    problem, later = opening.problem.problem, AT + timedelta(hours=1)
    closing = events.closing(problem, opening.entry.event.body, reason=ClosedReason.REMOVED, after=2, at=later)
    envelope = json.loads(closing.entry.event.body)
    assert (closing.entry.sinks, closing.entry.event.closes) == ((), True)
    assert closing.problem == ProblemChange(problem, closed_at=later)
    assert head_of(closing.entry) == ("problem.closed", f"/problems/{problem.id}", 3, None)
    data = envelope["data"]
    assert (data["account"], data["cause"], data["reason"]) == ("default", "500", "removed")
    assert (data["problem"]["closedAt"], data["observed"]) == (envelope["time"], {"at": envelope["time"]})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("dana", "on it\u009b", AT), {"by": "dana", "comment": "on it\u009b", "until": "2026-11-24T10:00:01.800Z"}),
        ((None, None, None), None),
    ],
)
def test_that_somebody_took_a_problem_says_who_and_until_when_with_the_data_of_its_opening(
    events: EventFactory, given: tuple[Any, ...], said: dict[str, str] | None
) -> None:
    opening = sink(events).event
    problem = new_problem(EventType.SINK_FAILING, "/sinks/ops", nth=1, sequence=1, at=AT)
    by, comment, until = given
    entry = events.acknowledgement(problem, opening.body, by=by, comment=comment, until=until, after=1, at=AT)
    body, event = json.loads(entry.event.body), entry.event
    assert head_of(entry) == ("problem.acknowledged", f"/problems/{problem.id}", 2, None)
    assert (entry.sinks, event.problem, event.closes) == ((), problem.id, False)
    assert (body["data"].get("acknowledgement"), body["data"]["sink"]) == (said, "ops")
    assert body["data"]["observed"] == {"at": body["time"]}
    assert "\u009b".encode() not in event.body


NEWEST = {"node": "Lookup", "error": "upstream returned 404"}


def failing(events: EventFactory, **latest: str) -> tuple[bytes, Problem]:
    """Return an opening, and its problem after another failure."""
    more = {"execution": {"id": "e-1", "status": "failed", "error": "upstream timeout"}, "closesWhen": "3 succeeded"}
    opening = events.pipeline(EventType.PIPELINE_FAILING, WATCH, more, None, failed_count=3, after=4, at=AT)
    assert opening.problem is not None
    newest = LatestFailure(to_us(AT + timedelta(hours=1)), "e-28", **latest)
    return opening.entry.event.body, replace(opening.problem.problem, failed_count=28, latest=newest)


def test_what_is_told_of_an_open_problem_has_its_newest_failure_and_its_opening(events: EventFactory) -> None:
    opening, problem = failing(events, **NEWEST)
    sent = SentOpening(problem, opening, last_ended_at=to_us(AT + timedelta(hours=2)))
    acknowledged = events.acknowledgement(problem, opening, by=None, comment=None, until=None, after=0, at=AT)
    closed = events.closing(problem, opening, reason=ClosedReason.REMOVED, after=0, at=AT).entry
    for entry in (events.reminder(sent, sink="ops", after=0, at=AT), acknowledged, closed):
        opened, data = json.loads(opening)["data"], json.loads(entry.event.body)["data"]
        assert data["latest"] == {"at": "2026-11-24T11:00:01.800Z", "execution": "e-28"} | NEWEST
        assert (opened["problem"]["count"], data["problem"]["count"]) == (3, 28)
        assert data.get("lastEndedAt") == ("2026-11-24T12:00:01.800Z" if "reminder" in entry.event.type else None)
        for name in opened.keys() - {"problem", "observed"}:
            assert data[name] == opened[name]


def test_a_reminder_repeats_the_opening_to_one_sink_whatever_the_routes_say(events: EventFactory) -> None:
    reported = degraded(events)
    assert reported.problem is not None
    opening, problem = reported.entry.event.body, reported.problem.problem
    reminder = events.reminder(SentOpening(problem, opening), sink="elsewhere", after=8, at=AT + timedelta(hours=4))
    body, opened = json.loads(reminder.event.body), json.loads(opening)
    assert (reminder.sinks, reminder.event.closes, body["time"]) == (("elsewhere",), False, "2026-11-24T14:00:01.800Z")
    assert head_of(reminder) == ("problem.reminder", "/sinks/elsewhere", 9, None)
    assert body["data"] == opened["data"]
    assert body["id"] != opened["id"]
