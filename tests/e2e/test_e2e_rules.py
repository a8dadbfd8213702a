"""Rules of a pipeline in the running program: a problem outlasts a kill, and ends with its rule."""

import pytest
from e2e.stage import Stage, document_of, webhook

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import BRISK, Kind, World, make_lifecycle

pytestmark = pytest.mark.untraced


async def test_a_problem_outlasts_a_kill_and_ends_where_it_began_once_its_rule_is_removed(stage: Stage) -> None:
    world, pipeline = World(Clock()), pipeline_named("Sales agent", seed=1)
    for index in range(3):
        lifecycle = make_lifecycle(1, index=index, kind=Kind.FAILING, pace=BRISK)
        world.add(lifecycle.stretched(0.5 / lifecycle.length_s()), pipeline=pipeline, begins_s=1.0 + index)
    simulator, receiver = await stage.simulator(world), await stage.receiver()
    rules = {"failing": {"consecutive": 3}}
    document = document_of({"default": simulator}, {"ops": webhook(receiver) | {"events": ["pipeline.failing"]}})
    document["watch"] = [{"pipeline": pipeline.id, "account": "default", "rules": rules}]
    document["polling"] = {"min_interval": "300ms", "max_interval": "1s", "first_sight": "notify"}
    life = await stage.start(document)
    await life.until(receiver.events, what="the problem was opened")
    await life.kill()
    life = await stage.start(document)
    await life.started()
    stage.write(document | {"watch": [{"pipeline": pipeline.id, "account": "default"}]})
    await life.until(lambda: len(receiver.events()) > 1, what="the problem was closed")
    assert await life.stop() == 0
    opening, closing = receiver.events()
    assert (opening["type"], closing["type"], closing["data"]["reason"]) == (
        "pipeline.failing",
        "problem.closed",
        "removed",
    )
    assert closing["data"]["problem"]["id"] == opening["data"]["problem"]["id"]
    assert opening["data"]["execution"]["failedNodes"]
