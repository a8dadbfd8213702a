from collections.abc import Callable
from dataclasses import replace

import pytest
from simulator_facts import true_path

from watcher.runtime.clock import SystemClock
from watcher.simulator.lifecycles import Lifecycle, StatusPhase
from watcher.simulator.world import Order, SimPipeline, World

SALES = SimPipeline(id="p-sales", name="Sales agent")
OTHER = SimPipeline(id="p-other", name="Other")
Travel = Callable[[float], None]


def lifecycle(execution: str) -> Lifecycle:
    return Lifecycle(execution, phases=(StatusPhase("new", 0), StatusPhase("running", 2), StatusPhase("success", 6)))


def test_an_execution_lives_its_lifecycle_from_its_beginning(world: World, travel: Travel) -> None:
    execution = world.add(lifecycle("e"), pipeline=SALES, begins_s=10)
    travel(17)
    assert execution.phase_at(world.now_s()).status == "success"
    assert true_path(world, "e") == (("new", 10), ("running", 12), ("success", 16))


def test_started_and_finished_are_unknown_until_they_happen(world: World) -> None:
    execution = world.add(lifecycle("e"), pipeline=SALES)
    assert (execution.started_s(1), execution.finished_s(1)) == (None, None)
    assert (execution.started_s(3), execution.finished_s(3)) == (2, None)
    assert (execution.started_s(7), execution.finished_s(7)) == (2, 6)


def test_a_planned_deletion_hides_an_execution_and_ends_its_path(world: World, travel: Travel) -> None:
    execution = replace(world.add(lifecycle("e"), pipeline=SALES), deleted_s=4)
    world.replace(execution)
    travel(20)
    assert not execution.is_visible(4)
    assert [moment.status for moment in true_path(world, "e")] == ["new", "running"]


def test_an_id_is_used_once(world: World) -> None:
    world.add(lifecycle("e"), pipeline=SALES)
    with pytest.raises(ValueError, match="e exists already"):
        world.add(lifecycle("e"), pipeline=OTHER)


def test_an_execution_belongs_to_its_pipeline(world: World) -> None:
    execution = world.add(lifecycle("e"), pipeline=SALES)
    assert world.find("e", pipeline=SALES.id) == execution
    assert world.find("e", pipeline=OTHER.id) is None
    assert world.find("f") is None


def test_a_late_execution_appears_amid_the_list(world: World, travel: Travel) -> None:
    for execution, begins_s, visible_s in (("a", 0, 0), ("late", 1, 6), ("c", 2, 2)):
        world.replace(replace(world.add(lifecycle(execution), pipeline=SALES, begins_s=begins_s), visible_s=visible_s))
    for now_s, shown in ((3, ["c", "a"]), (6, ["c", "late", "a"])):
        travel(now_s)
        assert [execution.id for execution in world.listed(SALES.id)] == shown


@pytest.mark.parametrize(("order", "ids"), [(Order.NEWEST, ["c", "b", "a"]), (Order.OLDEST, ["a", "b", "c"])])
def test_a_list_has_the_order_of_its_world(order: Order, ids: list[str]) -> None:
    world = World(SystemClock(), order=order)
    for execution, begins_s in (("b", -2), ("c", -1), ("a", -3)):
        world.add(lifecycle(execution), pipeline=SALES, begins_s=begins_s)
    assert [execution.id for execution in world.listed(SALES.id)] == ids
