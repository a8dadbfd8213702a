"""How a worker orders, paces, retries, pauses and ends what it sends."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from worker_rig import BUSY, DELIVERED, FAILED, GONE, HASTY, REFUSED, RULES, Rig, do, name_of, streams

from watcher.delivery.sink_queue import UNSETTLED_COUNT
from watcher.domain.delivery import Delivery
from watcher.domain.routing import GroupRules
from watcher.sinks.protocol import SendOutcome, SendResult


def test_what_is_recorded_is_sent_in_order_and_settled(rig: Rig) -> None:
    do(rig.record("a", "b", "a", "a"))
    assert do(rig.sent_after()) == ["a1", "b1", "a2", "a3"]
    assert (rig.row("a3")["state"], rig.row("a3")["attempts"], rig.row("a3")["answer"]) == ("delivered", 1, "204")
    assert rig.counted("delivered") == 4


def test_the_delay_of_a_delivery_runs_from_its_recording(rig: Rig) -> None:
    do(rig.record("a"))
    do(rig.go(2.5))
    assert rig.metrics.registry.get_sample_value("watcher_delivery_delay_seconds_sum", {"sink": "ops"}) == 2.5


def test_a_failing_delivery_holds_back_later_ones_of_its_execution_only(rig: Rig) -> None:
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) == "a1" else DELIVERED
    do(rig.record("a", "b", "a", "b"))
    assert do(rig.sent_after()) == ["a1", "b1", "b2"]
    assert do(rig.go()) == pytest.approx(1.0)
    assert do(rig.sent_after(0.9)) == []
    assert do(rig.sent_after(0.1)) == ["a1"]
    rig.sink.answer = lambda _: DELIVERED
    assert do(rig.sent_after(5)) == ["a1", "a2"]
    assert rig.row("a1")["attempts"] == 3


def test_a_delivery_waits_for_its_next_step_over_restarts_too_and_the_last_repeats(rig: Rig) -> None:
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) == "a1" else DELIVERED
    do(rig.record("a"))
    waits: list[float] = []
    do(rig.go())
    for round_ in range(5):
        waits.append((rig.row("a1")["due_at"] - rig.clock.steady_us()) / 1e6)
        do(rig.send("b"))
        if round_ == 2:
            do(rig.restart())
        assert do(rig.go_for(waits[-1] + 0.002)) == ["a1"]
    assert waits == pytest.approx([1, 5, 30, 30, 30], abs=0.01)
    assert (rig.row("a1")["attempts"], rig.counted("retried")) == (6, 6)


def test_a_sink_that_never_gives_up_keeps_trying_and_looks_for_nothing_to_give_up(rig: Rig) -> None:
    do(rig.restart(rules=replace(RULES, give_up_after_s=None)))
    do(rig.send("a", answer=FAILED))
    do(rig.go(1e6, flushes=True))
    assert (rig.row("a1")["state"], rig.store.asked["give_up"]) == ("waiting", 0)


def test_what_waited_for_an_event_goes_after_it_though_a_flush_has_settled_that_one(rig: Rig) -> None:
    do(rig.begin("a", "a"))
    do(rig.settle())
    do(rig.worker.flush())
    assert do(rig.sent_after()) == ["a2"]


def test_what_is_accepted_is_settled_as_that_and_lets_the_next_go(rig: Rig) -> None:
    rig.sink.answer = lambda _: SendResult(SendOutcome.ACCEPTED, "202")
    do(rig.record("a", "a"))
    with capture_logs() as logs:
        assert do(rig.sent_after()) == ["a1", "a2"]
    assert (rig.row("a1")["state"], rig.counted("accepted"), rig.counted("delivered")) == ("accepted", 2, 0)
    assert logs == []


def test_a_body_refused_five_times_in_a_row_is_dead_and_holds_nothing_back(rig: Rig) -> None:
    rig.sink.answer = lambda delivery: REFUSED if name_of(delivery) == "a1" else DELIVERED
    do(rig.record("a", "a"))
    with capture_logs() as logs:
        for after_s in (0, 1, 5, 30, 30):
            assert rig.row("a1")["state"] == "waiting"
            assert do(rig.sent_after(after_s)) in (["a1"], ["a1", "a2"])
    assert (rig.row("a1")["state"], rig.row("a1")["answer"]) == ("dead", "422")
    assert rig.row("a2")["state"] == "delivered"
    assert (rig.counted("dead"), rig.counted("retried")) == (1, 4)
    (dead,) = [each for each in logs if each["event"] == "delivery.dead"]
    assert (dead["log_level"], dead["type"], dead["answer"]) == ("warning", "execution.failed", "422")
    assert (dead["attempt"], dead["refused"]) == (5, 5)


def test_a_sink_that_asks_for_a_pause_is_left_alone_for_so_long_over_a_restart_too(rig: Rig) -> None:
    do(rig.send("a", answer=BUSY))
    do(rig.restart())
    do(rig.record("b", "c", "d"))
    rig.sink.answer = lambda _: DELIVERED
    assert do(rig.sent_after(50)) == []
    assert do(rig.go(5)) == pytest.approx(5 - 0.003)
    assert sorted(do(rig.sent_after(5))) == ["a1", "b1", "c1", "d1"]


def test_a_410_disables_the_sink_and_its_deliveries_wait(rig: Rig) -> None:
    rig.sink.answer = lambda _: GONE
    do(rig.record("a"))
    with capture_logs() as logs:
        assert do(rig.sent_after()) == ["a1"]
    do(rig.record("b"))
    assert do(rig.sent_after(3600)) == []
    assert rig.emitted == [("sink.disabled", 1)]
    assert (rig.sink_state(), rig.is_up()) == ("disabled", False)
    assert (rig.row("a1")["state"], rig.row("a1")["answer"]) == ("waiting", "410")
    assert {"event": "sink.disabled", "log_level": "warning", "sink": "ops", "answer": "410"} in logs
    with capture_logs() as logs:
        do(rig.restart())
    (disabled,) = logs
    assert (disabled["event"], disabled["log_level"]) == ("sink.disabled", "warning")
    assert "410 Gone" in disabled["note"]
    assert not rig.is_up()
    assert do(rig.sent_after(3600)) == []
    assert rig.emitted == [("sink.disabled", 1)]


@pytest.mark.parametrize("is_enabled", [False, True])
def test_a_disabled_sink_is_served_once_its_block_changes_or_it_is_enabled(rig: Rig, *, is_enabled: bool) -> None:
    do(rig.send("a", "a", "b", answer=GONE))
    do(rig.go(3600))
    rig.sink.answer = lambda _: FAILED
    if is_enabled:
        do(rig.worker.enable())
        assert sorted(do(rig.sent_after(1))) == ["a1", "b1"]
    do(rig.restart(fingerprint="as written" if is_enabled else "changed"))
    for _ in range(41):
        do(rig.go(10))
    assert (rig.emitted, rig.sink_state(), rig.is_up()) == ([("sink.disabled", 1)], "failing", False)
    rig.sink.answer = lambda _: DELIVERED
    assert {"a1", "a2"} <= set(do(rig.sent_after(60)))
    assert (rig.emitted[1:], rig.sink_state(), rig.is_up()) == ([("sink.recovered", 2)], None, True)


@pytest.mark.parametrize("is_off", [True, False])
def test_the_clock_of_giving_up_stands_still_while_off_or_disabled(rig: Rig, *, is_off: bool) -> None:
    do(rig.restart(rules=HASTY))
    answers = iter([FAILED, FAILED if is_off else GONE])
    rig.sink.answer = lambda _: next(answers, FAILED)
    do(rig.send("a"))
    do(rig.go(60))
    if is_off:
        do(rig.stop())
        rig.clock.elapsed_s += 5000
        do(rig.start(rules=HASTY))
    else:
        do(rig.go(5000, flushes=True))
        do(rig.restart(rules=HASTY, fingerprint="changed"))
    do(rig.go(30))
    assert rig.row("a1")["state"] == "waiting"
    do(rig.go(30))
    assert rig.row("a1")["state"] == "dead"


def test_deliveries_keep_to_the_rate(rig: Rig) -> None:
    do(rig.restart(rules=replace(RULES, rate_per_s=1.0)))
    do(rig.record("a", "b", "c"))
    assert do(rig.sent_after(1.0)) == []
    assert do(rig.sent_after(0.021)) == ["a1"]
    assert do(rig.go()) == pytest.approx(1 / 0.98, abs=0.021)
    assert do(rig.sent_after(1.0)) == []
    assert do(rig.sent_after(0.021)) == ["b1"]
    assert do(rig.sent_after(100)) == ["c1"]


def test_each_further_request_of_one_delivery_takes_a_slot_of_the_rate(rig: Rig) -> None:
    do(rig.restart(rules=replace(RULES, rate_per_s=0.98)))
    waits: list[float] = []

    async def in_parts() -> SendResult:
        waits.extend(rig.worker.take_slot() for _ in range(2))
        return DELIVERED

    rig.sink.answer = lambda _: in_parts()
    do(rig.record("a", "b"))
    assert do(rig.sent_after(1.1)) == ["a1"]
    assert waits == [pytest.approx(gap_s / 0.98**2, abs=0.021) for gap_s in (1, 2)]
    assert do(rig.sent_after(2.9)) == []
    assert do(rig.sent_after(0.3)) == ["b1"]


def test_a_further_request_waits_for_the_end_of_a_pause(rig: Rig) -> None:
    answers = iter([BUSY, DELIVERED])
    rig.sink.answer = lambda _: next(answers)
    do(rig.send("a"))
    assert rig.worker.take_slot() == pytest.approx(60)


def test_a_crash_of_one_attempt_is_a_failed_attempt(rig: Rig) -> None:
    rig.sink.answer = lambda _: ValueError("https://hooks.example.com/secret")
    do(rig.record("a"))
    with capture_logs() as logs:
        do(rig.go())
    assert (rig.row("a1")["state"], rig.row("a1")["answer"]) == ("waiting", "error")
    (crash,) = [each for each in logs if each["event"] == "delivery.crashed"]
    assert (crash["error"], "secret" in str(logs)) == ("ValueError", False)


# Much at once: slots, batches, settling in groups


def test_an_answer_frees_its_slot_before_it_is_settled_and_all_are_settled_at_once(rig: Rig) -> None:
    do(rig.begin(*streams(40)))
    do(rig.settle())
    assert rig.sink.take_sent() == [f"{stream}1" for stream in streams(40)]
    assert rig.store.asked["settle"] == 0
    do(rig.go())
    assert (rig.store.asked["settle"], rig.counted("delivered")) == (1, 40)


def test_what_was_begun_and_is_not_settled_is_bounded(rig: Rig) -> None:
    do(rig.restart(rules=replace(RULES, group=GroupRules(("pipeline",), wait_s=1.0, max_count=100))))
    for number in range(12):
        do(rig.record(*(f"p{number:02}-{stream}" for stream in streams(100)), data={"pipeline": {"id": str(number)}}))
    rig.clock.elapsed_s += 1
    for _ in range(6):
        do(rig.worker.tick())
    assert UNSETTLED_COUNT <= sum(len(each.batch) for each in rig.held()) < UNSETTLED_COUNT + 100
    do(rig.go())
    assert (len(rig.sink.sent), rig.counted("delivered")) == (1200, 1200)


def test_what_is_recorded_while_enough_is_at_hand_is_read_once_there_is_room(rig: Rig) -> None:
    do(rig.begin(*streams(60)))
    do(rig.begin("new"))
    rig.woken = False
    do(rig.settle())
    while rig.woken:
        rig.woken = False
        do(rig.worker.tick())
        do(rig.settle())
    assert len(rig.sink.sent) == 61


def test_a_sink_that_takes_batches_is_sent_all_that_is_due_at_once(rig: Rig) -> None:
    batches = note_batches(rig, batch_count=100)
    do(rig.send(*streams(70), "a", "a"))
    assert batches == [[*(f"{stream}1" for stream in streams(70)), "a1"], ["a2"]]


def test_what_cannot_be_sent_holds_up_its_batch_only_once(rig: Rig) -> None:
    sent = note_batches(rig, batch_count=100, bad="b1")
    do(rig.send("a", "b", "c"))
    do(rig.go(after_s=60.0))
    assert sent == [["a1", "b1", "c1"], ["a1"], ["b1"], ["c1"]]
    assert (rig.row("a1")["state"], rig.row("c1")["state"]) == ("delivered", "delivered")


def test_what_a_short_pause_holds_up_goes_on_right_after_it(rig: Rig) -> None:
    busy = replace(BUSY, retry_after_s=1.0)
    rig.sink.answer = lambda delivery: busy if name_of(delivery) == "s000-1" else DELIVERED
    do(rig.record(*streams(100)))
    assert do(rig.go()) <= 1.0


def note_batches(rig: Rig, *, batch_count: int, bad: str = "") -> list[list[str]]:
    """Let the sink take batches, none of which may hold the bad delivery; return what each had."""
    batches: list[list[str]] = []

    async def take(batch: Sequence[Delivery]) -> SendResult:
        batches.append([name_of(each) for each in batch])
        if bad in batches[-1]:
            raise ValueError
        return DELIVERED

    rig.sink.batch_count = batch_count
    rig.sink.send = take  # type: ignore[method-assign]
    return batches
