"""How a worker gets through much at once: slots, batches, settling in groups."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from worker_rig import BUSY, DELIVERED, RULES, Rig, in_flight, name_of, streams

from watcher.delivery.in_flight import CONCURRENCY, UNSETTLED_COUNT
from watcher.delivery.worker import REST_S
from watcher.domain.delivery import Delivery
from watcher.domain.routing import GroupRules
from watcher.sinks.protocol import SendResult


async def test_an_answer_frees_its_slot_before_it_is_settled_and_all_are_settled_at_once(rig: Rig) -> None:
    await rig.begin(*streams(40))
    assert [await rig.sink.arrived.get() for _ in range(40)] == [f"{stream}1" for stream in streams(40)]
    assert rig.store.asked["settle"] == 0
    await rig.go()
    assert (rig.store.asked["settle"], rig.counted("delivered")) == (1, 40)


async def test_what_was_begun_and_is_not_settled_is_bounded(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, group=GroupRules(("pipeline",), wait_s=1.0, max_count=100)))
    for number in range(12):
        await rig.record(*(f"p{number:02}-{stream}" for stream in streams(100)), data={"pipeline": {"id": str(number)}})
    held = rig.hold()
    rig.clock.passed_s += 1
    for _ in range(6):
        await rig.worker.tick()
        await asyncio.sleep(0)
    assert UNSETTLED_COUNT <= len(rig.sink.sent) < UNSETTLED_COUNT + 100
    held.set_result(DELIVERED)
    await rig.go()
    assert (len(rig.sink.sent), rig.counted("delivered")) == (1200, 1200)


async def test_what_is_recorded_while_enough_is_at_hand_is_read_once_there_is_room(rig: Rig) -> None:
    held = rig.hold()
    await rig.begin(*streams(60))
    await rig.begin("new")
    held.set_result(DELIVERED)
    rig.woken = False
    await rig.settle()
    while rig.woken:
        rig.woken = False
        await rig.worker.tick()
        await rig.settle()
    assert len(rig.sink.sent) == 61


async def test_a_sink_that_takes_batches_is_sent_all_that_is_due_at_once(rig: Rig) -> None:
    batches = note_batches(rig, batch_count=100)
    await rig.send(*streams(70), "a", "a")
    assert batches == [[*(f"{stream}1" for stream in streams(70)), "a1"], ["a2"]]


async def test_what_cannot_be_sent_holds_up_its_batch_only_once(rig: Rig) -> None:
    sent = note_batches(rig, batch_count=100, bad="b1")
    await rig.send("a", "b", "c")
    await rig.go(after_s=60.0)
    assert sent == [["a1", "b1", "c1"], ["a1"], ["b1"], ["c1"]]
    assert (rig.row("a1")["state"], rig.row("c1")["state"]) == ("delivered", "delivered")


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
        rig.clock.passed_s += 0.1
    assert await rig.worker.tick() == REST_S
    rig.woken = False
    for answer in answers[:]:
        answer.set_result(DELIVERED)
    await asyncio.wait(in_flight(rig.worker))
    assert rig.woken
    assert await rig.worker.tick() < 0.2


async def test_what_a_short_pause_holds_up_goes_on_right_after_it(rig: Rig) -> None:
    busy = replace(BUSY, retry_after_s=1.0)
    rig.sink.answer = lambda delivery: busy if name_of(delivery) == "s000-1" else DELIVERED
    await rig.record(*streams(100))
    assert await rig.go() <= 1.0


def note_batches(rig: Rig, *, batch_count: int, bad: str = "") -> list[list[str]]:
    """Let the sink take batches, none of which may hold the bad delivery; return what each had."""
    batches: list[list[str]] = []

    async def take(batch: Sequence[Delivery]) -> SendResult:
        batches.append([name_of(each) for each in batch])
        if bad in batches[-1]:
            raise ValueError
        return DELIVERED

    rig.sink.batch_count = batch_count
    rig.sink.send = take  # type: ignore[method-assign]
    return batches
