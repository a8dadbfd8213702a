"""The rate limit as the server counts it, over starts, kills, pauses and a process that stood still."""

import asyncio
import signal
from itertools import pairwise

import pytest
from e2e import checks
from e2e.stage import POLLING, Stage, document_of, webhook, world_of
from simulator_facts import busiest_second

from watcher.simulator.faults import Fault, Faults, Window

RATE = 20


async def test_no_second_sees_more_requests_than_the_limit(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(200, ends_after_s=60.0, ends_within_s=90.0))
    receiver = await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver)}, rate_limit=f"{RATE}/s")
    document["polling"] = POLLING | {"degraded_after": "10s"}

    first = await stage.start(document)
    await first.until(lambda: len(simulator.request_log.entries) > 1.5 * RATE, what="it was busy")
    await first.kill()

    second = await stage.start(document)
    asked_count = len(simulator.request_log.entries)
    await second.until(lambda: len(simulator.request_log.entries) > asked_count + RATE, what="it was busy")
    window = Window(Fault.RATE_LIMITED_SECONDS, simulator.world.now_s(), float("inf"))
    simulator.dice.faults = Faults(windows=(window,), retry_after_s=1)
    await second.until(lambda: any(entry.fault for entry in simulator.request_log.entries), what="a 429")
    simulator.dice.faults = Faults()
    asked_count = len(simulator.request_log.entries)
    await second.until(lambda: len(simulator.request_log.entries) > asked_count + 5, what="it went on")
    second.send(signal.SIGSTOP)
    await asyncio.sleep(2.0)
    second.send(signal.SIGCONT)
    await asyncio.sleep(1.5)
    assert await second.stop() == 0

    assert busiest_second(simulator.request_log) >= 0.9 * RATE
    assert stage.within_pace(simulator, rate=RATE)
    assert checks.of_truth(receiver.kept(), simulator) == []
    assert checks.of_alternation(receiver.kept(), troubles_count=0) == []


@pytest.mark.parametrize(("lives_count", "pause_s"), [(1, 2), pytest.param(3, 4, marks=pytest.mark.ci)])
async def test_one_start_after_another_keeps_the_pace_and_the_pause(
    stage: Stage, lives_count: int, pause_s: int
) -> None:
    simulator = await stage.simulator(world_of(20, ends_after_s=60.0, ends_within_s=90.0))
    document = document_of({"default": simulator}, rate_limit="1/s")

    async def live_until_asked() -> None:
        asked_count = len(simulator.request_log.entries)
        life = await stage.start(document)
        await life.until(lambda: len(simulator.request_log.entries) > asked_count, what="a request was answered")
        await asyncio.sleep(0.2)  # for the answer to be read and written down; the next request is not due yet
        await life.kill()

    for _ in range(lives_count):
        await live_until_asked()
    window = Window(Fault.RATE_LIMITED_SECONDS, simulator.world.now_s(), float("inf"))
    simulator.dice.faults = Faults(windows=(window,), retry_after_s=pause_s)
    for _ in range(2):
        await live_until_asked()

    gaps = [later.at - earlier.at for earlier, later in pairwise(simulator.request_log.entries)]
    assert min(gaps) > 0.98
    assert gaps[-1] > pause_s - 0.05
