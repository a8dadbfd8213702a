"""stdout, and whoever reads it: one event per line, however slowly they are read, and an end when nobody is left."""

import pytest
from e2e import checks
from e2e.stage import PROMPT_S, Stage, all_have_ended, document_of, slowest_s, webhook, world_of

pytestmark = pytest.mark.untraced


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
    assert slowest_s(receiver, simulator) <= PROMPT_S
    assert life.stdout.lines.tail == b""
    assert sorted(life.emitted) == sorted(receiver.kept())
    assert checks.of_everything_answered(life.emitted, simulator) == []


async def test_a_reader_that_leaves_ends_the_program_and_the_next_one_gets_the_rest(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(30, ends_after_s=2.0, ends_within_s=3.0))
    document = document_of({"default": simulator})
    life = await stage.start(document)
    await life.until(lambda: life.emitted, what="a line was printed")
    life.stdout.leave()
    assert await life.end(within_s=9.0) == 1
    assert "stdout was closed by its reader" in life.stderr.lines.everything().decode()

    second = await stage.start(document)
    await second.until(
        lambda: all_have_ended([*life.events(), *second.events()], simulator.world), what="all was printed"
    )
    assert await second.stop() == 0
    bodies = [*life.emitted, *second.emitted]
    assert checks.of_sequences(bodies) == []
    assert checks.of_truth(bodies, simulator) == []
