"""When a worker settles what was answered, and what it holds back until then."""

import asyncio
from dataclasses import replace

import pytest
from worker_rig import DELIVERED, FAILED, RULES, Answer, Rig, in_flight, name_of, streams

from watcher.delivery.in_flight import SETTLE_AFTER_S, SETTLE_COUNT

PACED = replace(RULES, rate_per_s=100.0)
"""A webhook's own pace: a request every 10 ms."""


def states(rig: Rig, count: int) -> list[str]:
    return [rig.row(f"{stream}1")["state"] for stream in streams(count)]


def hang(rig: Rig, *names: str) -> dict[str, asyncio.Future[Answer]]:
    """Have the sink deliver all but those, each of which is answered once its future is done."""
    futures = {name: asyncio.get_running_loop().create_future() for name in names}
    rig.sink.answer = lambda delivery: futures.get(name_of(delivery), DELIVERED)
    return futures


async def answered(rig: Rig, *, under_way: int) -> None:
    """Let all that may be sent be answered but so many requests."""
    async with asyncio.timeout(10):
        for _ in range(5):  # the next ones begin when some have ended
            await asyncio.sleep(0)
            while len(in_flight(rig.worker)) > under_way:
                await asyncio.sleep(0)


async def test_a_lone_event_is_settled_at_once(rig: Rig) -> None:
    await rig.restart(rules=PACED)
    await rig.go(1)
    before_s = rig.clock.passed_s
    await rig.send("a")
    assert (rig.row("a1")["state"], rig.store.asked["settle"]) == ("delivered", 1)
    assert rig.clock.passed_s == pytest.approx(before_s + 0.001)


async def test_a_burst_shorter_than_100_ms_is_settled_in_one_transaction_right_after_its_last(rig: Rig) -> None:
    await rig.restart(rules=PACED)
    await rig.go(1)
    await rig.record(*streams(9))
    began_s = rig.clock.passed_s
    while len(rig.sink.sent) < 9:
        rest_s = await rig.go()
        rig.clock.passed_s += rest_s
    assert rig.store.asked["settle"] == 1
    assert states(rig, 9) == ["delivered"] * 9
    assert rig.clock.passed_s - began_s < 0.1 + rest_s


@pytest.mark.ci
async def test_of_a_long_row_each_answer_is_settled_within_100_ms_and_about_ten_together(rig: Rig) -> None:
    await rig.restart(rules=PACED)
    await rig.go(1)
    await rig.record(*streams(60))
    while len(rig.sink.sent) < 60:
        rest_s = await rig.go()
        waiting = [each for each in rig.sink.sent if rig.row(name_of(each))["state"] == "waiting"]
        assert len(waiting) <= SETTLE_AFTER_S * 100 + 1
        rig.clock.passed_s += rest_s
    assert rig.store.asked["settle"] <= 60 / 10 + 1


async def test_while_another_request_hangs_an_answer_is_settled_100_ms_after_the_first(rig: Rig) -> None:
    held = hang(rig, "b1")
    await rig.begin("a", "b")
    rig.woken = False
    await answered(rig, under_way=1)
    assert rig.woken
    assert await rig.worker.tick() == pytest.approx(SETTLE_AFTER_S)
    rig.clock.passed_s += SETTLE_AFTER_S - 0.01
    await rig.worker.tick()
    assert rig.store.asked["settle"] == 0
    rig.clock.passed_s += 0.01
    await rig.worker.tick()
    assert (rig.row("a1")["state"], rig.row("b1")["state"]) == ("delivered", "waiting")
    held["b1"].set_result(DELIVERED)
    await rig.go()
    assert rig.row("b1")["state"] == "delivered"


@pytest.mark.parametrize(("count", "state"), [(SETTLE_COUNT, "delivered"), (SETTLE_COUNT - 1, "waiting")])
async def test_64_answers_are_settled_at_once_and_63_are_not(rig: Rig, count: int, state: str) -> None:
    hang(rig, "z1")
    await rig.begin("z", *streams(count))
    await answered(rig, under_way=1)
    assert len(rig.sink.sent) == count + 1
    await rig.worker.tick()
    assert states(rig, count) == [state] * count


@pytest.mark.parametrize("recorded", ["with it", "while it is sent", "after its answer"])
async def test_the_next_event_of_an_execution_waits_for_no_others_than_its_own(rig: Rig, recorded: str) -> None:
    held = hang(rig, "a1", "b1", "c1")
    await rig.begin("a", "b", *(["a"] if recorded == "with it" else []))
    if recorded == "while it is sent":
        await rig.begin("a", "c")
    held["a1"].set_result(DELIVERED)
    await answered(rig, under_way=len(in_flight(rig.worker)) - 1)
    if recorded == "after its answer":
        await rig.record("a")
    rig.sink.take_sent()
    await rig.worker.tick()
    async with asyncio.timeout(10):
        while not rig.sink.sent:
            await asyncio.sleep(0)
    assert (rig.sink.take_sent(), rig.row("a1")["state"]) == (["a2"], "delivered")


async def test_an_answer_is_not_settled_for_one_that_could_not_be_taken_yet(rig: Rig) -> None:
    """Enough is ready: the next event of the execution is taken once there is room, whatever is settled before."""
    await rig.restart(rules=PACED)
    await rig.go(1)
    await rig.record(*streams(40), *streams(40))
    while len(rig.sink.sent) < 20:
        rest_s = await rig.go()
        rig.clock.passed_s += rest_s
    assert rig.store.asked["settle"] <= 2


async def test_what_failed_is_settled_as_late_and_tried_again_as_soon(rig: Rig) -> None:
    held = hang(rig, "b1")
    await rig.record("a", "b")
    rig.sink.answer = lambda delivery: held["b1"] if name_of(delivery) == "b1" else FAILED
    await rig.worker.tick()
    await answered(rig, under_way=1)
    rig.clock.passed_s += SETTLE_AFTER_S
    assert await rig.worker.tick() == pytest.approx(1.0 - SETTLE_AFTER_S)


async def test_at_a_drain_what_was_answered_is_settled_with_the_last_that_is_in_flight(rig: Rig) -> None:
    held = hang(rig, "b1")
    await rig.begin("a", "b")
    await answered(rig, under_way=1)
    draining = asyncio.create_task(rig.worker.drain())
    await asyncio.sleep(0)
    held["b1"].set_result(DELIVERED)
    await draining
    assert (rig.row("a1")["state"], rig.row("b1")["state"]) == ("delivered", "delivered")
    assert rig.store.asked["settle"] == 1


async def test_at_the_end_what_was_answered_is_settled_though_another_request_is_broken_off(rig: Rig) -> None:
    hang(rig, "b1")
    await rig.begin("a", "b")
    await answered(rig, under_way=1)
    await rig.restart()
    rig.sink.take_sent()
    rig.sink.answer = lambda _: DELIVERED
    assert await rig.sent_after() == ["b1"]


async def test_what_is_on_its_way_holds_back_the_next_of_its_lane_alone(rig: Rig) -> None:
    held = hang(rig, "a1")
    await rig.begin("a")
    await rig.begin("a", "b")
    await rig.sink.arrived.get()
    await rig.sink.arrived.get()
    assert rig.sink.take_sent() == ["a1", "b1"]
    held["a1"].set_result(DELIVERED)
    assert await rig.sent_after() == ["a2"]
