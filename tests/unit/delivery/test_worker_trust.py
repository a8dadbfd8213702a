"""A sink whose lease is not trusted: nothing is sent, until it is again."""

import asyncio
from collections.abc import Sequence

import pytest
from worker_rig import DELIVERED, FAILED, Rig

from watcher.delivery.worker import REST_S
from watcher.domain.delivery import Delivery
from watcher.domain.errors import LeaseExpiredError
from watcher.sinks.protocol import SendResult


async def test_nothing_is_sent_while_the_lease_is_not_trusted_and_then_it_goes_on(rig: Rig) -> None:
    await rig.record("a", "b")
    rig.is_trusted = False
    assert await rig.go() == REST_S
    assert (rig.sink.take_sent(), rig.store.asked) == ([], {})
    rig.is_trusted = True
    assert await rig.sent_after() == ["a1", "b1"]


async def test_what_was_taken_before_the_trust_ran_out_is_not_sent_and_no_attempt_is_counted(rig: Rig) -> None:
    held = asyncio.get_running_loop().create_future()
    rig.sink.answer = lambda delivery: held if delivery.lane.startswith(b"held") else DELIVERED
    await rig.record(*(f"held{number:02}-" for number in range(16)), "a")
    await rig.worker.tick()
    await rig.sink.arrived.get()
    rig.is_trusted = False
    held.set_result(DELIVERED)
    await rig.settle()
    assert "a1" not in rig.sink.take_sent()
    assert (rig.row("a1")["attempts"], rig.row("a1")["state"]) == (0, "waiting")
    rig.is_trusted = True
    assert await rig.sent_after() == ["a1"]


async def test_what_was_not_sent_because_the_lease_ran_out_counts_as_no_attempt(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def expired(_: Sequence[Delivery]) -> SendResult:
        raise LeaseExpiredError("by the test")

    await rig.record("a")
    with monkeypatch.context() as patch:
        patch.setattr(rig.sink, "send", expired)
        await rig.worker.tick()
        await rig.settle()
    assert (rig.row("a1")["attempts"], rig.row("a1")["state"], rig.is_up()) == (0, "waiting", True)
    assert await rig.sent_after() == ["a1"]


async def test_the_time_in_which_it_is_not_trusted_is_no_failure_of_the_sink(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    await rig.record("a")
    await rig.go()
    for rig.is_trusted, ticks_count, emitted in [(False, 40, []), (True, 29, []), (True, 2, [("sink.failing", 1)])]:
        for _ in range(ticks_count):
            await rig.go(10)
        assert rig.emitted == emitted
