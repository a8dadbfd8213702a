"""One account's trouble, or one sink's, is nobody else's."""

from e2e import checks
from e2e.endpoint import Answer
from e2e.stage import Stage, all_have_ended, document_of, webhook, world_of

from watcher.simulator.faults import Fault, Faults

PATIENT = "60s"
"""What hangs is not given up in the time of a test: whoever waited for it would get nothing."""


async def test_a_hanging_account_delays_no_other(stage: Stage) -> None:
    well = await stage.simulator(world_of(60, ends_after_s=3.0, ends_within_s=4.0))
    hanging = await stage.simulator(world_of(60, ends_within_s=60.0, seed=2), faults=Faults(odds={Fault.HANG: 1.0}))
    receiver = await stage.receiver()
    document = document_of({"well": well, "hanging": hanging}, {"ops": webhook(receiver)})
    document["accounts"]["hanging"]["timeout"] = PATIENT
    life = await stage.start(document)
    await life.until(lambda: all_have_ended(receiver.events(), well.world), what="all was reported")
    assert hanging.request_log.entries
    assert "hang" not in hanging.request_log.summary()  # each is still unanswered
    assert await life.stop() == 0
    assert checks.of_everything_answered(receiver.kept(), well) == []


async def test_sinks_that_hang_drip_or_flood_delay_no_other_and_no_poll(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(60, ends_after_s=3.0, ends_within_s=4.0))
    ill = {
        "hang": await stage.receiver(lambda _: Answer.HANG),
        "drip": await stage.receiver(lambda _: Answer.DRIP),
        "megabyte": await stage.receiver(lambda _: Answer.MEGABYTE),
    }
    receiver = await stage.receiver()
    sinks = {name: webhook(each) for name, each in {**ill, "well": receiver}.items()}
    sinks["hang"]["timeout"] = PATIENT

    life = await stage.start(document_of({"default": simulator}, sinks))
    await life.until(lambda: all_have_ended(receiver.events(), simulator.world), what="all was reported")
    await life.until(lambda: all_have_ended(life.events(), simulator.world), what="all was printed")
    await life.until(
        lambda: all(all_have_ended(ill[name].events(), simulator.world) for name in ("drip", "megabyte")),
        what="the slow ones took it all too",
    )
    asked = [each.event["id"] for each in ill["hang"].attempts]
    assert len(asked) == len(set(asked)) > 0  # each is still unanswered
    assert await life.stop() == 0
    assert checks.of_everything_answered(receiver.kept(), simulator) == []
