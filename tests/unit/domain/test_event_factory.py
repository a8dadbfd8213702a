"""Whom an event goes to and what number it gets, whoever it is reported of."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from watcher.domain.cloudevents import ExecutionEventParams, GapEventParams, ObservedAt
from watcher.domain.event_factory import EventFactory
from watcher.domain.models import AccountTrouble, EventType, ExecutionRecord, GapReason, OutboxEntry, Watch
from watcher.domain.routing import Route, Router
from watcher.domain.transitions import StatusChange

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
    return events.execution(
        ExecutionEventParams(WATCH, status_change, ExecutionRecord("e-1", "p-1"), ObservedAt(AT, None))
    )


def gap(events: EventFactory) -> OutboxEntry:
    return events.gap(GapEventParams(WATCH, GapReason.DELETED), after=4, at=AT)


def account(events: EventFactory) -> OutboxEntry:
    return events.account(
        EventType.ACCOUNT_DEGRADED,
        account="default",
        reason=AccountTrouble.INVALID,
        cause="500",
        problem=None,
        after=4,
        at=AT,
    ).entry


def sink(events: EventFactory) -> OutboxEntry:
    return events.sink(EventType.SINK_FAILING, sink="ops", answer="503", problem=None, after=4, at=AT).entry


@pytest.mark.parametrize(
    ("make", "type_", "sinks"),
    [
        (execution, EventType.EXECUTION_RUNNING, ("sales", "ops")),
        (gap, EventType.PIPELINE_GAP, ("sales", "ops")),
        (account, EventType.ACCOUNT_DEGRADED, ("sales", "service", "ops")),
        (sink, EventType.SINK_FAILING, ("sales", "service")),
    ],
)
def test_each_event_is_numbered_and_routed(
    events: EventFactory, make: Make, type_: EventType, sinks: tuple[str, ...]
) -> None:
    outgoing = make(events)
    assert (outgoing.event.type, outgoing.event.sequence, outgoing.sinks) == (type_, 5, sinks)
    assert json.loads(outgoing.event.body)["sequence"] == "0000000005"


def test_an_event_goes_to_whom_the_routes_name_when_it_is_made(events: EventFactory) -> None:
    events.router.replace({"late": ROUTES["ops"]})
    assert account(events).sinks == ("late",)


@pytest.mark.parametrize("make", [gap, account, sink])
def test_what_has_no_id_for_ever_gets_one_of_the_time_it_was_seen(events: EventFactory, make: Make) -> None:
    id_ = make(events).event.id
    assert (id_.version, id_.int >> 80) == (7, int(AT.timestamp() * 1000))


def test_a_reminder_repeats_the_opening_to_one_sink_whatever_the_routes_say(events: EventFactory) -> None:
    reported = events.account(
        EventType.ACCOUNT_DEGRADED,
        account="default",
        reason=AccountTrouble.INVALID,
        cause="500",
        problem=None,
        after=4,
        at=AT,
    )
    assert reported.problem is not None
    opening, problem = reported.entry.event.body, reported.problem.problem
    reminder = events.reminder(opening, problem, sink="elsewhere", after=8, at=AT + timedelta(hours=4))
    body, opened = json.loads(reminder.event.body), json.loads(opening)
    assert (reminder.sinks, reminder.event.sequence, reminder.with_sinks_of) == (("elsewhere",), 9, None)
    assert (body["type"], body["source"], body["time"]) == (
        "problem.reminder",
        "/sinks/elsewhere",
        "2026-11-24T14:00:01.800Z",
    )
    assert body["data"] == opened["data"]
    assert body["id"] != opened["id"]
