"""What the other sinks hear of a sink's dead letters, and when."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from worker_rig import BUSY, DELIVERED, EPOCH, FAILED, REFUSED, RULES, Rig, do

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem
from watcher.domain.routing import Route
from watcher.sinks.protocol import SendResult

QUICK = replace(RULES, schedule_s=(0.1,), give_up_after_s=100.0)
LOST = EventType.EXECUTION_LOST
REMEDY = "correct url, or template"
DEADLY = replace(REFUSED, remedy=REMEDY)


@pytest.fixture(autouse=True)
def _dies_within_a_second(rig: Rig) -> None:
    do(rig.restart(rules=QUICK))


async def die(rig: Rig, *streams: str, answer: SendResult = DEADLY, type_: EventType = LOST) -> None:
    """Have the sink refuse an event of each stream until it is a dead letter: five times within a second."""
    await rig.send(*streams, answer=answer, type_=type_)
    await rig.go_for(1)


def reports(rig: Rig) -> list[Mapping[str, Any]]:
    """Return each `delivery.dead` of the sink, the first one first."""
    with closing(sqlite3.connect(rig.path)) as connection:
        rows = connection.execute("SELECT body FROM event WHERE type = 'delivery.dead' ORDER BY id").fetchall()
    events = [json.loads(body) for (body,) in rows]
    return [event for event in events if event.get("source") == f"/sinks/{rig.name}"]


def counts(rig: Rig) -> list[int]:
    return [event["data"]["count"] for event in reports(rig)]


def seconds_between(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    times = (datetime.fromisoformat(event["time"]) for event in (second, first))
    return (next(times) - next(times)).total_seconds()


def test_the_first_dead_letter_is_reported_at_once_with_the_remedy_of_its_last_answer(rig: Rig) -> None:
    do(die(rig, "a"))
    (event,) = reports(rig)
    assert (event["type"], event["source"], event["sequence"]) == ("delivery.dead", "/sinks/ops", "0000000001")
    newest = {"type": "execution.lost", "id": str(UUID(bytes=rig.row("a1")["event_id"])), "answer": "422"}
    said = {"sink": "ops", "count": 1, "newest": newest, "answer": "422", "remedy": REMEDY}
    assert event["data"] == said | {"observed": {"at": event["time"]}}
    assert rig.metrics.registry.get_sample_value("watcher_events_total", {"type": "delivery.dead"}) == 1


def test_those_that_die_later_are_reported_together_a_minute_after_the_first(rig: Rig) -> None:
    do(die(rig, "a"))
    do(rig.go_for(10))
    do(die(rig, "b", "c"))
    do(rig.go_for(10))
    do(die(rig, "d", answer=REFUSED))
    assert counts(rig) == [1]
    do(rig.go_for(180))
    first, second = reports(rig)
    assert (seconds_between(first, second), second["data"]["count"]) == (60.0, 3)
    assert "remedy" not in second["data"]  # nothing is known of the answer to the newest


def test_one_that_dies_after_a_minute_without_is_reported_at_once(rig: Rig) -> None:
    do(die(rig, "a"))
    do(rig.go_for(61))
    do(die(rig, "b"))
    assert counts(rig) == [1, 1]


def test_what_waited_too_long_is_reported_with_the_remedy_of_its_last_answer(rig: Rig) -> None:
    do(rig.restart(rules=replace(QUICK, schedule_s=(90.0,))))
    do(rig.send("a", answer=replace(FAILED, remedy="wait")))
    do(rig.go(89.0))
    do(rig.send("b", answer=replace(FAILED, remedy="wait")))
    rig.clock.elapsed_s += 12.0
    do(rig.worker.flush())
    do(rig.go())
    (event,) = reports(rig)
    assert (event["data"]["newest"]["answer"], event["data"]["remedy"]) == ("500", "wait")


def test_the_remedy_of_a_message_whose_minimal_form_is_next_is_none_of_a_dead_letter(rig: Rig) -> None:
    do(die(rig, "a", answer=replace(REFUSED, remedy="a minimal message is tried next", minimal_left=True)))
    (event,) = reports(rig)
    assert "remedy" not in event["data"]


def test_one_that_was_not_reported_when_the_process_was_killed_is_reported_by_the_next(rig: Rig) -> None:
    rig.store.broken = {"record"}
    do(die(rig, "a"))
    do(rig.kill())
    do(rig.start(rules=QUICK))
    do(rig.go())
    assert counts(rig) == [1]


def test_over_a_restart_nothing_is_reported_twice_or_within_a_minute(rig: Rig) -> None:
    do(die(rig, "a"))
    do(rig.kill())
    do(rig.start(rules=QUICK))
    do(die(rig, "b"))
    do(rig.go_for(120))
    first, second = reports(rig)
    assert seconds_between(first, second) == pytest.approx(60, abs=0.01)
    assert counts(rig) == [1, 1]


def test_what_died_over_an_hour_ago_and_was_never_reported_is_history(rig: Rig) -> None:
    rig.store.broken = {"record"}
    do(die(rig, "a"))
    do(rig.kill())
    rig.clock.elapsed_s += 3600
    do(rig.start(rules=QUICK))
    do(rig.go())
    assert reports(rig) == []


def test_a_dead_letter_that_reports_others_is_not_reported(rig: Rig) -> None:
    do(die(rig, "a", type_=EventType.DELIVERY_DEAD))
    do(rig.go_for(120))
    assert reports(rig) == []
    do(die(rig, "b"))
    assert counts(rig) == [1]


def test_the_store_is_asked_for_dead_letters_at_the_start_and_then_where_something_died(rig: Rig) -> None:
    for _ in range(5):
        do(rig.send("a", answer=DELIVERED))
        do(rig.go_for(120))
    assert rig.store.asked["dead_since"] == 1


def test_two_sinks_that_refuse_all_report_to_each_other_once_a_minute_never_of_reports(rig: Rig) -> None:
    other = Rig(rig.path, name="chat", loop=False)
    other.clock, other.real_store = rig.clock, rig.real_store
    do(other._work(rules=QUICK, fingerprint="as written"))
    rig.sinks = ("ops", "chat")
    route = Route(frozenset({EventType.DELIVERY_DEAD}), {}, frozenset())

    def refuse(_: Delivery) -> SendResult:
        rig.clock.elapsed_s += 0.001  # a request takes time
        return DEADLY

    for each in (rig, other):
        each.sink.answer = refuse
        each.worker._deps.events.router.routes = {"ops": route, "chat": route}
    for second in range(300):
        if second < 200 and second % 10 == 0:
            do(rig.record("a"))
        do(rig.go(1))
        do(other.go())
    for each in (rig, other):
        told = reports(each)
        assert sum(counts(each)) == 20  # of the sink's own dead letters, none of which is a report
        assert min(map(seconds_between, told, told[1:])) >= 60
        sent_reports = [sent.content["data"] for sent in each.sink.sent if sent.type == EventType.DELIVERY_DEAD]
        assert {report["sink"] for report in sent_reports} == {"ops", "chat"} - {each.name}


# A dead letter that is sent again: what of it is sent, once its problem may be over

PROBLEM = Problem(UUID(int=5), EventType.ACCOUNT_DEGRADED, EPOCH, EventKey(b"a", 1))


async def open_until_dead(rig: Rig) -> None:
    """Record an opening that the sink refuses until it is a dead letter."""
    rig.sink.answer = lambda _: REFUSED
    await rig.record("a", type_=EventType.ACCOUNT_DEGRADED, data={"account": "default"}, problem=PROBLEM)
    await rig.go_for(3600)
    assert rig.row("a1")["state"] == "dead"
    rig.sink.answer = lambda _: DELIVERED


async def close(rig: Rig) -> None:
    await rig.record("a", type_=EventType.ACCOUNT_RECOVERED, problem=PROBLEM, closed=True)


@pytest.mark.parametrize("keeps_state", [False, True])
@pytest.mark.parametrize("closed", ["never", "before", "after a kill"])
def test_an_opening_is_replayed_to_a_receiver_that_keeps_state_only_while_its_problem_is_open(
    rig: Rig, closed: str, *, keeps_state: bool
) -> None:
    """A pager was told of a problem that was over, and nothing ever resolved it."""
    rig.sink.keeps_state = keeps_state
    do(open_until_dead(rig))
    if closed == "before":
        do(close(rig))
        assert do(rig.sent_after()) == ["a2"]
    do(rig.replay("a1"))
    if closed == "after a kill":
        do(rig.kill())
        do(rig.start())
        do(close(rig))
    is_over = keeps_state and closed != "never"
    closing = ["a2"] if closed == "after a kill" else []
    assert do(rig.go_for(5)) == ([] if is_over else ["a1"]) + closing
    row = rig.row("a1")
    assert (row["state"], row["answer"]) == (("silenced", "over") if is_over else ("delivered", "204"))


def test_one_that_waits_for_its_next_attempt_while_its_problem_is_closed_is_not_sent_again(rig: Rig) -> None:
    rig.sink.keeps_state = True
    do(open_until_dead(rig))
    do(rig.replay("a1"))
    answers = iter([FAILED])
    rig.sink.answer = lambda _: next(answers, DELIVERED)
    assert do(rig.sent_after()) == ["a1"]
    do(close(rig))
    do(rig.record("b"))
    assert do(rig.go_for(5)) == ["b1", "a2"]
    assert (rig.row("a1")["state"], rig.row("a1")["answer"], rig.counted("silenced")) == ("silenced", "over", 1)


def test_a_closing_does_not_overtake_the_opening_that_is_being_replayed(rig: Rig) -> None:
    rig.sink.keeps_state = True
    do(open_until_dead(rig))
    do(rig.replay("a1"))
    do(rig.worker.tick())
    do(close(rig))
    do(rig.worker.tick())
    assert len(rig.held()) == 1
    assert do(rig.sent_after()) == ["a1", "a2"]


def test_one_that_is_over_takes_no_turn_of_an_open_breaker_and_lets_the_next_go(rig: Rig) -> None:
    rig.sink.keeps_state = True
    do(open_until_dead(rig))
    do(close(rig))
    do(rig.go())
    do(rig.send("v", answer=BUSY))
    do(rig.replay("a1"))
    rig.sink.answer = lambda _: DELIVERED
    do(rig.record("a", type_=EventType.ACCOUNT_DEGRADED, data={"account": "default"}))
    assert sorted(do(rig.go_for(120))) == ["a3", "v1"]
    assert rig.row("a1")["state"] == "silenced"
