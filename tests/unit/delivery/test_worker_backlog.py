"""How a worker gets through much at once: slots, batches, settling in groups, and who makes room for it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from worker_rig import DELIVERED, GONE, Rig, name_of

from watcher.delivery.delivery_queue import BATCH
from watcher.delivery.worker import UNSETTLED_COUNT
from watcher.domain.models import Delivery
from watcher.store.protocol import AttemptRecords


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "watcher.db")
    await rig.start()
    yield rig
    await rig.stop()


def streams(count: int) -> list[str]:
    return [f"s{index:04}-" for index in range(count)]


def hold_settling(rig: Rig) -> tuple[asyncio.Event, list[int]]:
    """Let no attempt record be written until the event is set; return how many each write has, too."""
    go_on, counts = asyncio.Event(), list[int]()
    settle = rig.store.settle

    async def settle_later(settlements: AttemptRecords) -> None:
        counts.append(len(settlements.attempts))
        await go_on.wait()
        await settle(settlements)

    rig.store.settle = settle_later  # type: ignore[method-assign]
    return go_on, counts


async def be_slow(rig: Rig, *, turn_s: float) -> None:
    """Make each turn of the event loop take so long."""
    while True:
        rig.clock.passed_s += turn_s
        await asyncio.sleep(0)


async def test_an_answer_frees_its_slot_before_it_is_settled(rig: Rig) -> None:
    go_on, counts = hold_settling(rig)
    await rig.record(*streams(40))
    await rig.worker.tick()
    assert [await rig.sink.arrived.get() for _ in range(40)] == [f"{stream}1" for stream in streams(40)]
    go_on.set()
    await rig.settle()
    assert (sum(counts), len(counts)) == (40, 2)


async def test_the_next_of_a_stream_waits_until_the_one_before_is_settled(rig: Rig) -> None:
    go_on, _ = hold_settling(rig)
    await rig.record("a", "a", "b")
    await rig.worker.tick()
    assert [await rig.sink.arrived.get() for _ in range(2)] == ["a1", "b1"]
    await rig.worker.tick()
    assert rig.sink.arrived.empty()
    go_on.set()
    await rig.go()
    assert rig.sink.take_sent() == ["a1", "b1", "a2"]


async def test_what_is_not_settled_is_bounded(rig: Rig) -> None:
    go_on, _ = hold_settling(rig)
    await rig.record(*streams(UNSETTLED_COUNT + 30))
    for _ in range(4):
        await rig.worker.tick()
        while rig.worker._sending:
            await asyncio.wait(rig.worker._sending)
    assert len(rig.sink.sent) == UNSETTLED_COUNT
    go_on.set()
    await rig.go()
    assert len(rig.sink.sent) == UNSETTLED_COUNT + 30


async def test_a_sink_that_takes_batches_is_sent_all_that_is_due_at_once(rig: Rig) -> None:
    batches: list[list[str]] = []

    async def take(batch: Sequence[Delivery]) -> object:
        batches.append([name_of(each) for each in batch])
        return DELIVERED

    rig.sink.batch_count = 100
    rig.sink.send = take  # type: ignore[assignment,method-assign]
    await rig.record(*streams(70), "a", "a")
    await rig.go()
    assert batches == [[*(f"{stream}1" for stream in streams(70)), "a1"], ["a2"]]


@pytest.mark.parametrize(
    ("count", "turn_s", "expected"), [(BATCH + 20, 0.01, True), (BATCH + 20, 0.0, False), (20, 0.01, False)]
)
async def test_polling_makes_room_for_a_backlog_while_the_event_loop_is_slow(
    rig: Rig, count: int, turn_s: float, *, expected: bool
) -> None:
    rig.sink.answer = lambda _: asyncio.get_running_loop().create_future()
    await rig.record(*streams(count))

    slow = asyncio.create_task(be_slow(rig, turn_s=turn_s))
    await rig.worker.tick()
    slow.cancel()
    assert bool(rig.backpressure) is expected


async def test_a_sink_that_wants_nothing_more_keeps_no_room(rig: Rig) -> None:
    rig.sink.answer = lambda _: GONE
    await rig.record(*streams(BATCH + 20))
    slow = asyncio.create_task(be_slow(rig, turn_s=0.01))
    await rig.worker.tick()
    assert rig.backpressure
    await rig.settle()
    await rig.worker.tick()
    slow.cancel()
    assert not rig.backpressure
