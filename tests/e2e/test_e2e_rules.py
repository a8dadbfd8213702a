"""Rules of a pipeline in the running program: a problem outlasts a kill, and ends with its rule."""

import pytest
from e2e.stage import Stage, document_of, webhook

from watcher.clerk.simulator.lifecycles import BRISK, Kind, make_lifecycle
from watcher.clerk.simulator.scenarios import pipeline_named
from watcher.clerk.simulator.world import World
from watcher.runtime.clock import SystemClock

pytestmark = pytest.mark.untraced


async def test_a_problem_outlasts_a_kill_and_ends_where_it_began_once_its_rule_is_removed(stage: Stage) -> None:
    world, pipeline = World(SystemClock()), pipeline_named("Sales agent", seed=1)
    for index in range(3):
        lifecycle = make_lifecycle(1, index=index, kind=Kind.FAILING, pace=BRISK)
        world.add(lifecycle.stretched(0.5 / lifecycle.length_s()), pipeline=pipeline, begins_s=1.0 + index)
    simulator, receiver = await stage.simulator(world), await stage.receiver()
    rules = {"failing": {"consecutive": 3}}
    document = document_of({"default": simulator}, {"ops": webhook(receiver) | {"events": ["pipeline.failing"]}})
    document["watch"] = [{"pipeline": pipeline.id, "account": "default", "rules": rules}]
    document["polling"] = {"min_interval": "300ms", "max_interval": "1s", "first_sight": "notify"}
    life = await stage.start(document)
    await life.until(receiver.events, within_s=30, what="the problem was opened")
    await life.kill()
    life = await stage.start(document)
    await life.started()
    stage.write(document | {"watch": [{"pipeline": pipeline.id, "account": "default"}]})
    await life.until(lambda: len(receiver.events()) > 1, within_s=30, what="the problem was closed")
    assert await life.stop() == 0
    opening, closing = receiver.events()
    assert (opening["type"], closing["type"], closing["data"]["reason"]) == (
        "pipeline.failing",
        "problem.closed",
        "removed",
    )
    assert closing["data"]["problem"]["id"] == opening["data"]["problem"]["id"]
    assert opening["data"]["execution"]["failedNodes"]


async def test_an_overdue_execution_whose_limit_is_removed_and_returns_is_another_problem(stage: Stage) -> None:
    world, pipeline = World(SystemClock()), pipeline_named("Sales agent", seed=1)
    world.add(make_lifecycle(1, index=0, kind=Kind.LONG, pace=BRISK).stretched(100.0), pipeline=pipeline, begins_s=0.0)
    simulator, receiver = await stage.simulator(world), await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver) | {"events": ["execution.overdue"]}})
    document["polling"] = {"min_interval": "300ms", "max_interval": "1s"}
    limit, life = {"overdue_after": {"new": "1ms"}}, None
    for count, more in enumerate((limit, {}, limit), 1):
        document["watch"] = [{"pipeline": pipeline.id, "account": "default", **more}]
        if life is None:
            life = await stage.start(document)
        else:
            stage.write(document)
        await life.until(lambda: len(receiver.events()) >= count, within_s=30, what=f"event {count}")  # noqa: B023 (now)
    assert life is not None
    assert await life.stop() == 0
    opening, closing, again = receiver.events()[:3]
    assert [event["type"] for event in (opening, closing, again)] == [
        "execution.overdue",
        "problem.closed",
        "execution.overdue",
    ]
    first, closed, second = (event["data"]["problem"]["id"] for event in (opening, closing, again))
    assert first == closed != second
