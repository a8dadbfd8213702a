"""The rate limit as the server counts it, over starts, kills, reloads and pauses; and strangers who cost it little."""

import asyncio
import resource
import signal
from itertools import pairwise

import psutil
import pytest
from e2e import checks
from e2e.programme import page
from e2e.stage import POLLING, Stage, document_of, webhook, world_of
from simulator_facts import busiest_second

from watcher.simulator.faults import Fault, Faults, Window

RATE = 20
PAUSE_S = 2


async def test_no_second_sees_more_requests_than_the_limit(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(100, ends_after_s=60.0, ends_within_s=90.0))
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
    assert stage.within_pace(simulator.request_log, rate=RATE)
    assert checks.of_truth(receiver.kept(), simulator) == []
    assert checks.of_alternation(receiver.kept(), troubles_count=0) == []


@pytest.mark.ci
async def test_a_key_that_goes_to_another_account_is_not_used_beyond_its_pace(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(60, ends_after_s=60, ends_within_s=90))
    document = document_of({"old": simulator}, rate_limit=f"{RATE}/s")
    life = await stage.start(document)
    await life.until(lambda: len(simulator.request_log.entries) > RATE, what="it was busy")
    watches = [{**watch, "account": "new"} for watch in document["watch"]]
    stage.write({**document, "accounts": {"new": document["accounts"]["old"]}, "watch": watches})
    await life.until(lambda: life.logged("config.reloaded"), what="it was reloaded")
    asked = len(simulator.request_log.entries)
    await life.until(lambda: len(simulator.request_log.entries) > asked + 1.5 * RATE, what="it was busy again")
    assert stage.within_pace(simulator.request_log, rate=RATE)
    assert await life.stop() == 0


@pytest.mark.ci
async def test_one_start_after_another_keeps_the_pace_and_the_pause(
    stage: Stage,
) -> None:
    simulator = await stage.simulator(world_of(20, ends_after_s=60.0, ends_within_s=90.0))
    document = document_of({"default": simulator}, rate_limit="1/s")

    async def live_until_asked() -> None:
        asked_count = len(simulator.request_log.entries)
        life = await stage.start(document)
        await life.until(lambda: len(simulator.request_log.entries) > asked_count, what="a request was answered")
        await asyncio.sleep(0.2)  # for the answer to be read and written down; the next request is not due yet
        await life.kill()

    await live_until_asked()
    window = Window(Fault.RATE_LIMITED_SECONDS, simulator.world.now_s(), float("inf"))
    simulator.dice.faults = Faults(windows=(window,), retry_after_s=PAUSE_S)
    for _ in range(2):
        await live_until_asked()

    gaps = [later.at - earlier.at for earlier, later in pairwise(simulator.request_log.entries)]
    assert min(gaps) > 0.98
    assert gaps[-1] > PAUSE_S - 0.05


# Strangers at the port

FILES_COUNT = 256
METRICS = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.ci
async def test_a_crowd_that_says_nothing_or_reads_nothing_stops_no_poll_and_keeps_no_probe_waiting(
    stage: Stage,
) -> None:
    simulator = await stage.simulator(world_of(50, ends_within_s=90, ends_after_s=60))
    life = await stage.start(document_of({"default": simulator}))
    pages = await life.started()
    resource.prlimit(life.pid, resource.RLIMIT_NOFILE, (FILES_COUNT, FILES_COUNT))
    host, _, port = pages.removeprefix("http://").rpartition(":")
    crowd = [await asyncio.open_connection(host, int(port)) for _ in range(FILES_COUNT + 50)]
    for _, writer in crowd[-50:]:  # those that came last are the last to be let go of
        writer.transport.pause_reading()  # type: ignore[attr-defined] # it is a socket's
        writer.write(METRICS * 50)
    asked = len(simulator.request_log.entries)
    await life.until(lambda: len(simulator.request_log.entries) > asked + 100, what="it went on polling")
    assert await page(f"{pages}/readyz") == (200, "ok\n")
    assert psutil.Process(life.pid).num_fds() < FILES_COUNT
    for _, writer in crowd:
        writer.transport.abort()
    assert len(life.stderr.lines.lines) <= 4
    assert await life.stop() == 0
