import asyncio

import aiohttp
import pytest
import yaml

from watcher.clerk.simulator.app import (
    PortTakenError,
    SimulateError,
    SimulateOptions,
    build_simulator,
    build_world,
    example_config,
    scenario_named,
    simulate,
)
from watcher.clerk.simulator.scenarios import CALM, HARSH
from watcher.clerk.simulator.world import Order, World
from watcher.config.models import AccountSettings, WatchSettings
from watcher.domain.errors import Exit
from watcher.runtime.clock import SystemClock

SMALL = SimulateOptions(port=0, pipelines_count=2, executions_count=3)


def small_world() -> World:
    return build_world(SMALL, clock=SystemClock())


def test_the_usual_scenario_is_calm() -> None:
    assert scenario_named(SimulateOptions().scenario).faults == CALM
    assert scenario_named("harsh").faults == HARSH


def test_an_unknown_scenario_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(SimulateError, match='no scenario is called "rough"; use one of calm, harsh') as error:
        scenario_named("rough")
    assert error.value.exit_code == Exit.USAGE


def test_a_world_is_built_as_asked() -> None:
    options = SimulateOptions(pipelines_count=2, executions_count=3, time_scale=10, order=Order.OLDEST)
    world, normal = build_world(options, clock=SystemClock()), build_world(SMALL, clock=SystemClock())
    assert world.order is Order.OLDEST
    assert len(list(world.executions())) == 6
    for fast, slow in zip(world.executions(), normal.executions(), strict=True):
        assert fast.lifecycle.length_s() == pytest.approx(slow.lifecycle.length_s() / 10)


def test_a_simulator_misbehaves_as_its_scenario_says(world: World) -> None:
    assert build_simulator(SimulateOptions(scenario="harsh"), world=world).faults == HARSH


@pytest.mark.parametrize(("rate_limit", "written"), [(None, 50), (5.0, 5), (0.5, 0.5)])
def test_the_example_configuration_watches_everything(rate_limit: float | None, written: float) -> None:
    world = build_world(SMALL, clock=SystemClock())
    document = yaml.safe_load(example_config(world, base_url="http://127.0.0.1:9000", rate_limit=rate_limit))
    account = AccountSettings.model_validate(document["accounts"]["default"])
    watches = [WatchSettings.model_validate({"account": "default", **watch}) for watch in document["watch"]]
    assert (account.base_url, account.rate_limit) == ("http://127.0.0.1:9000", written)
    assert account.api_key.get_secret_value() == "sim-key"
    assert [(str(watch.pipeline), watch.executions) for watch in watches] == [
        (pipeline.id, ()) for pipeline in world.pipelines()
    ]


async def test_it_says_where_it_listens_serves_and_reports_until_it_is_to_stop() -> None:
    stop, lines = asyncio.Event(), asyncio.Queue[str]()
    running = asyncio.ensure_future(simulate(SMALL, world=small_world(), stop=stop, say=lines.put_nowait))
    greeting = await lines.get()
    base_url = greeting.split()[2]
    assert greeting == f"listening on {base_url} key=sim-key seed=7 scenario=calm"
    async with aiohttp.ClientSession() as client, client.get(f"{base_url}/_sim/truth") as response:
        assert len((await response.json())["executions"]) == 6
    stop.set()
    await running
    assert lines.get_nowait() == "served 0"


async def test_it_reports_while_it_runs() -> None:
    stop, lines = asyncio.Event(), asyncio.Queue[str]()
    running = asyncio.ensure_future(
        simulate(SMALL, world=small_world(), stop=stop, say=lines.put_nowait, report_every_s=0.001)
    )
    assert [await lines.get() for _ in range(3)][1:] == ["served 0", "served 0"]
    stop.set()
    await running


async def test_a_taken_port_is_an_error_for_people() -> None:
    async with build_simulator(SMALL, world=build_world(SMALL, clock=SystemClock())) as simulator:
        port = int(simulator.base_url.rsplit(":", 1)[1])
        with pytest.raises(PortTakenError, match=f"cannot listen on 127.0.0.1:{port}; is it in use") as caught:
            await simulate(
                SimulateOptions(port=port),
                world=build_world(SMALL, clock=SystemClock()),
                stop=asyncio.Event(),
                say=print,
            )
    assert caught.value.exit_code is Exit.FAILED


async def test_an_address_of_ipv6_stands_in_brackets() -> None:
    options = SimulateOptions(host="::1", port=0, pipelines_count=1, executions_count=1)
    async with build_simulator(options, world=build_world(options, clock=SystemClock())) as simulator:
        assert simulator.base_url.startswith("http://[::1]:")
