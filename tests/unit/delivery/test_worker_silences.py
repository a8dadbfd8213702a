"""What a silence keeps back, what it does not, and what is sent when it ends."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from watcher.delivery.delivery_queue import BATCH
from worker_rig import BUSY, DELIVERED, EPOCH, FAILED, HASTY, REFUSED, RULES, Rig, name_of

from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem
from watcher.domain.silences import Silence
from watcher.domain.timestamps import Micros
from watcher.sinks.protocol import GroupRules, WorkerRules

OF_P = {"account": "default", "pipeline": {"id": "p"}, "labels": {"team": "sales"}}
GROUPED = replace(RULES, group=GroupRules(("account",), wait_s=30.0, max_count=100))
BY_PIPELINE = replace(RULES, group=GroupRules(("pipeline",), wait_s=30.0, max_count=100))
PROBLEM = Problem(UUID(int=5), EventType.ACCOUNT_DEGRADED, EPOCH, EventKey(b"a", 1))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "watcher.db")
    await rig.start()
    yield rig
    await rig.stop()


def silence(rig: Rig, *, from_s: float = 0.0, until_s: float = 600.0, **wanted: Any) -> Silence:
    """Have one silence for that time from now on."""
    now = rig.clock.now()
    one = Silence(now + timedelta(seconds=from_s), now + timedelta(seconds=until_s), **wanted)
    rig.silences.replace([one])
    return one


async def open_problem(rig: Rig) -> None:
    await rig.record("a", type_=EventType.ACCOUNT_DEGRADED, data={"account": "default"}, problem=PROBLEM)


async def test_what_a_silence_matches_is_settled_and_never_tried(rig: Rig) -> None:
    silence(rig, pipelines=("p",))
    await rig.record("a", "a", data=OF_P)
    await rig.record("b", data={**OF_P, "pipeline": {"id": "q"}})
    assert await rig.sent_after() == ["b1"]
    assert (rig.row("a1")["state"], rig.row("a1")["attempts"], rig.row("a2")["state"]) == ("silenced", 0, "silenced")
    assert (rig.counted("silenced"), rig.counted("delivered"), rig.counted("retried")) == (2, 1, 0)


@pytest.mark.parametrize("wanted", [{"sinks": ("other",)}, {"labels": {"team": "support"}}, {"accounts": ("x",)}])
async def test_what_it_does_not_match_is_sent(rig: Rig, wanted: dict[str, Any]) -> None:
    silence(rig, **wanted)
    await rig.record("a", data=OF_P)
    assert await rig.sent_after() == ["a1"]


async def test_it_holds_in_its_time_alone(rig: Rig) -> None:
    silence(rig, from_s=100, until_s=200)
    await rig.record("a")
    assert await rig.sent_after(99) == ["a1"]
    await rig.record("b")
    assert await rig.sent_after(1) == []
    await rig.record("c")
    assert await rig.sent_after(100) == ["c1"]


async def test_what_was_tried_before_is_tried_again(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    await rig.record("a")
    await rig.go()
    silence(rig, sinks=("ops",))
    rig.sink.answer = lambda _: DELIVERED
    assert await rig.sent_after(60) == ["a1"]


async def test_it_is_judged_when_a_delivery_would_be_sent(rig: Rig) -> None:
    rig.sink.answer = lambda _: BUSY
    await rig.record("z")
    await rig.go()
    await rig.record("a")
    silence(rig, until_s=30, sinks=("ops",))
    await rig.go(20)
    assert rig.row("a1")["state"] == "waiting"
    rig.sink.answer = lambda _: DELIVERED
    assert "a1" in await rig.sent_after(60)


async def test_more_than_one_read_of_them_is_kept_back_at_once(rig: Rig) -> None:
    silence(rig, sinks=("ops",), pipelines=("p",))
    await rig.record(*(f"s{number:03}-" for number in range(BATCH + 10)), data=OF_P)
    await rig.record("z")
    assert await rig.sent_after() == ["z1"]
    assert rig.counted("silenced") == BATCH + 10


async def test_while_the_breaker_is_open_what_is_kept_back_is_no_trial(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    await rig.record("v", "w", "x", "y", "z")
    await rig.go()
    assert rig.worker._breaker.is_open
    silence(rig, pipelines=("p",))
    await rig.record("a", "b", data=OF_P)
    await rig.record("c")
    assert await rig.sent_after(0.5) == ["c1"]
    assert (rig.counted("silenced"), rig.row("b1")["state"]) == (2, "silenced")


async def test_an_opening_that_is_kept_back_is_sent_when_the_silence_ends(rig: Rig) -> None:
    silence(rig, until_s=600, sinks=("ops",))
    await open_problem(rig)
    await rig.record("b")
    assert await rig.sent_after(300) == []
    assert await rig.sent_after(300) == ["a1"]
    assert rig.counted("delivered") == 1


async def test_and_when_the_silence_is_taken_away(rig: Rig) -> None:
    silence(rig, sinks=("ops",))
    await open_problem(rig)
    await rig.go()
    rig.silences.replace([])
    assert await rig.sent_after() == ["a1"]


async def test_and_when_it_ended_while_nobody_looked(rig: Rig) -> None:
    silence(rig, until_s=600, sinks=("ops",))
    await open_problem(rig)
    await rig.go()
    await rig.stop()
    rig.clock.passed_s += 1000
    await rig.start()
    assert await rig.sent_after() == ["a1"]


async def test_but_not_while_another_silence_keeps_it_back(rig: Rig) -> None:
    first = silence(rig, until_s=100, sinks=("ops",))
    rig.silences.replace([first, Silence(EPOCH, EPOCH + timedelta(days=1), accounts=("default",))])
    await open_problem(rig)
    await rig.go()
    assert await rig.sent_after(200) == []
    assert rig.row("a1")["state"] == "silenced"
    rig.silences.replace([])
    assert await rig.sent_after() == ["a1"]


async def test_openings_are_looked_at_when_other_silences_hold_and_not_with_each_that_is_kept_back(rig: Rig) -> None:
    silence(rig, until_s=600, sinks=("ops",))
    await open_problem(rig)
    for _ in range(20):
        await rig.record("b")
        await rig.go()
    assert rig.store.asked["silenced_openings"] <= 2
    assert await rig.sent_after(600) == ["a1"]


async def test_a_silence_that_begins_and_ends_between_two_looks_loses_no_opening(rig: Rig) -> None:
    await rig.go()
    read = rig.real_store.next_deliveries

    async def silence_before(*args: Any, **kwargs: Any) -> Any:
        silence(rig, sinks=("ops",))
        return await read(*args, **kwargs)

    rig.real_store.next_deliveries = silence_before  # type: ignore[method-assign]
    await rig.record("a", type_=EventType.ACCOUNT_DEGRADED, data={"account": "default"}, problem=PROBLEM)
    await rig.worker.tick()
    assert rig.row("a1")["state"] == "silenced"
    rig.real_store.next_deliveries = read  # type: ignore[method-assign]
    rig.silences.replace([])
    assert await rig.sent_after() == ["a1"]


async def test_and_not_if_its_problem_was_closed_meanwhile(rig: Rig) -> None:
    silence(rig, sinks=("ops",))
    await open_problem(rig)
    await rig.go()
    await rig.record("a", type_=EventType.ACCOUNT_RECOVERED, problem=PROBLEM, closed=True)
    await rig.go()
    rig.silences.replace([])
    assert await rig.sent_after() == []


async def test_what_is_closed_while_its_silence_ends_is_not_opened_after_that(rig: Rig) -> None:
    silence(rig, sinks=("ops",))
    await open_problem(rig)
    await rig.go()
    release = rig.real_store.release_silenced

    async def close_before(*args: Any, **kwargs: Any) -> None:
        await rig.record("a", type_=EventType.ACCOUNT_RECOVERED, problem=PROBLEM, closed=True)
        await release(*args, **kwargs)

    rig.real_store.release_silenced = close_before  # type: ignore[method-assign]
    rig.silences.replace([])
    assert "a1" not in await rig.sent_after()
    assert rig.row("a1")["state"] == "silenced"


async def test_what_a_silence_kept_back_has_all_its_time_to_be_sent_afterwards(rig: Rig) -> None:
    await rig.restart(rules=HASTY)
    rig.sink.answer = lambda _: BUSY
    await rig.record("z")
    await rig.go()
    await open_problem(rig)
    await rig.worker.flush()  # it is due, and its time begins
    silence(rig, until_s=200, sinks=("ops",))
    rig.sink.answer = lambda _: DELIVERED
    await rig.go(61)
    assert rig.row("a1")["state"] == "silenced"
    rig.sink.answer = lambda _: FAILED
    await rig.go(140)
    assert (rig.row("a1")["state"], rig.row("a1")["attempts"]) == ("waiting", 1)


async def test_trouble_with_the_store_lets_an_opening_wait_for_its_end(rig: Rig) -> None:
    silence(rig, sinks=("ops",))
    await open_problem(rig)
    await rig.go()
    rig.silences.replace([])
    rig.store.broken = {"release_silenced"}
    assert await rig.sent_after() == []
    rig.store.broken = set()
    assert await rig.sent_after(2) == ["a1"]


async def test_trouble_with_the_store_lets_nothing_through(rig: Rig) -> None:
    silence(rig, sinks=("ops",))
    rig.store.broken = {"silence"}
    await rig.record("a")
    assert await rig.sent_after() == []
    rig.store.broken = set()
    assert await rig.sent_after(2) == []
    assert (rig.counted("silenced"), rig.row("a1")["state"]) == (1, "silenced")


async def test_what_somebody_has_replayed_is_sent(rig: Rig) -> None:
    rig.sink.answer = lambda _: REFUSED
    await rig.record("a")
    for _ in range(5):
        await rig.go(100)
    assert rig.row("a1")["state"] == "dead"
    silence(rig, sinks=("ops",))
    assert await rig.real_store.replay("ops", EventKey(b"a", 1))
    rig.sink.answer = lambda _: DELIVERED
    assert await rig.sent_after() == ["a1"]


async def test_of_a_group_goes_what_no_silence_keeps_back(rig: Rig) -> None:
    await rig.restart(rules=GROUPED)
    await rig.record("a", "b", data=OF_P)
    await rig.record("c", data={**OF_P, "pipeline": {"id": "q"}})
    await rig.go(10)
    silence(rig, pipelines=("p",))
    assert await rig.sent_after(20) == ["c1"]
    assert (rig.sink.batches, rig.counted("silenced")) == ([["c1"]], 2)


async def test_a_group_that_is_silenced_as_a_whole_lets_what_comes_after_it_go(rig: Rig) -> None:
    await rig.restart(rules=GROUPED)
    silence(rig, until_s=40, pipelines=("p",))
    await rig.record("a", data=OF_P)
    assert await rig.sent_after(30) == []
    await rig.record("a", data=OF_P)
    assert await rig.sent_after(30) == ["a2"]


async def test_a_grouped_sink_is_sent_the_opening_after_the_silence_too(rig: Rig) -> None:
    await rig.restart(rules=GROUPED)
    silence(rig, until_s=100, sinks=("ops",))
    await open_problem(rig)
    assert await rig.sent_after(50) == []
    await rig.go(51)
    await rig.go(60)
    assert rig.sink.take_sent() == ["a1"]


@pytest.mark.parametrize("rules", [RULES, BY_PIPELINE])
async def test_what_waits_for_its_turn_when_a_silence_begins_is_kept_back(rig: Rig, rules: WorkerRules) -> None:
    await rig.restart(rules=replace(rules, rate_per_s=0.1))
    await rig.record("x", data={**OF_P, "pipeline": {"id": "x"}})
    await rig.record("a", data=OF_P)
    await rig.record("b", data={**OF_P, "labels": {"team": "support"}})
    assert await rig.sent_after(30) == ["x1"]
    silence(rig, labels={"team": "sales"})
    assert await rig.sent_after(10.5) == ["b1"]  # what is not sent takes nothing of the rate
    assert (rig.row("a1")["state"], rig.counted("silenced")) == ("silenced", 1)


OVERDUE = Problem(UUID(int=6), EventType.EXECUTION_OVERDUE, EPOCH, EventKey(b"a", 1))


async def open_overdue(rig: Rig) -> None:
    await rig.record("a", type_=EventType.EXECUTION_OVERDUE, data=OF_P, problem=OVERDUE)


async def close_overdue(rig: Rig) -> None:
    await rig.record("a", type_=EventType.EXECUTION_FAILED, data=OF_P, problem=OVERDUE, closed=True)


@pytest.mark.parametrize("rules", [RULES, BY_PIPELINE])
async def test_what_ends_a_problem_the_sink_was_told_of_is_sent_in_a_silence_too_and_marked(
    rig: Rig, rules: WorkerRules
) -> None:
    await rig.restart(rules=rules)
    await open_overdue(rig)
    assert await rig.sent_after(30) == ["a1"]
    silence(rig, pipelines=("p",))
    await close_overdue(rig)
    await rig.record("b", data=OF_P)
    await rig.go(30)
    ((closing),) = rig.sink.sent
    assert (name_of(closing), closing.closes_only, rig.row("b1")["state"]) == ("a2", True, "silenced")


async def test_tried_before_the_silence_it_is_tried_again_as_it_is(rig: Rig) -> None:
    await open_overdue(rig)
    await rig.go()
    rig.sink.sent.clear()
    rig.sink.answer = lambda _: FAILED
    await close_overdue(rig)
    await rig.go()
    rig.clock.passed_s += 0.5
    silence(rig, pipelines=("p",))
    rig.sink.answer = lambda _: DELIVERED
    await rig.go(60)
    assert [(name_of(each), each.closes_only) for each in rig.sink.sent] == [("a2", False), ("a2", False)]


async def test_tried_again_in_the_silence_it_is_marked_again(rig: Rig) -> None:
    await open_overdue(rig)
    await rig.go()
    rig.sink.sent.clear()
    silence(rig, pipelines=("p",))
    rig.sink.answer = lambda _: FAILED
    await close_overdue(rig)
    await rig.go()
    rig.sink.answer = lambda _: DELIVERED
    await rig.go(60)
    assert [(name_of(each), each.closes_only) for each in rig.sink.sent] == [("a2", True), ("a2", True)]


async def test_tried_again_after_the_silence_it_is_sent_as_it_is(rig: Rig) -> None:
    await open_overdue(rig)
    await rig.go()
    silence(rig, until_s=0.5, pipelines=("p",))
    await close_overdue(rig)
    rig.sink.sent.clear()
    rig.sink.answer = lambda _: FAILED
    await rig.go()
    rig.sink.answer = lambda _: DELIVERED
    await rig.go(60)
    assert [(name_of(each), each.closes_only) for each in rig.sink.sent] == [("a2", True), ("a2", False)]


@pytest.mark.parametrize("rules", [RULES, BY_PIPELINE])
async def test_the_end_of_what_a_silence_kept_back_is_kept_back_with_it(rig: Rig, rules: WorkerRules) -> None:
    await rig.restart(rules=rules)
    silence(rig, pipelines=("p",))
    await open_overdue(rig)
    await close_overdue(rig)
    await rig.go(30)
    assert rig.sink.sent == []
    assert (rig.row("a1")["state"], rig.row("a2")["state"]) == ("silenced", "silenced")


async def test_a_group_has_both_where_a_silence_keeps_back_the_end_alone(rig: Rig) -> None:
    await rig.restart(rules=BY_PIPELINE)
    silence(rig, types=(EventType.EXECUTION_FAILED,))
    await open_overdue(rig)
    await close_overdue(rig)
    await rig.record("b", data=OF_P)
    assert await rig.sent_after(30) == ["a1", "a2"]
    assert rig.row("b1")["state"] == "silenced"


async def test_the_end_of_a_problem_whose_opening_was_silenced_after_it_is_not_sent(rig: Rig) -> None:
    rig.sink.answer = lambda _: BUSY
    await rig.record("z")
    await rig.go()
    await open_problem(rig)
    await rig.record("a", type_=EventType.ACCOUNT_RECOVERED, problem=PROBLEM, closed=True)
    silence(rig, types=(EventType.ACCOUNT_DEGRADED,))
    rig.sink.answer = lambda _: DELIVERED
    sent = [name for _ in range(5) for name in await rig.sent_after(60)]
    assert sent == ["z1"]
    assert (rig.row("a1")["state"], rig.row("a2")["state"]) == ("silenced", "silenced")


@pytest.mark.parametrize("rules", [RULES, BY_PIPELINE])
async def test_a_problem_that_is_closed_from_another_stream_is_closed_after_it_was_opened(
    rig: Rig, rules: WorkerRules
) -> None:
    await rig.restart(rules=rules)
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) == "a1" else DELIVERED
    await open_problem(rig)
    await rig.go()
    await rig.record("c", type_=EventType.PROBLEM_CLOSED, problem=PROBLEM, closed=True)
    assert "c1" not in [name for _ in range(20) for name in await rig.sent_after(1)]
    rig.sink.answer = lambda _: DELIVERED
    sent = [name for _ in range(60) for name in await rig.sent_after(10)]
    assert sent == ["a1", "c1"]
    assert rig.counted("retried") == rig.row("a1")["attempts"] - 1


async def test_a_closing_waits_no_more_than_a_minute_longer_than_its_opening(rig: Rig) -> None:
    await open_problem(rig)
    await rig.real_store.put_off(
        rig.worker._queue.lease, {PROBLEM.opening: Micros(rig.clock.steady_us() + 3600_000_000)}
    )
    await rig.record("c", type_=EventType.PROBLEM_CLOSED, problem=PROBLEM, closed=True)
    assert await rig.sent_after(30) == []
    await rig.real_store.put_off(rig.worker._queue.lease, {PROBLEM.opening: rig.clock.steady_us()})
    assert await rig.sent_after(1) == ["a1"]
    assert [name for _ in range(7) for name in await rig.sent_after(10)] == ["c1"]


async def test_a_reminder_that_a_silence_kept_back_holds_up_no_closing(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, rate_per_s=1.0))
    await open_problem(rig)
    await rig.go(2.0)
    block = {"account": "default", "problem": {"id": str(PROBLEM.id)}}
    await rig.record("x")
    await rig.record("r", type_=EventType.PROBLEM_REMINDER, data=block)
    await rig.go()  # the reminder waits for its turn
    silence(rig, types=frozenset({EventType.PROBLEM_REMINDER}))
    await rig.go(2.0)
    await rig.go(2.0)
    assert rig.row("r1")["state"] == "silenced"
    await rig.record("c", type_=EventType.PROBLEM_CLOSED, problem=PROBLEM, closed=True)
    await rig.go(2.0)
    await rig.go(2.0)
    assert rig.sink.take_sent() == ["a1", "x1", "c1"]


async def test_what_cannot_be_asked_of_the_store_is_asked_again(rig: Rig) -> None:
    await open_overdue(rig)
    await rig.go()
    silence(rig, pipelines=("p",))
    await close_overdue(rig)
    rig.store.broken = {"openings"}
    assert await rig.sent_after() == []
    rig.store.broken = set()
    assert await rig.sent_after(2) == ["a2"]


@pytest.mark.parametrize("rules", [RULES, BY_PIPELINE])
async def test_an_opening_that_was_on_its_way_when_the_daemon_was_killed_is_closed_at_the_sink_silence_or_not(
    rig: Rig, rules: WorkerRules
) -> None:
    await rig.restart(rules=rules)
    rig.sink.answer = lambda _: asyncio.get_running_loop().create_future()
    await open_problem(rig)
    await rig.worker.tick()
    assert await rig.sink.arrived.get() == "a1"
    await rig.kill()
    rig.clock.passed_s += 1
    silence(rig, sinks=("ops",))
    rig.sink.answer = lambda _: DELIVERED
    await rig.start(rules=rules)
    assert await rig.sent_after() == []
    await rig.record("a", type_=EventType.ACCOUNT_RECOVERED, problem=PROBLEM, closed=True)
    assert await rig.sent_after(1) == ["a2"]
    assert rig.row("a1")["state"] == "silenced"
