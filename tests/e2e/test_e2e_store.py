"""A store that cannot be written for a while, that is deleted, or that another has: nothing is lost, nor done twice."""

import resource
import socket

from e2e import checks
from e2e.programme import outcome_of, page, ready
from e2e.stage import Stage, all_have_ended, document_of, webhook, world_of


async def test_a_store_without_room_loses_nothing_once_there_is_room_again(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(20, ends_after_s=10.0, ends_within_s=12.0))
    receiver = await stage.receiver()
    life = await stage.start(document_of({"default": simulator}, {"ops": webhook(receiver)}))
    pages = await life.started()
    await life.until(lambda: len(receiver.events()) >= 20, what="every execution was reported")

    no_limit = resource.prlimit(life.pid, resource.RLIMIT_FSIZE)
    room = (stage.folder / "watcher.db-wal").stat().st_size
    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (room, no_limit[1]))
    await life.until(lambda: life.logged("store.failed"), what="the store had no room")
    emitted_count = len(receiver.events())
    assert await page(f"{pages}/readyz?verbose") == (503, "not ok: the store cannot be written\n")
    assert await page(f"{pages}/livez") == (200, "ok\n")
    assert "\nwatcher_store_up 0.0\n" in (await page(f"{pages}/metrics"))[1]
    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, no_limit)
    await ready(pages)
    assert "\nwatcher_store_up 1.0\n" in (await page(f"{pages}/metrics"))[1]

    await life.until(lambda: all_have_ended(receiver.events(), simulator.world), what="all was reported")
    assert await life.stop() == 0
    assert emitted_count < len(receiver.events())
    assert checks.of_all(simulator, life.emitted, receiver) == []


async def test_a_store_that_is_deleted_under_the_program_ends_it_loudly(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(1, ends_within_s=60.0))
    life = await stage.start(document_of({"default": simulator}))
    await life.started()
    (stage.folder / "watcher.db").unlink()
    assert await life.end() == 2
    assert "watcher.db was deleted or moved while it was in use" in life.stderr.lines.everything().decode()


async def test_a_second_daemon_on_the_same_file_says_who_holds_it(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(2, ends_within_s=60.0))
    document = document_of({"default": simulator})
    life = await stage.start(document)
    await life.started()
    outcome = await outcome_of("run", "--config", str(stage.write(document)), folder=stage.folder)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert f"in use by pid {life.pid} on {socket.gethostname()}" in outcome.stderr
    assert not life.is_over
