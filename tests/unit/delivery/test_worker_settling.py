"""When a worker settles what was answered, and what it holds back until then."""

import asyncio

from worker_rig import DELIVERED, Answer, Rig, name_of

from watcher.domain.delivery import Delivery


async def test_what_is_on_its_way_holds_back_the_next_of_its_lane_alone(rig: Rig) -> None:
    held: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def answer(delivery: Delivery) -> Answer | asyncio.Future[Answer]:
        return held if name_of(delivery) == "a1" else DELIVERED

    rig.sink.answer = answer
    await rig.record("a")
    await rig.worker.tick()
    await rig.record("a", "b")
    await rig.worker.tick()
    await rig.sink.arrived.get()
    await rig.sink.arrived.get()
    assert rig.sink.take_sent() == ["a1", "b1"]
    held.set_result(DELIVERED)
    assert await rig.sent_after() == ["a2"]
