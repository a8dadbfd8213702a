"""What a worker reports of its sink, and what it does while the store is in trouble, or its lease is not trusted."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from stores import claim
from structlog.testing import capture_logs
from worker_rig import BUSY, DELIVERED, FAILED, GONE, Rig, do, name_of

from watcher.domain.delivery import Delivery
from watcher.domain.errors import LeaseExpiredError, OwnershipLostError, StoreUnusableError
from watcher.sinks.protocol import SendOutcome, SendResult


async def fail_for(rig: Rig, seconds: float) -> None:
    for _ in range(round(seconds / 10)):
        await rig.go(10)


def trouble_of(rig: Rig, answer: str) -> float | None:
    return rig.metrics.registry.get_sample_value("watcher_sink_trouble_info", {"sink": "ops", "answer": answer})


def test_a_sink_is_reported_as_failing_after_five_minutes_and_once(rig: Rig) -> None:
    do(rig.send("a", "b", answer=FAILED))
    do(fail_for(rig, 290))
    assert (rig.emitted, rig.sink_state(), rig.is_up()) == ([], None, True)
    with capture_logs() as logs:
        do(fail_for(rig, 600))
    assert (rig.emitted, rig.sink_state(), rig.is_up()) == ([("sink.failing", 1)], "failing", False)
    assert [each for each in logs if each["event"].startswith("sink.")] == [
        {"event": "sink.failing", "log_level": "warning", "sink": "ops", "answer": "500"}
    ]
    assert rig.answers == ["500"]
    assert trouble_of(rig, "500") == 1


def test_a_restart_does_not_report_it_again_and_the_next_success_ends_it(rig: Rig) -> None:
    do(rig.send("a", answer=FAILED))
    do(fail_for(rig, 300))
    do(rig.restart())
    do(rig.record("b"))
    do(fail_for(rig, 900))
    assert (rig.emitted, rig.is_up()) == ([("sink.failing", 1)], False)
    rig.sink.answer = lambda _: DELIVERED
    with capture_logs() as logs:
        do(rig.go(60))
    assert (rig.emitted[1:], rig.sink_state(), rig.is_up()) == ([("sink.recovered", 2)], None, True)
    assert trouble_of(rig, "500") is None
    assert {"event": "sink.recovered", "log_level": "info", "sink": "ops", "answer": "204"} in logs
    do(fail_for(rig, 600))
    assert len(rig.emitted) == 2


def test_five_minutes_of_failures_may_hold_a_restart(rig: Rig) -> None:
    do(rig.send("a", answer=FAILED))
    do(fail_for(rig, 200))
    do(rig.stop())
    rig.clock.elapsed_s += 5000
    do(rig.start())
    do(fail_for(rig, 90))
    assert rig.emitted == []
    do(fail_for(rig, 40))
    assert rig.emitted == [("sink.failing", 1)]


IN_AN_HOUR = SendResult(SendOutcome.RETRY, "503", 3600.0)


def test_a_kill_costs_the_five_minutes_no_more_than_the_time_since_the_last_flush(rig: Rig) -> None:
    do(rig.send("a", answer=IN_AN_HOUR))
    for _ in range(11):
        do(rig.go(25, flushes=True))
        do(rig.go(4))
        do(rig.kill())
        do(rig.start())
        do(rig.go())
    do(rig.go(24))
    assert rig.emitted == []
    do(rig.go(2))
    assert rig.emitted == [("sink.failing", 1)]


@pytest.mark.parametrize("result", [DELIVERED, GONE])
def test_a_sink_with_nothing_to_try_writes_nothing_again_and_again(rig: Rig, result: SendResult) -> None:
    do(rig.send("a", answer=result))
    for _ in range(10):
        do(rig.go(5, flushes=True))
    assert (rig.store.asked["save"], rig.store.asked["give_up"] <= 1) == (0, True)


@pytest.mark.parametrize("answer", [FAILED, BUSY])
def test_a_sink_that_something_waits_for_writes_one_row_a_flush(rig: Rig, answer: SendResult) -> None:
    do(rig.send(*"abcdefgh", answer=answer))
    do(rig.go(1, flushes=True))
    do(rig.worker.flush())
    assert rig.store.asked["save"] == 2


@pytest.mark.parametrize("is_stopped", [False, True])
def test_an_attempt_that_never_ends_fails_unless_the_process_is_stopped(rig: Rig, *, is_stopped: bool) -> None:
    do(rig.begin("a"))
    do(rig.worker.tick())
    rig.clock.elapsed_s += 300
    rig.clock.stopped_s += 300 * is_stopped
    do(rig.worker.tick())
    assert rig.emitted == ([] if is_stopped else [("sink.failing", 1)])


def test_the_first_failure_of_a_row_is_warned_of_once_with_its_answer(rig: Rig) -> None:
    rig.sink.answer = lambda _: replace(FAILED, remedy="make a new one")
    do(rig.record("a", "b"))
    with capture_logs() as logs:
        do(rig.go())
        do(fail_for(rig, 100))
    (warning,) = [each for each in logs if each["log_level"] == "warning"]
    told = {"event": "delivery.failed", "sink": "ops", "answer": "500", "attempt": 1, "wait_s": 1.0}
    assert warning.items() >= (told | {"remedy": "make a new one"}).items()
    rig.sink.answer = lambda _: DELIVERED
    with capture_logs() as logs:
        do(rig.go(60))
        do(rig.send("c"))
    assert logs == [{"event": "delivery.recovered", "log_level": "info", "sink": "ops"}]


def test_what_fails_beside_others_that_get_through_is_warned_of_every_five_minutes_at_most(rig: Rig) -> None:
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) == "a1" else DELIVERED
    do(rig.record("a"))
    with capture_logs() as logs:
        for _ in range(66):
            do(rig.record("b"))
            do(rig.go(10))
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["delivery.failed"] * 3
    assert [each["event"] for each in logs if each["log_level"] == "info"] == ["delivery.recovered"] * 3


def test_a_store_that_cannot_be_read_is_asked_again_each_second_so_nothing_waits_once_it_can(rig: Rig) -> None:
    do(rig.record("a"))
    rig.store.broken.add("take")
    do(rig.go())
    for asked_count in range(1, 61):
        do(rig.go(0.9))
        assert rig.store.asked["take"] == asked_count
        do(rig.go(0.1))
    rig.store.broken.clear()
    assert do(rig.sent_after(1)) == ["a1"]


def test_an_answer_that_could_not_be_recorded_is_kept_and_recorded_once_it_can_be(rig: Rig) -> None:
    rig.store.broken.add("settle")
    names = [f"s{index:02}-" for index in range(20)]
    do(rig.record(*names))
    assert len(do(rig.sent_after())) == 20
    do(rig.record("late"))
    for asked_count in range(1, 5):
        assert do(rig.sent_after(0.9)) == []
        assert rig.store.asked["settle"] == asked_count
        assert do(rig.sent_after(0.1)) == []
    assert rig.counted("delivered") == 0
    do(rig.record("s00-"))
    rig.store.broken.clear()
    assert sorted(do(rig.sent_after(1))) == ["late1", "s00-2"]
    assert rig.counted("delivered") == 22
    assert rig.row("s00-1")["attempts"] == 1


def test_nothing_is_sent_while_the_store_refuses_what_others_write(rig: Rig) -> None:
    rig.store.monitor.failing_since = rig.clock.monotonic()
    do(rig.record("a"))
    assert do(rig.go()) == 1
    assert do(rig.sent_after(400)) == []
    assert (rig.emitted, rig.is_up()) == ([], True)
    rig.store.monitor.failing_since = None
    assert do(rig.sent_after(1)) == ["a1"]


def test_a_state_that_could_not_be_recorded_is_reported_later(rig: Rig) -> None:
    rig.sink.answer = lambda _: GONE
    rig.store.broken.add("record")
    do(rig.send("a"))
    assert rig.sink_state() is None
    rig.store.broken.clear()
    do(rig.go(0.5))
    assert rig.sink_state() is None
    do(rig.go(0.5))
    assert rig.sink_state() == "disabled"


def test_an_owner_that_was_replaced_during_an_attempt_records_nothing_and_ends_the_program(rig: Rig) -> None:
    do(rig.begin("a"))
    do(claim(rig.real_store, "sink", "ops"))
    do(rig.settle())
    with pytest.raises(OwnershipLostError):
        do(rig.go())
    assert rig.row("a1")["state"] == "waiting"


@pytest.mark.parametrize("method", ["take", "record", "settle"])
def test_a_damaged_store_ends_the_program(rig: Rig, method: str) -> None:
    rig.sink.answer = lambda _: GONE
    rig.store.broken.add(method)
    rig.store.error = StoreUnusableError("the file is damaged")
    do(rig.record("a"))
    try:
        do(rig.go())
    except StoreUnusableError as error:  # of a tick: to whoever runs it
        rig.ends.append(error)
    assert [str(error) for error in rig.ends] == ["the file is damaged"]


def test_what_was_taken_before_the_trust_ran_out_is_not_sent_and_no_attempt_is_counted(rig: Rig) -> None:
    do(rig.begin(*(f"held{number:02}-" for number in range(16)), "a"))
    rig.is_trusted = False
    do(rig.settle())
    assert "a1" not in rig.sink.take_sent()
    assert (rig.row("a1")["attempts"], rig.row("a1")["state"]) == (0, "waiting")
    rig.is_trusted = True
    assert do(rig.sent_after()) == ["a1"]


def test_what_was_not_sent_without_a_lease_is_no_attempt(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def expired(_: Sequence[Delivery]) -> SendResult:
        raise LeaseExpiredError("by the test")

    do(rig.record("a"))
    with monkeypatch.context() as patch:
        patch.setattr(rig.sink, "send", expired)
        do(rig.worker.tick())
        do(rig.settle())
    assert (rig.row("a1")["attempts"], rig.row("a1")["state"], rig.is_up()) == (0, "waiting", True)
    assert do(rig.sent_after()) == ["a1"]


def test_the_time_in_which_it_is_not_trusted_is_no_failure_of_the_sink(rig: Rig) -> None:
    do(rig.send("a", answer=FAILED))
    for rig.is_trusted, ticks_count, emitted in [(False, 40, []), (True, 29, []), (True, 2, [("sink.failing", 1)])]:
        for _ in range(ticks_count):
            do(rig.go(10))
        assert rig.emitted == emitted
