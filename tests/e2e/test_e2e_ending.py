"""How the daemon ends: what is in flight ends first, but not for longer than 8 s, and not at a second signal."""

import asyncio
import json
import signal
import sqlite3
from contextlib import closing, suppress

import aiohttp
import pytest
from e2e import checks
from e2e.endpoint import Answer
from e2e.programme import Life, page
from e2e.stage import Stage, all_have_ended, document_of, webhook, world_of
from simulator_facts import requests_of

from watcher.cli.shell import ONE_SIGNAL_S
from watcher.simulator.faults import Fault, Faults, Window

PATIENT_S = 16.0
"""Twice the 8 s in which it ends, for a machine that is busy with other tests."""


@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.ci)])
async def test_what_is_in_flight_is_finished_and_never_sent_again(stage: Stage, signum: signal.Signals) -> None:
    simulator = await stage.simulator(world_of(16, ends_after_s=1.0, ends_within_s=3.0))
    receiver = await stage.receiver(lambda _: Answer.SLOW)
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    life = await stage.start(document)
    await life.until(lambda: receiver.attempts, what="something was in flight")
    assert await life.stop(signum) == 0
    with closing(sqlite3.connect(stage.folder / "watcher.db")) as database:
        (waiting,) = database.execute("SELECT count(*) FROM delivery WHERE state = 'waiting'").fetchone()
    assert life.logged("stopped")[0]["waiting"] == waiting

    second = await stage.start(document)
    await second.started()
    await second.until(
        lambda: (
            all_have_ended(receiver.events(), simulator.world)
            and all_have_ended([*life.events(), *second.events()], simulator.world)
        ),
        what="all was reported, there and on stdout",
    )
    assert await second.stop() == 0
    assert len(receiver.attempts) == len(receiver.events())
    assert sorted(receiver.kept()) == sorted([*life.emitted, *second.emitted])
    assert checks.of_sequences(receiver.kept()) == []


async def test_nothing_that_hangs_keeps_it_longer_than_8_s(stage: Stage) -> None:
    life = await _start_hanging(stage)
    assert await life.stop(within_s=PATIENT_S) == 0
    assert life.logged("drain.cut_short")


HANGING_DISK = """
import os, time
from sqlalchemy.engine.default import DefaultDialect

commit = DefaultDialect.do_commit

def hang_or_commit(self, connection):
    while os.path.exists("the-disk-hangs"):
        time.sleep(0.01)
    commit(self, connection)

DefaultDialect.do_commit = hang_or_commit
"""


@pytest.mark.ci
async def test_a_disk_that_hangs_keeps_it_no_longer_than_8_s(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (stage.folder / "sitecustomize.py").write_text(HANGING_DISK)
    monkeypatch.setenv("PYTHONPATH", str(stage.folder))
    simulator = await stage.simulator(world_of(40, ends_after_s=2.0, ends_within_s=4.0))
    life = await stage.start(document_of({"default": simulator}))
    await life.until(lambda: life.emitted, what="something was reported")
    flag = stage.folder / "the-disk-hangs"
    flag.touch()
    await asyncio.sleep(1)  # nothing shows that it hangs
    probe = asyncio.create_task(_ask_for_ever(f"{await life.started()}/readyz"))  # it hangs on the disk, too
    assert await life.stop() == 0
    await probe
    said = [json.loads(line)["event"] for line in life.stderr.lines.lines if line.startswith(b"{")]
    assert said[-2:] == ["store.stuck", "stopped"]

    flag.unlink()
    second = await stage.start(document_of({"default": simulator}))
    await second.until(
        lambda: all_have_ended([*life.events(), *second.events()], simulator.world), what="all was reported"
    )
    assert checks.of_sequences([*life.emitted, *second.emitted]) == []


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGTERM, marks=pytest.mark.ci), signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(stage: Stage, signum: signal.Signals) -> None:
    life = await _start_hanging(stage)
    life.send(signal.SIGTERM)
    await life.until(lambda: life.logged("draining"), what="it drained")
    await asyncio.sleep(2 * ONE_SIGNAL_S)
    assert await life.stop(signum) == 128 + signum
    assert not life.logged("drain.cut_short")


async def test_a_terminal_that_is_closed_ends_it_and_a_hangup_before_reloads(stage: Stage) -> None:
    # Nothing changes meanwhile: an event that is written to a closed terminal would end it with 1.
    simulator = await stage.simulator(world_of(3, ends_within_s=9000.0, ends_after_s=6000.0))
    path = stage.write(document_of({"default": simulator}))
    terminal = await stage.terminal("run", "--config", str(path))
    await terminal.until("started")
    terminal.process.send_signal(signal.SIGHUP)
    await terminal.until("config.reloaded")
    terminal.hang_up()
    async with asyncio.timeout(PATIENT_S):
        assert await terminal.process.wait() == 0


async def _ask_for_ever(url: str) -> None:
    with suppress(aiohttp.ClientError):
        while True:
            await page(url)


async def _start_hanging(stage: Stage) -> Life:
    """Start a daemon of which a poll, a delivery and a line on stdout hang."""
    simulator = await stage.simulator(world_of(40, ends_within_s=60.0))
    hanging = next(simulator.world.executions()).id
    simulator.dice.faults = Faults(windows=(Window(Fault.HANG, execution=hanging),))
    receiver = await stage.receiver(lambda _: Answer.HANG)
    document = document_of({"default": simulator}, {"ops": webhook(receiver, timeout="60s")})
    document["accounts"]["default"]["timeout"] = "60s"
    life = await stage.start(document)
    life.stdout.stop_reading()
    await life.until(
        lambda: len(receiver.attempts) == 16 and requests_of(simulator.request_log, hanging), what="everything hung"
    )
    return life
