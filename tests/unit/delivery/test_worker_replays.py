"""A dead letter that is sent again: what of it is sent, once its problem may be over."""

import asyncio
from uuid import UUID

import pytest
from worker_rig import BUSY, DELIVERED, EPOCH, FAILED, REFUSED, Rig

from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem

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
async def test_an_opening_is_replayed_to_a_receiver_that_keeps_state_only_while_its_problem_is_open(
    rig: Rig, closed: str, *, keeps_state: bool
) -> None:
    """A pager was told of a problem that was over, and nothing ever resolved it."""
    rig.sink.keeps_state = keeps_state
    await open_until_dead(rig)
    if closed == "before":
        await close(rig)
        assert await rig.sent_after() == ["a2"]
    await rig.replay("a1")
    if closed == "after a kill":
        await rig.kill()
        await rig.start()
        await close(rig)
    is_over = keeps_state and closed != "never"
    closing = ["a2"] if closed == "after a kill" else []
    assert await rig.go_for(5) == ([] if is_over else ["a1"]) + closing
    row = rig.row("a1")
    assert (row["state"], row["answer"]) == (("silenced", "over") if is_over else ("delivered", "204"))


async def test_one_that_waits_for_its_next_attempt_while_its_problem_is_closed_is_not_sent_again(rig: Rig) -> None:
    rig.sink.keeps_state = True
    await open_until_dead(rig)
    await rig.replay("a1")
    answers = iter([FAILED])
    rig.sink.answer = lambda _: next(answers, DELIVERED)
    assert await rig.sent_after() == ["a1"]
    await close(rig)
    await rig.record("b")
    assert await rig.go_for(5) == ["b1", "a2"]
    assert (rig.row("a1")["state"], rig.row("a1")["answer"], rig.counted("silenced")) == ("silenced", "over", 1)


async def test_a_closing_does_not_overtake_the_opening_that_is_being_replayed(rig: Rig) -> None:
    rig.sink.keeps_state = True
    await open_until_dead(rig)
    await rig.replay("a1")
    held = rig.hold()
    await rig.worker.tick()
    assert await rig.sink.arrived.get()
    await close(rig)
    await rig.worker.tick()
    await asyncio.sleep(0)
    assert rig.sink.in_flight_count == 1
    rig.sink.answer = lambda _: DELIVERED
    held.set_result(DELIVERED)
    rig.sink.take_sent()
    assert await rig.sent_after() == ["a2"]


async def test_one_that_is_over_takes_no_turn_of_an_open_breaker_and_lets_the_next_go(rig: Rig) -> None:
    rig.sink.keeps_state = True
    await open_until_dead(rig)
    await close(rig)
    await rig.go()
    await rig.send("v", answer=BUSY)
    await rig.replay("a1")
    rig.sink.answer = lambda _: DELIVERED
    await rig.record("a", type_=EventType.ACCOUNT_DEGRADED, data={"account": "default"})
    assert sorted(await rig.go_for(120)) == ["a3", "v1"]
    assert rig.row("a1")["state"] == "silenced"
