"""A world, its lifecycles, and the scenarios that fill it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from simulator_facts import path, true_path
from virtual import FakeClock

from watcher.config.models import AccountSettings, WatchSettings
from watcher.domain.execution import TERMINAL_STATUSES, Status
from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import (
    NAMES,
    OPTIONAL_FIELDS,
    SEED,
    UNKNOWN_STATUS,
    WORSE,
    WORSE_FOR_S,
    example_config,
    pipeline_named,
    populate,
)
from watcher.simulator.world import Kind, Lifecycle, SimExecution, SimPipeline, StatusPhase, World, make_lifecycle


def filled(*, seed: int = 7, pipelines_count: int = 5, fit_s: float | None = None, odd_share: float = 0.0) -> World:
    world = World(Clock())
    populate(world, seed=seed, pipelines_count=pipelines_count, executions_count=8, fit_s=fit_s, odd_share=odd_share)
    return world


def ids(world: World) -> list[tuple[str, str]]:
    return [(execution.pipeline.id, execution.id) for execution in world.executions()]


def test_the_same_seed_fills_the_same_world() -> None:
    assert list(filled().executions()) == list(filled().executions())
    assert set(ids(filled())).isdisjoint(ids(filled(seed=8)))


@pytest.mark.parametrize("seed", range(5))
def test_a_world_that_must_fit_begins_and_ends_in_time(seed: int) -> None:
    executions = list(filled(seed=seed, fit_s=25).executions())
    assert all(each.begins_s >= 0 and path(each, 25.001)[-1].status in {"success", "failed"} for each in executions)
    assert sum(path(each, 25.001)[-1].status == Status.FAILED for each in executions) == 5
    assert any(moment.status == Status.PAUSED for each in executions for moment in path(each, 25))


@pytest.mark.parametrize(
    "is_odd",
    [
        lambda execution: any(phase.status == UNKNOWN_STATUS for phase in execution.lifecycle.phases),
        lambda execution: any(phase.has_ended for phase in execution.lifecycle.phases[:-1]),
        lambda execution: execution.visible_s > execution.begins_s,
        lambda execution: (
            execution.begins_s < execution.deleted_s < execution.begins_s + execution.lifecycle.length_s()
        ),
        lambda execution: execution.lifecycle.nulls == {"finishedAt"},
        lambda execution: len(execution.lifecycle.nulls) > 1,
        lambda execution: execution.lifecycle.absent == OPTIONAL_FIELDS,
    ],
)
def test_every_oddity_happens_in_an_odd_world_and_none_in_a_normal_one(is_odd: Callable[[SimExecution], bool]) -> None:
    assert any(map(is_odd, filled(pipelines_count=20, odd_share=1.0).executions()))
    assert not any(map(is_odd, filled(pipelines_count=20).executions()))


def test_the_example_configuration_watches_everything() -> None:
    world = filled(pipelines_count=2)
    document = example_config(world, base_url="http://127.0.0.1:9000")
    account = AccountSettings.model_validate(document["accounts"]["default"])
    watches = [WatchSettings.model_validate({"account": "default", **watch}) for watch in document["watch"]]
    assert (account.base_url, account.rate_limit) == ("http://127.0.0.1:9000", 50)
    assert account.api_key.get_secret_value() == "sim-key"
    assert [(str(watch.pipeline), watch.name, watch.executions, watch.rules) for watch in watches] == [
        (pipeline.id, pipeline.name, (), None) for pipeline in world.pipelines.values()
    ]


def test_a_pipeline_that_is_to_fail_has_a_rule_fails_for_its_time_and_succeeds_afterwards() -> None:
    clock, fails = FakeClock(), {"Onboarding": 60.0}
    world = World(clock)
    populate(world, fails=fails)
    clock.advance(600.0)
    document = example_config(world, base_url="http://h", fails=fails)
    rules = {watch["name"]: watch.get("rules") for watch in document["watch"]}
    at_once = {"consecutive": 3, "recover_after": 1, "quiet_for": "1s"}
    assert rules == dict.fromkeys(NAMES) | {"Onboarding": {"failing": at_once}}
    of_it = [each for each in world.executions() if each.pipeline.name == "Onboarding"]
    ends = [(each.begins_s, path(each, 4000)[-1].status) for each in of_it]
    assert [end for end in ends if end[0] < 60] == [(10.0 * nth, "failed") for nth in range(6)]
    assert {end for at_s, end in ends if at_s >= 60} == {"success"}
    lengths = [each.lifecycle.length_s() for each in of_it]
    assert max(lengths) < 10  # so that they end in the order in which they begin
    others = [path(each, 1e6)[-1].status for each in world.executions() if each.pipeline.name != "Onboarding"]
    assert {"success", "failed"} == set(others)


@pytest.mark.ci
def test_in_a_world_that_goes_on_for_ever_each_pipeline_does() -> None:
    clock = FakeClock()
    world = World(clock)
    populate(world, executions_count=1, forever=True, fails={"Onboarding": 60.0})
    for _ in range(2):
        clock.advance(20_000.0)
        newest = {name: world.list_executions(pipeline_named(name, seed=SEED).id)[0] for name in NAMES}
        assert {world.now_s() - each.begins_s for each in newest.values()} == {0.0}
    lasting = [each for each in world.executions() if each.begins_s > 0 and each.lifecycle.length_s() > 60]
    assert {each.pipeline.name for each in lasting} == set(NAMES) - {"Onboarding"}


def test_a_world_with_a_past_has_ends_of_a_week_and_one_pipeline_got_worse() -> None:
    world = World(Clock())
    populate(world, forever=True)
    past = [each for each in world.executions() if each.begins_s < 0]
    assert all(each.phase_at(0.0).has_ended for each in past)
    assert {each.pipeline.name for each in past} == set(NAMES)
    assert min(each.begins_s for each in past) < -6.9 * 86_400
    of_it = [(each.begins_s, path(each, 0.0)[-1].status) for each in past if each.pipeline.name == WORSE]
    late = [status for at_s, status in of_it if at_s >= -WORSE_FOR_S]
    early = [status for at_s, status in of_it if at_s < -WORSE_FOR_S]
    assert late.count("failed") / len(late) > 0.1 > early.count("failed") / len(early)


# The world

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


def test_a_planned_deletion_ends_a_path_and_an_id_is_used_once(world: World, travel: Travel) -> None:
    execution = replace(world.add(lifecycle("e"), pipeline=SALES), deleted_s=4)
    world.replace(execution)
    travel(20)
    assert not execution.is_visible(4)
    assert [moment.status for moment in true_path(world, "e")] == ["new", "running"]
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


def test_a_failing_lifecycle_ends_with_the_node_that_failed() -> None:
    lifecycle = make_lifecycle(3, index=0, kind=Kind.FAILING)
    assert lifecycle.phases[-1].status == "failed"
    assert lifecycle.error == f"{lifecycle.nodes[-1].name}: {lifecycle.nodes[-1].error}"
    assert [node for node in lifecycle.nodes if node.error] == [lifecycle.nodes[-1]]
