"""A daemon that is stopped for a while (SIGSTOP, `docker pause`) blames nobody for the time it did not run."""

import asyncio
import signal
from itertools import islice

import pytest
from e2e.stage import POLLING, Stage, document_of, webhook, world_of

from watcher.simulator.faults import Fault, Faults
from watcher.simulator.scenarios import CALM
from watcher.simulator.server import Simulator

pytestmark = pytest.mark.untraced

BROKEN = Faults(odds={Fault.SERVER_ERROR: 1.0})


@pytest.mark.parametrize(
    ("degraded_after_s", "stopped_s"), [(2.5, 4.0), pytest.param(5.0, 9.0, marks=pytest.mark.long)]
)
async def test_a_stop_right_after_a_failure_is_reported_as_no_trouble(
    stage: Stage, degraded_after_s: float, stopped_s: float
) -> None:
    simulator = await stage.simulator(world_of(5, ends_after_s=60.0, ends_within_s=90.0))
    receiver = await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    document["polling"] = POLLING | {"degraded_after": f"{round(1000 * degraded_after_s)}ms"}
    life = await stage.start(document)
    await life.until(lambda: len(receiver.events()) >= 5, what="every execution was reported")

    asked_count = len(simulator.request_log.entries)
    simulator.dice.faults = BROKEN
    await life.until(lambda: codes(simulator, since=asked_count).count(500) > 7, what="polls had failed")
    life.send(signal.SIGSTOP)
    await asyncio.sleep(stopped_s)
    simulator.dice.faults, asked_count = CALM, len(simulator.request_log.entries)
    life.send(signal.SIGCONT)
    await life.until(lambda: codes(simulator, since=asked_count).count(200) > 10, what="it looked again")
    assert await life.stop() == 0
    assert (life.events("account.degraded"), life.logged("account.degraded")) == ([], [])


def codes(simulator: Simulator, *, since: int) -> list[int | None]:
    """Return what was answered to the requests from that one on."""
    return [entry.code for entry in islice(simulator.request_log.entries, since, None)]
