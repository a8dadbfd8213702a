from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from simulator_facts import forget, time_at, true_path

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


def test_the_true_path_reaches_only_to_now(world: World, travel: Travel) -> None:
    world.add(lifecycle("e"), pipeline=SALES)
    travel(3)
    assert [moment.status for moment in true_path(world, "e")] == ["new", "running"]


def test_an_execution_that_began_before_the_world_is_under_way(world: World) -> None:
    execution = world.add(lifecycle("e"), pipeline=SALES, begins_s=-3)
    assert execution.phase_at(world.now_s()).status == "running"
    assert execution.started_s(world.now_s()) == -1


def test_started_and_finished_are_unknown_until_they_happen(world: World) -> None:
    execution = world.add(lifecycle("e"), pipeline=SALES)
    assert (execution.started_s(1), execution.finished_s(1)) == (None, None)
    assert (execution.started_s(3), execution.finished_s(3)) == (2, None)
    assert (execution.started_s(7), execution.finished_s(7)) == (2, 6)


def test_an_execution_that_stays_new_has_not_started(world: World) -> None:
    execution = world.add(Lifecycle("e", phases=(StatusPhase("new", 0),)), pipeline=SALES)
    assert execution.started_s(100) is None


def test_a_late_execution_becomes_visible_after_its_lag(world: World) -> None:
    execution = replace(world.add(lifecycle("e"), pipeline=SALES, begins_s=1), visible_s=5)
    assert not execution.is_visible(4.9)
    assert execution.is_visible(5)


def test_a_planned_deletion_hides_an_execution_and_ends_its_path(world: World, travel: Travel) -> None:
    execution = replace(world.add(lifecycle("e"), pipeline=SALES), deleted_s=4)
    world.replace(execution)
    travel(20)
    assert not execution.is_visible(4)
    assert [moment.status for moment in true_path(world, "e")] == ["new", "running"]


def test_an_execution_can_be_deleted_now(world: World, travel: Travel) -> None:
    world.add(lifecycle("e"), pipeline=SALES)
    travel(1)
    forget(world, "e")
    assert world.listed(SALES.id) == []
    assert world.find("e") is not None


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


def test_a_list_holds_what_is_visible_of_one_pipeline(world: World) -> None:
    world.add(lifecycle("a"), pipeline=SALES)
    world.add(lifecycle("later"), pipeline=SALES, begins_s=5)
    world.add(lifecycle("elsewhere"), pipeline=OTHER)
    assert [execution.id for execution in world.listed(SALES.id)] == ["a"]
    assert list(world.pipelines.values()) == [SALES, OTHER]


def test_a_moment_of_the_world_has_a_date(world: World) -> None:
    assert time_at(world, 61) == datetime(2026, 11, 24, 10, 1, 1, tzinfo=UTC)
