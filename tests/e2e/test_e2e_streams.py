"""stdout and stderr, and whoever reads them: one event per line, however slowly it is read; the log may be missed."""

import asyncio
import os
from pathlib import Path

import pytest
from e2e import checks
from e2e.endpoint import Answer
from e2e.programme import COMMAND, environment
from e2e.stage import Document, Stage, all_have_ended, document_of, webhook, world_of


async def test_a_reader_that_stands_still_loses_nothing_and_delays_nobody(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(60, ends_after_s=3.0, ends_within_s=4.0))
    receiver = await stage.receiver()
    life = await stage.start(document_of({"default": simulator}, {"ops": webhook(receiver)}))
    life.stdout.stop_reading()
    await life.until(lambda: all_have_ended(receiver.events(), simulator.world), what="all was sent")
    unread_count = len(life.emitted)
    life.stdout.read_on()
    await life.until(lambda: all_have_ended(life.events(), simulator.world), what="all was printed")
    assert await life.stop() == 0

    assert unread_count < len(life.emitted) / 2
    assert life.stdout.lines.tail == b""
    assert sorted(life.emitted) == sorted(receiver.kept())
    assert checks.of_everything_answered(life.emitted, simulator) == []


async def test_a_reader_that_leaves_ends_the_program_and_the_next_one_gets_the_rest(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(30, ends_after_s=2.0, ends_within_s=3.0))
    document = document_of({"default": simulator})
    life = await stage.start(document)
    await life.until(lambda: life.emitted, what="a line was printed")
    life.stdout.leave()
    assert await life.end() == 1
    assert "stdout was closed by its reader" in life.stderr.lines.everything().decode()

    second = await stage.start(document)
    await second.until(
        lambda: all_have_ended([*life.events(), *second.events()], simulator.world), what="all was printed"
    )
    assert await second.stop() == 0
    bodies = [*life.emitted, *second.emitted]
    assert checks.of_sequences(bodies) == []
    assert checks.of_truth(bodies, simulator) == []


# stderr: nothing waits for it and nothing ends over it

LOUD: Document = {"log": {"level": "debug"}}
"""A line for each delivery that fails."""


@pytest.mark.ci
async def test_a_reader_of_the_log_that_stands_still_delays_nothing_and_no_end(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(100, ends_after_s=3.0, ends_within_s=4.0))
    well, refusing = await stage.receiver(), await stage.receiver(lambda _: Answer.REJECT)
    sinks = {"well": webhook(well), "refusing": webhook(refusing)}
    life = await stage.start({**document_of({"default": simulator}, sinks), **LOUD})
    await life.started()
    life.stderr.stop_reading()
    await life.until(lambda: len(refusing.attempts) > 300, what="more was logged than a pipe takes")
    await life.until(lambda: all_have_ended(well.events(), simulator.world), what="all was sent")
    await life.until(lambda: all_have_ended(life.events(), simulator.world), what="all was printed")
    life.process.terminate()
    assert await life.process.wait() == 0
    assert await life.end() == 0
    assert len(life.logged("delivery.failed")) < 300


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_behind_it_ends_nothing(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    path = stage.write(document_of({"default": simulator}))
    full_fd = os.open("/dev/full", os.O_WRONLY)
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("run", "--config", str(path)),
        cwd=stage.folder,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=full_fd,
    )
    os.close(full_fd)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        emitted = [await process.stdout.readline() for _ in range(3)]
        process.terminate()
        assert await process.wait() == 0
    assert all(emitted)


async def test_what_is_likely_a_mistake_is_logged_at_the_start_and_keeps_nothing_from_starting(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(2, ends_within_s=60.0))
    hook = {"type": "webhook", "url": "http://127.0.0.1:9/hush", "match": {"labels": {"team": "nobody's"}}}
    life = await stage.start(document_of({"default": simulator}) | {"sinks": {"ops": hook}})
    await life.started()
    problems = [entry["problem"].partition(": sinks.ops")[2] for entry in life.logged("config.warning")]
    assert [problem.partition(",")[0].partition(";")[0] for problem in problems] == [
        ": has no secret",
        ".match.labels: no watch fits all of what is given",
    ]
    assert b"hush" not in life.stderr.lines.everything()
