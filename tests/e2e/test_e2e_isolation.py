"""One account's trouble, or one sink's, is nobody else's."""

from e2e import checks
from e2e.endpoint import Answer
from e2e.stage import PROMPT_S, Stage, all_have_ended, document_of, slowest_s, webhook, world_of

from watcher.simulator.faults import Fault, Faults


async def test_a_hanging_account_delays_no_other(stage: Stage) -> None:
    well = await stage.simulator(world_of(60, ends_after_s=3.0, ends_within_s=4.0))
    hanging = await stage.simulator(world_of(60, ends_within_s=60.0, seed=2), faults=Faults(odds={Fault.HANG: 1.0}))
    receiver = await stage.receiver()
    life = await stage.start(document_of({"well": well, "hanging": hanging}, {"ops": webhook(receiver)}))
    await life.until(lambda: all_have_ended(receiver.events(), well.world), what="all was reported")
    await life.until(lambda: receiver.events("account.degraded"), what="the trouble was reported")
    assert await life.stop() == 0

    assert slowest_s(receiver, well) <= PROMPT_S
    assert checks.of_everything_answered(receiver.kept(), well) == []
    assert [event["source"] for event in receiver.events("account.degraded")] == ["/accounts/hanging"]


async def test_sinks_that_hang_drip_or_flood_delay_no_other_and_no_poll(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(60, ends_after_s=3.0, ends_within_s=4.0))
    ill = {
        "hang": await stage.receiver(lambda _: Answer.HANG),
        "drip": await stage.receiver(lambda _: Answer.DRIP),
        "megabyte": await stage.receiver(lambda _: Answer.MEGABYTE),
    }
    receiver = await stage.receiver()
    sinks = {name: webhook(each) for name, each in {**ill, "well": receiver}.items()}

    life = await stage.start(document_of({"default": simulator}, sinks))
    await life.until(lambda: all_have_ended(receiver.events(), simulator.world), what="all was reported")
    await life.until(lambda: all_have_ended(life.events(), simulator.world), within_s=2, what="all was printed")
    await life.until(
        lambda: all(all_have_ended(ill[name].events(), simulator.world) for name in ("drip", "megabyte")),
        what="the slow ones took it all too",
    )
    assert await life.stop() == 0

    assert slowest_s(receiver, simulator) <= PROMPT_S
    assert checks.of_everything_answered(receiver.kept(), simulator) == []
    assert ill["hang"].attempts
