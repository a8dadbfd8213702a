"""`watcher simulate`: it serves a simulated Clerk Chat API."""

import asyncio
import errno
import math
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
import yaml

from watcher.cli.config_loading import parse_seconds
from watcher.cli.event_loop import run_interruptible
from watcher.cli.shell import put_error, write_file
from watcher.domain.errors import ListenError, UsageError
from watcher.runtime.clock import Clock
from watcher.runtime.tasks import wait_at_most
from watcher.runtime.units import spell_duration
from watcher.simulator.scenarios import NAMES, SCENARIOS, SEED, example_config, pipeline_named, pipeline_names, populate
from watcher.simulator.server import SIM_KEY, Simulator
from watcher.simulator.world import World


def simulate(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 is any free one.")] = 9000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    scenario: Annotated[
        str, typer.Option(help="; ".join(f"{name}: {each.words}" for name, each in SCENARIOS.items()) + ".")
    ] = "calm",
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PIPELINE[=5m]",
            help="Let this pipeline fail, for ever or for the first 5 minutes: one execution starts every "
            f"{World.STARTS_EVERY_S:g} s. By its name ({', '.join(NAMES)}) or id; may be repeated.",
        ),
    ] = None,
    pipelines: Annotated[int, typer.Option(min=1, help="Number of pipelines.")] = 5,
    write_config: Annotated[Path | None, typer.Option(help="Write a configuration for it to this new file.")] = None,
) -> None:
    """Serve a simulated Clerk Chat API.

    Its executions run, pause, succeed and fail. Its API key is sim-key. A configuration written with --fail has the
    rule that reports three failures in a row, and their end.

    Examples:
      watcher simulate --write-config watcher.yaml --fail 'Sales agent=5m'
      watcher simulate --scenario harsh

    """
    if scenario not in SCENARIOS:
        raise UsageError(f'no scenario is called "{scenario}"; use one of {", ".join(SCENARIOS)}')
    fails = parse_fails(fail or [], names=pipeline_names(pipelines))
    # The world is built before the event loop starts: it may take half a minute, and until then a signal ends the
    # program at once.
    world = World(Clock())
    populate(world, pipelines_count=pipelines, odd_share=SCENARIOS[scenario].odd_share, fails=fails)
    simulator = Simulator(world, faults=SCENARIOS[scenario].faults, host=host, port=port)

    async def serve(stop: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            await _listen(stack, simulator, f"{host}:{port}")
            if write_config is not None:
                document = example_config(world, base_url=simulator.base_url, fails=fails)
                write_file(write_config, yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False))
            put_error(f"listening on {simulator.base_url} key={SIM_KEY} scenario={scenario}")
            for name, fails_s in fails.items():
                put_error(f"{name} fails" + ("" if math.isinf(fails_s) else f" for {spell_duration(fails_s)}"))
            await report(simulator, stop=stop)

    run_interruptible(serve)


async def _listen(stack: AsyncExitStack, simulator: Simulator, address: str) -> None:
    try:
        await stack.enter_async_context(simulator)
    except (OSError, UnicodeError) as error:  # `UnicodeError` for an invalid host name
        kind = ListenError if getattr(error, "errno", None) == errno.EADDRINUSE else UsageError
        raise kind(f"cannot listen on {address}; is it in use? --port 0 picks a free one") from None


def parse_fails(options: list[str], *, names: list[str]) -> Mapping[str, float]:
    """Parse options such as `NAME=5m`; return the seconds for which a pipeline fails, by name. Raises `UsageError`."""
    by_word = {name.lower(): name for name in names} | {pipeline_named(name, seed=SEED).id: name for name in names}
    fails: dict[str, float] = {}
    for option in options:
        pipeline, is_limited, duration = option.partition("=")
        if pipeline.lower() not in by_word:
            raise UsageError(f'--fail: no pipeline is called "{pipeline}"; use one of {", ".join(names)}')
        fails[by_word[pipeline.lower()]] = parse_seconds(duration, option="--fail") if is_limited else math.inf
    return fails


async def report(simulator: Simulator, *, stop: asyncio.Event, every_s: float = 10.0) -> None:
    """Print a summary of the requests every `every_s` seconds, and at the end."""
    while not stop.is_set():
        await wait_at_most(every_s, stop.wait())
        put_error(simulator.request_log.summary())
