"""What a sink is told beside its deliveries: reminders, and refreshes of a receiver that has its problems in memory."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from stores import operator_of
from structlog.testing import capture_logs
from worker_rig import BUSY, DELIVERED, EPOCH, FAILED, GONE, RULES, Rig

from watcher.domain.errors import LeaseExpiredError
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem, ProblemChange, SentOpening
from watcher.sinks.protocol import SendResult
from watcher.store.changes import SourceChange

REMINDED = replace(RULES, remind_every_s=3600.0)
PROBLEM = Problem(UUID(int=5), EventType.PIPELINE_FAILING, EPOCH, EventKey(b"a", 1))
DATA = {"account": "default", "pipeline": {"id": "p"}, "labels": {"team": "sales"}}


@pytest.fixture
def rig(looped: Rig) -> Rig:
    return looped


@pytest.fixture(autouse=True)
async def _reminded(rig: Rig) -> None:
    await rig.restart(rules=REMINDED)


async def open_problem(rig: Rig) -> None:
    await rig.send("a", type_=EventType.PIPELINE_FAILING, data=DATA, problem=PROBLEM)


async def close_problem(rig: Rig) -> None:
    await rig.send("a", type_=EventType.PIPELINE_RECOVERED, data=DATA, problem=PROBLEM, closed=True)


def reminders(rig: Rig) -> list[dict[str, Any]]:
    """Return the reminders that were sent since the last call."""
    sent = [json.loads(each.body) for each in rig.sink.sent if each.type == EventType.PROBLEM_REMINDER]
    rig.sink.sent.clear()
    return sent


async def pass_hours(rig: Rig, hours: int) -> list[int]:
    """Return how many reminders came in each hour."""
    counts = []
    for _ in range(hours):
        for _ in range(12):
            await rig.go(300)
        counts.append(len(reminders(rig)))
    return counts


async def test_an_open_problem_is_reminded_of_every_so_often(rig: Rig) -> None:
    await open_problem(rig)
    assert await pass_hours(rig, 4) == [1, 1, 1, 1]
    await close_problem(rig)
    assert await pass_hours(rig, 2) == [0, 0]


async def test_of_what_somebody_took_nobody_is_reminded_until_the_time_they_said_or_they_give_it_back(rig: Rig) -> None:
    await open_problem(rig)
    operator = operator_of(rig.real_store)
    until = rig.clock.now() + timedelta(hours=2, minutes=30)
    assert await operator.acknowledge(PROBLEM.id, by=None, comment=None, until=until)
    assert await pass_hours(rig, 4) == [0, 0, 2, 1]  # of what was due meanwhile once, at its end
    await operator.acknowledge(PROBLEM.id, by=None, comment=None, until=None)
    assert await pass_hours(rig, 2) == [0, 0]
    await operator.unacknowledge(PROBLEM.id)
    assert await pass_hours(rig, 2) == [2, 1]


async def test_a_reminder_that_waits_when_somebody_takes_the_problem_is_not_sent(rig: Rig) -> None:
    await open_problem(rig)
    rig.sink.answer = lambda _: BUSY
    await rig.go(3600)
    assert len(reminders(rig)) == 1
    await operator_of(rig.real_store).acknowledge(PROBLEM.id, by=None, comment=None, until=None)
    rig.sink.answer = lambda _: DELIVERED
    await rig.go(61)
    assert [each.type for each in rig.sink.sent] == [EventType.PROBLEM_ACKNOWLEDGED]


async def test_a_reminder_is_an_event_of_the_sink_and_says_what_the_opening_said(rig: Rig) -> None:
    await open_problem(rig)
    counted = ProblemChange(replace(PROBLEM, failed_count=7))
    before = rig._change_counts[None]
    await rig.real_store.record(SourceChange(rig._account, before, before, None, (), (counted,)))
    await rig.go(3600)
    (event,) = reminders(rig)
    assert (event["source"], event["type"], event["sequence"]) == ("/sinks/ops", "problem.reminder", "0000000001")
    assert "subject" not in event
    problem = event["data"].pop("problem")
    assert event["data"] == DATA
    assert (problem["id"], problem["count"], problem["openedAt"]) == (str(PROBLEM.id), 7, "2026-11-24T10:00:00.000Z")
    sample = {"type": "problem.reminder"}
    assert rig.metrics.registry.get_sample_value("watcher_events_total", sample) == 1


async def reminded_at(rig: Rig, *, count: int) -> list[float]:
    """Return when so many reminders came, if the worker is called when it asks to be."""
    at: list[float] = []
    rest_s = await rig.go()
    while len(at) < count:
        rest_s = await rig.go(rest_s)
        at += [rig.clock.elapsed_s] * len(reminders(rig))
    return at


async def test_reminders_that_are_due_one_after_the_other_come_soon_and_do_not_keep_the_store_busy(rig: Rig) -> None:
    for number in range(20):
        problem = replace(PROBLEM, id=UUID(int=number), opening=EventKey(str(number).encode(), 1))
        rig.clock.elapsed_s += 0.01
        await rig.record(str(number), type_=EventType.PIPELINE_FAILING, data=DATA, problem=problem)
    opened_at = rig.clock.elapsed_s
    await rig.go()
    await rig.go(3590)
    before = rig.store.asked["sent_openings"]
    at = await reminded_at(rig, count=20)
    assert max(at) < opened_at + 3600 + 1
    assert rig.store.asked["sent_openings"] - before <= 3


async def test_many_reminders_at_once_take_several_ticks(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.delivery.open_problems.REMINDED_COUNT", count := 5)
    for number in range(count + 1):
        problem = replace(PROBLEM, id=UUID(int=number), opening=EventKey(f"{number:03}".encode(), 1))
        await rig.send(f"{number:03}", type_=EventType.PIPELINE_FAILING, data=DATA, problem=problem)
    rig.clock.elapsed_s += 3600
    before = rig.store.asked["record"]
    assert await rig.worker.tick() == 0.0
    assert rig.store.asked["record"] - before == count
    await rig.worker.tick()
    assert rig.store.asked["record"] - before == count + 1


async def test_a_downtime_is_followed_by_one_reminder_and_the_next_keep_their_times(rig: Rig) -> None:
    await open_problem(rig)
    await rig.stop()
    rig.clock.elapsed_s += 3.5 * 3600
    await rig.start(rules=REMINDED)
    await rig.go()
    assert len(reminders(rig)) == 1
    await rig.go(1790)
    assert len(reminders(rig)) == 0
    await rig.go(40)
    assert len(reminders(rig)) == 1


async def test_a_sink_in_trouble_does_not_pile_up_reminders(rig: Rig) -> None:
    await open_problem(rig)
    rig.sink.answer = lambda _: FAILED
    await rig.record("b")
    assert await pass_hours(rig, 5) == [0, 0, 0, 0, 0]
    assert rig.sink_state() == "failing"
    rig.sink.answer = lambda _: DELIVERED
    assert await pass_hours(rig, 2) == [2, 1]  # the last that is late, and then at their times


async def test_a_reminder_that_is_still_on_its_way_when_its_problem_is_closed_is_not_sent_any_more(rig: Rig) -> None:
    await open_problem(rig)
    await rig.go()
    rig.sink.answer = lambda _: FAILED
    await rig.go(3600)
    assert len(reminders(rig)) == 1
    await close_problem(rig)
    rig.sink.answer = lambda _: DELIVERED
    sent = [name for _ in range(10) for name in await rig.sent_after(60)]
    assert (sent, rig.counted("silenced")) == (["a2"], 1)


async def test_a_reminder_that_could_not_be_recorded_comes_later_and_once(rig: Rig) -> None:
    await open_problem(rig)
    rig.store.broken = {"record"}
    await rig.go(3600)
    assert reminders(rig) == []
    rig.store.broken = set()
    await rig.go(60)
    await rig.go(60)
    assert len(reminders(rig)) == 1


async def refreshed(rig: Rig, after_s: float = 0.0) -> list[Sequence[SentOpening]]:
    """Return what the receiver is told again if so much time passes."""
    rig.sink.told.clear()
    await rig.go(after_s)
    await finish_refresh(rig)
    return list(rig.sink.told)


async def finish_refresh(rig: Rig) -> None:
    if (task := rig.worker._problems._refreshing) is not None:
        await asyncio.wait([task])


def refreshes(rig: Rig, outcome: str) -> float | None:
    labels = {"sink": "ops", "outcome": outcome}
    return rig.metrics.registry.get_sample_value("watcher_alertmanager_refreshes_total", labels)


async def test_refreshes_are_counted_from_0_at_a_sink_that_asks_for_them(rig: Rig) -> None:
    assert refreshes(rig, "ok") is None
    rig.sink.refresh_every_s = 60.0
    await rig.restart()
    assert (refreshes(rig, "ok"), refreshes(rig, "failed")) == (0, 0)


@pytest.fixture
async def forgetful(rig: Rig) -> Rig:
    """A receiver that has what it is told in memory only, such as a problem that is open."""
    rig.sink.refresh_every_s = 60.0
    await rig.restart()
    await open_problem(rig)
    await finish_refresh(rig)
    return rig


async def test_a_forgetful_receiver_is_told_again_every_minute(forgetful: Rig) -> None:
    at_first = refreshes(forgetful, "ok") or 0.0  # the first may be soon enough to know of it
    ((problem,),) = await refreshed(forgetful, 60)
    assert (problem.problem, problem.closed_at) == (PROBLEM, None)
    assert json.loads(problem.body)["data"] == DATA | {"problem": {"id": str(PROBLEM.id)}}
    assert await refreshed(forgetful, 59) == []
    assert len(await refreshed(forgetful, 1)) == 1
    assert refreshes(forgetful, "ok") == at_first + 2


async def test_what_is_closed_is_told_for_a_quarter_of_an_hour(forgetful: Rig) -> None:
    await close_problem(forgetful)
    closed_at = forgetful.clock.now()
    for _ in range(15):
        ((problem,),) = await refreshed(forgetful, 60)
        assert problem.closed_at == closed_at
    assert await refreshed(forgetful, 60) == []


async def test_a_refresh_that_fails_is_counted_and_no_more(forgetful: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(_: Sequence[SentOpening]) -> SendResult:
        raise RuntimeError("secret")

    forgetful.sink.refresh_answer = FAILED
    assert len(await refreshed(forgetful, 60)) == 1
    monkeypatch.setattr(forgetful.sink, "refresh", crash)
    await refreshed(forgetful, 60)
    assert (refreshes(forgetful, "failed"), forgetful.ends, forgetful.sink_state()) == (2, [], None)
    assert await forgetful.sent_after() == []


async def test_a_receiver_that_is_gone_or_slow_is_left_alone(forgetful: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, hangs = asyncio.Event(), asyncio.Event()
    asked_count = 0

    async def hang(_: Sequence[SentOpening]) -> SendResult:
        nonlocal asked_count
        asked_count += 1
        begun.set()
        await hangs.wait()
        return DELIVERED

    monkeypatch.setattr(forgetful.sink, "refresh", hang)
    await forgetful.go(60)
    await begun.wait()
    for _ in range(2):
        await forgetful.go(60)
    assert asked_count == 1
    hangs.set()
    await finish_refresh(forgetful)
    monkeypatch.undo()
    forgetful.sink.answer = lambda _: GONE
    await forgetful.send("b")
    assert await refreshed(forgetful, 120) == []


async def test_a_receiver_that_asks_for_a_pause_is_left_alone_in_it(forgetful: Rig) -> None:
    await forgetful.go(30)
    forgetful.sink.answer = lambda _: BUSY
    await forgetful.send("b")
    assert await refreshed(forgetful, 59) == []
    assert len(await refreshed(forgetful, 1)) == 1


async def test_trouble_with_the_store_is_no_refresh(forgetful: Rig) -> None:
    forgetful.store.broken = {"sent_openings"}
    assert await refreshed(forgetful, 60) == []
    forgetful.store.broken = set()
    assert len(await refreshed(forgetful, 61)) == 1


async def test_the_end_breaks_a_refresh_off(forgetful: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: Sequence[SentOpening]) -> SendResult:
        await asyncio.Event().wait()
        return DELIVERED

    monkeypatch.setattr(forgetful.sink, "refresh", hang)
    await forgetful.go(60)
    await forgetful.worker.drain()
    await forgetful.worker.cancel()
    assert forgetful.worker._problems._refreshing is not None
    assert forgetful.worker._problems._refreshing.cancelled()


async def test_a_refresh_without_a_lease_did_not_fail(forgetful: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def expired(_: object) -> SendResult:
        raise LeaseExpiredError("by the test")

    monkeypatch.setattr(forgetful.sink, "refresh", expired)
    with capture_logs() as logs:
        await refreshed(forgetful, 60)
    assert logs == []


async def test_a_sink_that_took_the_opening_late_is_reminded_at_the_next_time(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    await open_problem(rig)
    await rig.go(100)
    rig.sink.answer = lambda _: DELIVERED
    await rig.go(5000)
    assert reminders(rig) == []
    await rig.go(7200 - 5100 + 31)
    assert len(reminders(rig)) == 1
