"""What is recorded is taken in the same transaction, where the worker of its sink has nothing else to ask."""

import asyncio
from dataclasses import replace

import pytest
from worker_rig import DELIVERED, FAILED, RULES, Answer, Rig, name_of

from watcher.domain.delivery import Delivery
from watcher.domain.errors import StoreError
from watcher.domain.routing import GroupRules
from watcher.sinks.protocol import WorkerRules


@pytest.fixture(autouse=True)
async def _takes_along(rig: Rig) -> None:
    await rig.go()
    rig.take_along()
    rig.store.asked.clear()


async def test_what_is_recorded_is_sent_though_the_worker_has_asked_for_nothing(rig: Rig) -> None:
    await rig.record("a")
    await rig.settle()
    assert (rig.sink.take_sent(), rig.store.asked["take"]) == (["a1"], 0)
    assert await rig.sent_after() == []
    assert rig.row("a1")["state"] == "delivered"


async def test_what_was_answered_and_is_not_settled_yet_is_not_taken_again(rig: Rig) -> None:
    await rig.record("a")
    await rig.settle()
    await rig.record("b")
    await rig.settle()
    assert rig.sink.take_sent() == ["a1", "b1"]
    assert await rig.sent_after() == []


async def test_what_is_on_its_way_holds_back_the_next_of_its_lane_alone(rig: Rig) -> None:
    held: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answer(delivery: Delivery) -> Answer | asyncio.Future[Answer]:
        return held if name_of(delivery) == "a1" else DELIVERED

    rig.sink.answer = answer
    await rig.record("a")
    await rig.record("a", "b")
    await rig.sink.arrived.get()
    await rig.sink.arrived.get()
    assert rig.sink.take_sent() == ["a1", "b1"]
    held.set_result(DELIVERED)
    assert await rig.sent_after() == ["a2"]


@pytest.mark.parametrize(
    ("rules", "rest_s"),
    [
        (replace(RULES, rate_per_s=1.0), 0.6),
        (replace(RULES, group=GroupRules(("pipeline",), wait_s=3.0, max_count=9, problems=False)), 3.0),
    ],
    ids=["rate", "group"],
)
async def test_for_what_cannot_go_at_once_the_worker_is_woken(rig: Rig, rules: WorkerRules, rest_s: float) -> None:
    await rig.restart(rules=rules)
    rig.take_along()
    await rig.record("b")
    await rig.go_for(3.0)
    await rig.record("b")
    await rig.go(0.4)
    rig.woken = False
    rig.sink.take_sent()
    await rig.record("a", data={"pipeline": {"id": "p"}})
    assert (rig.woken, rig.sink.take_sent()) == (True, [])
    assert await rig.go() == pytest.approx(rest_s, abs=0.01)


@pytest.mark.parametrize("waits", ["tick", "flush"])
async def test_whoever_waits_for_what_is_offered_may_be_cancelled(rig: Rig, waits: str) -> None:
    offered = rig.worker.offer()
    assert offered is not None
    waiting = asyncio.create_task(getattr(rig.worker, waits)())
    await asyncio.wait([waiting], timeout=0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    _, hand_over = offered
    hand_over(None)
    await rig.record("a")
    await rig.settle()
    assert rig.sink.take_sent() == ["a1"]


async def test_trouble_with_the_store_that_has_passed_holds_nothing_up(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, remind_every_s=3600.0))
    await rig.go()
    rig.store.broken = {"sent_openings"}
    await rig.go(60)
    assert rig.store.asked["sent_openings"] == 2
    rig.store.broken = set()
    await rig.go(60)
    rig.take_along()
    await rig.record("a")
    await rig.settle()
    assert rig.sink.take_sent() == ["a1"]


async def test_what_may_not_go_now_is_not_taken(rig: Rig) -> None:
    rig.is_trusted = False
    await rig.record("a")
    await rig.settle()
    rig.is_trusted = True
    await rig.send(*(f"s{number}" for number in range(5)), answer=FAILED)
    assert rig.worker._breaker.is_open
    rig.sink.take_sent()
    await rig.record("b")
    assert rig.sink.take_sent() == []


async def test_what_is_not_recorded_after_all_leaves_the_worker_free(rig: Rig) -> None:
    await rig.record("a")
    await rig.settle()
    rig._changes_count += 1  # the next change is of another sequence than the store holds
    with pytest.raises(StoreError):
        await rig.record("b")
    rig._changes_count -= 2
    await rig.record("c")
    await rig.settle()
    assert rig.sink.take_sent() == ["a1", "c1"]
