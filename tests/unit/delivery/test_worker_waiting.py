"""What needs a loop: requests under way while others end, what comes between turns, drains, kills, a locked store."""

import asyncio
import sqlite3
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from parameters import seeds
from worker_rig import DELIVERED, FAILED, GONE, HASTY, RULES, Answer, Rig, in_flight, name_of, streams

from watcher.delivery.dispatcher import REST_S
from watcher.delivery.sink_queue import CONCURRENCY
from watcher.domain.delivery import Delivery
from watcher.domain.errors import OutputClosedError
from watcher.sinks.protocol import SendResult
from watcher.store.changes import Taken
from watcher.store.recording import Item


@pytest.fixture
def rig(looped: Rig) -> Rig:
    return looped


async def test_sixteen_are_in_flight_and_one_that_ends_lets_the_next_go_without_a_tick(rig: Rig) -> None:
    answers: dict[str, asyncio.Future[Answer]] = {}

    def hold(delivery: Delivery) -> asyncio.Future[Answer]:
        return answers.setdefault(name_of(delivery), asyncio.get_running_loop().create_future())

    rig.sink.answer = hold
    await rig.record(*streams(20))
    assert await rig.worker.tick() == 10
    for _ in range(16):
        await rig.sink.arrived.get()
    assert rig.sink.arrived.empty()
    answers["s003-1"].set_result(DELIVERED)
    assert await rig.sink.arrived.get() == "s016-1"
    assert rig.sink.in_flight_count == 16


async def _answer_soon(dice: Random) -> Answer:
    for _ in range(dice.randrange(9)):
        await asyncio.sleep(0)
    return DELIVERED


async def _tick_when_woken(rig: Rig) -> None:
    while True:
        if rig.woken:
            rig.woken = False
            if await rig.worker.tick() < 1.0:
                rig.woken = True
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", seeds(ci=3, soak=20))
async def test_whatever_comes_between_its_turns_all_is_sent(rig: Rig, seed: int) -> None:
    dice = Random(seed)
    rig.sink.answer = lambda _: _answer_soon(dice)
    ticking = asyncio.create_task(_tick_when_woken(rig))
    for _ in range(40):
        if dice.random() < 0.5:
            await rig.record(*dice.choices("abc", k=dice.randrange(1, 4)))
        else:
            await rig.worker.flush()
        for _ in range(dice.randrange(9)):
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        for _ in range(sum(rig.recorded.values())):
            await rig.sink.arrived.get()
    ticking.cancel()


async def test_what_is_answered_as_it_would_be_given_up_is_no_dead_letter(rig: Rig) -> None:
    await rig.restart(rules=HASTY)
    await rig.send("a", answer=FAILED)
    held = rig.hold()
    rig.clock.elapsed_s += 120
    await rig.worker.tick()
    inner: Any = rig.store.inner
    record = inner.record

    async def answer_meanwhile(item: Item) -> Taken | None:
        taken: Taken | None = await record(item)
        if not held.done():
            held.set_result(DELIVERED)
            await rig.settle()
        return taken

    inner.record = answer_meanwhile
    await rig.worker.flush()
    await rig.go()
    assert (rig.row("a1")["state"], rig.counted("dead")) == ("delivered", 0)


async def test_what_was_in_flight_at_a_kill_is_sent_again_under_the_same_id(rig: Rig) -> None:
    rig.hold()
    await rig.begin("a")
    await rig.sink.arrived.get()
    await rig.restart()
    rig.sink.answer = lambda _: DELIVERED
    await rig.go()
    first, second = rig.sink.sent
    assert (first.event_id, first.body, second.attempts) == (second.event_id, second.body, 0)


async def test_a_success_that_was_on_its_way_leaves_a_disabled_sink_disabled(rig: Rig) -> None:
    held = asyncio.get_running_loop().create_future()
    rig.sink.answer = lambda delivery: GONE if name_of(delivery) == "a1" else held
    await rig.begin("a", "b")
    await rig.sink.arrived.get()
    await rig.sink.arrived.get()
    held.set_result(DELIVERED)
    await rig.go()
    assert (rig.row("b1")["state"], rig.sink_state()) == ("delivered", "disabled")


async def test_a_closed_output_ends_the_program_and_starts_nothing_more(rig: Rig) -> None:
    closed = OutputClosedError("stdout was closed by its reader")
    rig.sink.answer = lambda delivery: closed if name_of(delivery) == "s000-1" else DELIVERED
    await rig.send(*streams(20))
    assert isinstance(rig.ends[0], OutputClosedError)
    assert len(rig.sink.sent) == 16
    assert rig.row("s000-1")["state"] == "waiting"


async def test_draining_finishes_what_is_in_flight_and_starts_nothing_more(rig: Rig) -> None:
    held = rig.hold()
    await rig.begin(*streams(17))
    draining = asyncio.create_task(rig.worker.drain())
    await rig.sink.arrived.get()
    assert not draining.done()
    held.set_result(DELIVERED)
    await draining
    assert (rig.row("s015-1")["state"], len(rig.sink.sent)) == ("delivered", 16)
    await rig.worker.drain()


async def test_what_waits_for_its_pace_goes_on_though_all_answers_came_at_once(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, rate_per_s=10.0))
    answers: list[asyncio.Future[SendResult]] = []

    def hold(_: Delivery) -> asyncio.Future[SendResult]:
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    rig.sink.answer = hold
    await rig.record(*streams(100))
    while len(answers) < CONCURRENCY:
        await rig.worker.tick()
        await asyncio.sleep(0)
        rig.clock.elapsed_s += 0.1
    assert await rig.worker.tick() == REST_S
    rig.woken = False
    for answer in answers[:]:
        answer.set_result(DELIVERED)
    await asyncio.wait(in_flight(rig.worker))
    assert rig.woken
    assert await rig.worker.tick() < 0.2


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


async def test_what_was_on_its_way_when_the_breaker_opened_closes_it(rig: Rig) -> None:
    slow = asyncio.get_running_loop().create_future()
    rig.sink.answer = lambda delivery: slow if name_of(delivery) == "a1" else FAILED
    await rig.begin(*"abcdefg")
    while len(in_flight(rig.worker)) > 1:
        await asyncio.wait(in_flight(rig.worker), return_when=asyncio.FIRST_COMPLETED)
    slow.set_result(DELIVERED)
    rig.sink.answer = lambda _: DELIVERED
    sent = await rig.go_for(65)
    assert len(sent) == len(set(sent)) == 6


async def test_a_message_goes_out_once_though_the_disk_is_full_when_it_was_sent(rig: Rig) -> None:
    await rig.stop()
    await rig.start(busy_timeout_s=0.01)
    await rig.record("a", "b")
    stranger = sqlite3.connect(rig.path, isolation_level=None)

    def answer(_: Delivery) -> SendResult:
        if not stranger.in_transaction:
            stranger.execute("BEGIN IMMEDIATE")  # from now on the store can be read, and not written
        return DELIVERED

    rig.sink.answer = answer
    assert await rig.sent_after() == ["a1", "b1"]
    rig.sink.answer = lambda _: DELIVERED
    for _ in range(60):
        assert await rig.sent_after(1) == []
    assert rig.row("a1")["state"] == "waiting"
    stranger.close()
    await rig.record("c")
    assert await rig.sent_after(31) == ["c1"]
    assert [rig.row(name)["state"] for name in ("a1", "b1", "c1")] == ["delivered"] * 3
