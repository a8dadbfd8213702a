from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from simulator_facts import true_path

from watcher.domain.execution import TERMINAL_STATUSES, Status
from watcher.simulator.world import BRISK, Kind, Lifecycle, SimPipeline, StatusPhase, World, make_lifecycle

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


def test_a_late_execution_appears_amid_the_list(world: World, travel: Travel) -> None:
    for execution, begins_s, visible_s in (("a", 0, 0), ("late", 1, 6), ("c", 2, 2)):
        world.replace(replace(world.add(lifecycle(execution), pipeline=SALES, begins_s=begins_s), visible_s=visible_s))
    for now_s, shown in ((3, ["c", "a"]), (6, ["c", "late", "a"])):
        travel(now_s)
        assert [execution.id for execution in world.list_executions(SALES.id)] == shown


FOLLOWERS = {"new": {"running"}, "running": {"paused", "success", "failed"}, "paused": {"running"}}


@pytest.mark.parametrize("kind", Kind)
def test_statuses_follow_each_other_as_documented_and_nodes_lie_within_them(kind: Kind) -> None:
    for index in range(50):
        lifecycle = make_lifecycle(1, index=index, kind=kind)
        statuses = [phase.status for phase in lifecycle.phases]
        assert (statuses[0], statuses[-1] in TERMINAL_STATUSES) == ("new", True)
        assert all(after in FOLLOWERS[before] for before, after in pairwise(statuses))
        starts = [phase.begins_s for phase in lifecycle.phases]
        assert starts == sorted(set(starts))
        assert all(starts[1] <= node.begins_s < node.ends_s <= starts[-1] for node in lifecycle.nodes)


def test_one_lifecycle_in_eight_fails_whatever_the_seed() -> None:
    for seed in range(20):
        ends = [make_lifecycle(seed, index=index).phases[-1].status for index in range(40)]
        assert ends.count(Status.FAILED) == 5


def test_a_failing_lifecycle_ends_with_the_node_that_failed() -> None:
    lifecycle = make_lifecycle(3, index=0, kind=Kind.FAILING)
    assert lifecycle.phases[-1].status == "failed"
    assert lifecycle.error == f"{lifecycle.nodes[-1].name}: {lifecycle.nodes[-1].error}"
    assert [node for node in lifecycle.nodes if node.error] == [lifecycle.nodes[-1]]


def test_brisk_lifecycles_are_for_people_who_watch_and_a_stretched_one_keeps_its_proportions() -> None:
    assert max(make_lifecycle(7, index=index, pace=BRISK).length_s() for index in range(80)) < 40
    lifecycle = make_lifecycle(7, index=0)
    slow = lifecycle.stretched(2)
    assert slow.length_s() == lifecycle.length_s() * 2
    assert [node.ends_s for node in slow.nodes] == [node.ends_s * 2 for node in lifecycle.nodes]
