"""What the daemon says of itself over its life, and of an account in trouble; of none for the time it was stopped."""

import asyncio
import re
import signal
from itertools import islice

import pytest
from e2e import checks
from e2e.programme import Outcome, outcome_of, page, ready
from e2e.stage import POLLING, Stage, document_of, webhook, world_of

from watcher.simulator.faults import Fault, Faults
from watcher.simulator.scenarios import CALM
from watcher.simulator.server import Simulator

HANGING = Faults(odds={Fault.HANG: 1.0})


@pytest.mark.ci
async def test_a_trouble_is_reported_once_and_the_pages_are_served_throughout(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(20, ends_within_s=90.0, ends_after_s=60.0))
    receiver = await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    document["polling"] = POLLING | {"degraded_after": "1s"}

    life = await stage.start(document)
    pages = await life.started()
    await life.until(lambda: len(receiver.events()) >= 20, what="every execution was reported")
    await life.until(lambda: life.logged("account.ready"), what="all of the account was seen")
    assert life.logged("account.ready")[0]["open"] == 20
    assert await page(f"{pages}/livez") == (200, "ok\n")
    async with asyncio.timeout(10):  # maintenance may still be at its first tick
        while await page(f"{pages}/readyz?verbose") != (200, "ok\n"):
            pass
    asked = {"WATCHER_HTTP_LISTEN": pages.removeprefix("http://"), "WATCHER_CONFIG": "/nowhere"}
    assert await outcome_of("health", folder=stage.folder, environ=asked) == Outcome(0, "ready\n", "")
    metrics = await _metrics(pages)
    assert metrics['watcher_account_up{account="default"}'] == 1
    assert metrics['watcher_api_requests_total{account="default",endpoint="get",outcome="ok"}'] >= 20
    assert metrics['watcher_api_requests_total{account="default",endpoint="get",outcome="timeout"}'] == 0
    assert metrics['watcher_events_total{type="execution.lost"}'] == 0

    simulator.dice.faults = HANGING
    await life.until(lambda: receiver.events("account.degraded"), what="the trouble was reported")
    assert await page(f"{pages}/livez") == (200, "ok\n")
    assert await page(f"{pages}/readyz") == (200, "ok\n")
    metrics = await _metrics(pages)
    assert metrics['watcher_account_up{account="default"}'] == 0
    assert metrics['watcher_api_requests_total{account="default",endpoint="get",outcome="timeout"}'] > 0
    await life.kill()

    life, asked_count = await stage.start(document), len(simulator.request_log.entries)
    pages = await life.started()
    await life.until(lambda: len(simulator.request_log.entries) > asked_count, what="the API was asked")
    await ready(pages)
    assert (await _metrics(pages))['watcher_account_up{account="default"}'] == 0
    await life.kill()

    simulator.dice.faults = CALM
    life = await stage.start(document)
    pages = await life.started()
    await life.until(lambda: receiver.events("account.recovered"), what="the recovery was reported")
    assert (await _metrics(pages))['watcher_account_up{account="default"}'] == 1
    assert await life.stop() == 0

    assert checks.of_alternation(receiver.kept(), troubles_count=1) == []
    assert {event["data"]["reason"] for event in receiver.events("account.degraded")} == {"unreachable"}
    assert checks.of_truth(receiver.kept(), simulator) == []


async def _metrics(pages: str) -> dict[str, float]:
    """Return each sample by its name and labels."""
    _, text = await page(f"{pages}/metrics")
    return {match[1]: float(match[2]) for match in re.finditer(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


@pytest.mark.parametrize(("degraded_after_s", "stopped_s"), [(2.5, 4.0), pytest.param(5.0, 9.0, marks=pytest.mark.ci)])
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
    simulator.dice.faults = Faults(odds={Fault.SERVER_ERROR: 1.0})
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
