from collections.abc import Callable

import pytest
from simulator_facts import path
from virtual import FakeClock

from watcher.config.models import AccountSettings, WatchSettings
from watcher.domain.execution import Status
from watcher.runtime.clock import Clock
from watcher.simulator.responses import full
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
from watcher.simulator.world import SimExecution, World

REQUIRED_FIELDS = {"id", "pipelineId", "pipelineVersionId", "status"}


def filled(*, seed: int = 7, pipelines_count: int = 5, fit_s: float | None = None, odd_share: float = 0.0) -> World:
    world = World(Clock())
    populate(world, seed=seed, pipelines_count=pipelines_count, executions_count=8, fit_s=fit_s, odd_share=odd_share)
    return world


def ids(world: World) -> list[tuple[str, str]]:
    return [(execution.pipeline.id, execution.id) for execution in world.executions()]


def test_the_same_seed_fills_the_same_world() -> None:
    assert list(filled().executions()) == list(filled().executions())
    assert set(ids(filled())).isdisjoint(ids(filled(seed=8)))


def test_names_are_numbered_when_they_run_out() -> None:
    assert [pipeline.name for pipeline in filled(pipelines_count=7).pipelines.values()][5:] == [
        "Sales agent 2",
        "Onboarding 2",
    ]


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


def test_a_bare_execution_is_answered_with_the_required_fields_only() -> None:
    world = filled(pipelines_count=20, odd_share=1.0)
    bare = next(each for each in world.executions() if each.lifecycle.absent)
    assert set(full(bare, world=world, now_s=1e6)) == REQUIRED_FIELDS


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
    for _ in range(3):
        clock.advance(86_400.0)
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
