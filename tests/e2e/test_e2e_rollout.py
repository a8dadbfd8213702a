"""A new configuration on one replica after the other: until all have it, nothing is taken for removed."""

import asyncio

import pytest
from e2e.programme import Life
from e2e.stage import FAILING, Stage, document_of, failing_world, webhook

from watcher.daemon.maintenance import FLUSH_EVERY_S

pytestmark = pytest.mark.ci


def tidies(life: Life) -> bool:
    return any("maintenance store" in entry["taken"] for entry in life.logged("ownership.taken"))


async def test_a_problem_whose_rule_goes_is_closed_once_no_replica_has_the_rule(postgres_stage: Stage) -> None:
    stage = postgres_stage
    simulator, receiver = await stage.simulator(failing_world()), await stage.receiver()
    after = document_of({"default": simulator}, {"ops": webhook(receiver) | {"events": ["pipeline.failing"]}})
    after["watch"] = [{"pipeline": FAILING.id, "account": "default"}]
    after["polling"] = {"min_interval": "300ms", "max_interval": "1s", "first_sight": "notify"}
    before = after | {"watch": [after["watch"][0] | {"rules": {"failing": {"consecutive": 3}}}]}

    old = [await stage.start(before, name=f"old-{number}") for number in range(2)]
    await old[0].until(receiver.events, within_s=30, what="the problem was opened")
    for life in old:
        await life.started()
    new = await stage.start(after, name="new")
    for life in (*old, new):
        await life.until(lambda life=life: life.logged("config.differs"), within_s=15, what="it said so")  # type: ignore[misc]
    first, last = sorted(old, key=tidies, reverse=True)
    assert await first.stop() == 0
    await new.until(lambda: tidies(new) or tidies(last), within_s=15, what="another replica tidies the store")
    await asyncio.sleep(2 * FLUSH_EVERY_S)  # it would have closed the problem by then
    assert receiver.events("problem.closed") == []
    assert await last.stop() == 0
    await new.until(lambda: receiver.events("problem.closed"), within_s=25, what="the problem was closed")
    assert await new.stop() == 0
    opening, closing = receiver.events()
    assert (opening["type"], closing["data"]["reason"]) == ("pipeline.failing", "removed")
    assert closing["data"]["problem"]["id"] == opening["data"]["problem"]["id"]
    assert [len(life.logged("config.differs")) for life in (*old, new)] == [1, 1, 1]
