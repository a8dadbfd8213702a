"""`watcher simulate`: a fake Clerk Chat API to try things against."""

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from watcher.clerk.simulator.app import SimulateError, SimulateOptions, build_world
from watcher.clerk.simulator.app import simulate as run_simulator
from watcher.clerk.simulator.scenarios import SCENARIOS
from watcher.clerk.simulator.world import Order
from watcher.cli.interrupt import run_interruptible
from watcher.runtime.clock import SystemClock

EXAMPLES = (
    "watcher simulate --write-config watcher.yaml",
    "watcher simulate --scenario harsh --seed 3",
)

LAST_PORT = 65_535
MOST_EXECUTIONS = 200_000
"""They take about 500 MB, and half a minute to make."""


def _finite(value: float | None) -> float | None:
    """Refuse what no comparison refuses: nan and infinity are numbers to Python."""
    if value is None or math.isfinite(value):
        return value
    raise typer.BadParameter(f"{value} is not a number to count with.")


def _above_zero(value: float | None) -> float | None:
    if _finite(value) is None or (value is not None and value > 0):
        return value
    raise typer.BadParameter(f"{value:g} is not above 0: nothing would ever be answered.")


def _check_count(pipelines: int, executions: int) -> None:
    """Refuse a world that no memory holds."""
    if pipelines * executions > MOST_EXECUTIONS:
        asked = f"{pipelines:,} pipelines of {executions:,} executions are {pipelines * executions:,}"
        raise SimulateError(f"--executions: {asked}; at most {MOST_EXECUTIONS:,} in all can be simulated")


def simulate(
    *,
    port: Annotated[int, typer.Option(min=0, max=LAST_PORT, help="Port to listen on; 0 is any free one.")] = 9000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    scenario: Annotated[str, typer.Option(help=f"How it misbehaves: {', '.join(SCENARIOS)}.")] = "calm",
    seed: Annotated[int, typer.Option(help="The same seed gives the same executions and ids.")] = 7,
    pipelines: Annotated[int, typer.Option(min=1, help="Number of pipelines.")] = 5,
    executions: Annotated[int, typer.Option(min=1, help="Executions per pipeline.")] = 8,
    time_scale: Annotated[
        float, typer.Option(min=0.001, callback=_finite, help="Speed factor: 2 is twice as fast.")
    ] = 1.0,
    rate_limit: Annotated[
        float | None, typer.Option(callback=_above_zero, help="Requests per second and key; above that, 429.")
    ] = None,
    order: Annotated[Order, typer.Option(help="How lists are sorted.")] = Order.NEWEST,
    write_config: Annotated[Path | None, typer.Option(help="Write a configuration for it to this new file.")] = None,
) -> None:
    """Serve a simulated Clerk Chat API.

    Its executions run, pause, succeed and fail. Its API key is sim-key.
    """
    _check_count(pipelines, executions)
    options = SimulateOptions(
        host=host,
        port=port,
        scenario=scenario,
        seed=seed,
        pipelines_count=pipelines,
        executions_count=executions,
        time_scale=time_scale,
        rate_limit=rate_limit,
        order=order,
    )
    # Before there is an event loop: it may take half a minute, in which a signal ends the program at once.
    world = build_world(options, clock=SystemClock())
    run_interruptible(lambda stop: run_simulator(options, world=world, stop=stop, say=_say, config_path=write_config))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 (it says what it serves)
