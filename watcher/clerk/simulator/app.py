"""The simulator as a program: its options, what it says while it runs, and a configuration that watches it."""

import asyncio
import contextlib
import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from watcher.clerk.simulator.scenarios import SCENARIOS, Scenario, populate
from watcher.clerk.simulator.server import SIM_KEY, Simulator
from watcher.clerk.simulator.world import Order, World
from watcher.domain.errors import Exit, WatcherError
from watcher.runtime.clock import Clock

REPORT_EVERY_S = 10.0
UNLIMITED_RATE = 50.0
"""What the example configuration allows itself when the simulator sets no limit, per second."""


class SimulateError(WatcherError):
    """The simulator was asked for something it cannot do."""

    exit_code = Exit.USAGE


class PortTakenError(SimulateError):
    """Another program listens there; it may end."""

    exit_code = Exit.FAILED


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """What the simulator is asked for.

    `time_scale` plays lifecycles that many times as fast; `rate_limit` is per second; with `fit_s` everything happens
    within that many seconds, as for a demonstration.
    """

    host: str = "127.0.0.1"
    port: int = 9000
    scenario: str = "calm"
    seed: int = 7
    pipelines_count: int = 5
    executions_count: int = 8
    time_scale: float = 1.0
    rate_limit: float | None = None
    order: Order = Order.NEWEST
    fit_s: float | None = None


def scenario_named(name: str) -> Scenario:
    """Return a scenario. Raises `SimulateError` with the names there are."""
    if name not in SCENARIOS:
        raise SimulateError(f'no scenario is called "{name}"; use one of {", ".join(SCENARIOS)}')
    return SCENARIOS[name]


def build_world(options: SimulateOptions, *, clock: Clock) -> World:
    """Return a world that begins now. Its ids follow from the seed and the counts alone."""
    world = World(clock, time_scale=options.time_scale, order=options.order)
    populate(
        world,
        seed=options.seed,
        pipelines_count=options.pipelines_count,
        executions_count=options.executions_count,
        fit_s=options.fit_s,
        odd_share=scenario_named(options.scenario).odd_share,
    )
    return world


def build_simulator(options: SimulateOptions, *, world: World) -> Simulator:
    """Return the server of that world, not yet listening."""
    return Simulator(
        world,
        faults=scenario_named(options.scenario).faults,
        rate_limit=options.rate_limit,
        seed=options.seed,
        host=options.host,
        port=options.port,
    )


def example_config(world: World, *, base_url: str, rate_limit: float | None = None) -> str:
    """Return a configuration file that watches every pipeline whole."""
    account = {"api_key": SIM_KEY, "base_url": base_url, "rate_limit": f"{rate_limit or UNLIMITED_RATE:.10g}/s"}
    document = {
        "accounts": {"default": account},
        "watch": [{"pipeline": pipeline.id} for pipeline in world.pipelines()],
    }
    return yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False)


async def simulate(
    options: SimulateOptions,
    *,
    world: World,
    stop: asyncio.Event,
    say: Callable[[str], None],
    config_path: Path | None = None,
    report_every_s: float = REPORT_EVERY_S,
) -> None:
    """Serve that world until `stop`, with a line every ten seconds.

    Write a configuration that watches it, if a path is given. Raises `SimulateError` if it cannot listen, or not write.
    """
    simulator = build_simulator(options, world=world)
    try:
        await simulator.__aenter__()
    except (OSError, UnicodeError) as error:  # the latter for a host no name server would be asked about
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        kind = PortTakenError if taken else SimulateError
        raise kind(f"cannot listen on {options.host}:{options.port}; is it in use? --port 0 picks a free one") from None
    try:
        if config_path is not None:
            config = example_config(simulator.world, base_url=simulator.base_url, rate_limit=options.rate_limit)
            _write(config_path, config)
        say(f"listening on {simulator.base_url} key={SIM_KEY} seed={options.seed} scenario={options.scenario}")
        await _report(simulator, stop=stop, say=say, every_s=report_every_s)
    finally:
        await simulator.__aexit__(None, None, None)


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise SimulateError(f"{path} exists already; give --write-config another name, or remove it") from None
    except OSError as error:
        reason = (error.strerror or "I/O error").lower()
        raise SimulateError(f"cannot write {path} ({reason}); --write-config names a file to be written") from None


async def _report(simulator: Simulator, *, stop: asyncio.Event, say: Callable[[str], None], every_s: float) -> None:
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)
        say(simulator.request_log.summary())
