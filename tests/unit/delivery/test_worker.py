"""How a worker orders, paces, retries, pauses and ends what it sends."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from parameters import seeds
from structlog.testing import capture_logs
from worker_rig import BUSY, DELIVERED, FAILED, GONE, HASTY, REFUSED, RULES, Answer, Rig, in_flight, name_of, streams

from watcher.delivery.dispatcher import REST_S, SETTLE_AFTER_S, SETTLE_COUNT
from watcher.delivery.sink_queue import CONCURRENCY, UNSETTLED_COUNT
from watcher.domain.delivery import Delivery
from watcher.domain.errors import OutputClosedError
from watcher.domain.routing import GroupRules
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.store.changes import Taken
from watcher.store.recording import Item
from watcher.store.sqlite import SqliteDatabase


async def test_what_is_recorded_is_sent_in_order_and_settled(rig: Rig) -> None:
    await rig.record("a", "b", "a", "a")
    assert await rig.sent_after() == ["a1", "b1", "a2", "a3"]
    assert (rig.row("a3")["state"], rig.row("a3")["attempts"], rig.row("a3")["answer"]) == ("delivered", 1, "204")
    assert rig.counted("delivered") == 4


async def test_where_others_record_too_it_looks_every_second(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqliteDatabase, "exclusive", False)
    await rig.restart()
    assert await rig.go() == 1


async def test_the_delay_of_a_delivery_runs_from_its_recording(rig: Rig) -> None:
    await rig.record("a")
    await rig.go(2.5)
    assert rig.metrics.registry.get_sample_value("watcher_delivery_delay_seconds_sum", {"sink": "ops"}) == 2.5


async def test_sixteen_are_in_flight_and_one_that_ends_lets_the_next_go_without_a_tick(rig: Rig) -> None:
    answers: dict[str, asyncio.Future[Answer]] = {}

    def hold(delivery: Delivery) -> asyncio.Future[Answer]:
        return answers.setdefault(name_of(delivery), asyncio.get_running_loop().create_future())

    rig.sink.answer = hold
    await rig.record(*streams(20))
    assert await rig.worker.tick() == 10
    for _ in range(16):
        await rig.sink.arrived.get()
    assert rig.sink.arrived.empty()
    answers["s003-1"].set_result(DELIVERED)
    assert await rig.sink.arrived.get() == "s016-1"
    assert rig.sink.in_flight_count == 16


async def test_a_failing_delivery_holds_back_later_ones_of_its_execution_only(rig: Rig) -> None:
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) == "a1" else DELIVERED
    await rig.record("a", "b", "a", "b")
    assert await rig.sent_after() == ["a1", "b1", "b2"]
    assert await rig.go() == pytest.approx(1.0)
    assert await rig.sent_after(0.9) == []
    assert await rig.sent_after(0.1) == ["a1"]
    rig.sink.answer = lambda _: DELIVERED
    assert await rig.sent_after(5) == ["a1", "a2"]
    assert rig.row("a1")["attempts"] == 3


async def test_a_delivery_waits_for_its_next_step_over_restarts_too_and_the_last_repeats(rig: Rig) -> None:
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) == "a1" else DELIVERED
    await rig.record("a")
    waits: list[float] = []
    await rig.go()
    for round_ in range(5):
        waits.append((rig.row("a1")["due_at"] - rig.clock.steady_us()) / 1e6)
        await rig.send("b")
        if round_ == 2:
            await rig.restart()
        assert await rig.go_for(waits[-1] + 0.002) == ["a1"]
    assert waits == pytest.approx([1, 5, 30, 30, 30], abs=0.01)
    assert (rig.row("a1")["attempts"], rig.counted("retried")) == (6, 6)


async def test_a_sink_that_never_gives_up_keeps_trying_and_looks_for_nothing_to_give_up(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, give_up_after_s=None))
    await rig.send("a", answer=FAILED)
    await rig.go(1e6, flushes=True)
    assert (rig.row("a1")["state"], rig.store.asked["give_up"]) == ("waiting", 0)


async def test_what_waited_for_an_event_goes_after_it_though_a_flush_has_settled_that_one(rig: Rig) -> None:
    await rig.begin("a", "a")
    await rig.settle()
    await rig.worker.flush()
    assert await rig.sent_after() == ["a2"]


async def _answer_soon(dice: Random) -> Answer:
    for _ in range(dice.randrange(9)):
        await asyncio.sleep(0)
    return DELIVERED


async def _tick_when_woken(rig: Rig) -> None:
    while True:
        if rig.woken:
            rig.woken = False
            if await rig.worker.tick() < 1.0:
                rig.woken = True
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", seeds(ci=3, soak=20))
async def test_whatever_comes_between_its_turns_all_is_sent(rig: Rig, seed: int) -> None:
    dice = Random(seed)
    rig.sink.answer = lambda _: _answer_soon(dice)
    ticking = asyncio.create_task(_tick_when_woken(rig))
    for _ in range(40):
        if dice.random() < 0.5:
            await rig.record(*dice.choices("abc", k=dice.randrange(1, 4)))
        else:
            await rig.worker.flush()
        for _ in range(dice.randrange(9)):
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        for _ in range(sum(rig.recorded.values())):
            await rig.sink.arrived.get()
    ticking.cancel()


async def test_what_is_answered_as_it_would_be_given_up_is_no_dead_letter(rig: Rig) -> None:
    await rig.restart(rules=HASTY)
    await rig.send("a", answer=FAILED)
    held = rig.hold()
    rig.clock.elapsed_s += 120
    await rig.worker.tick()
    inner: Any = rig.store.inner
    record = inner.record

    async def answer_meanwhile(item: Item) -> Taken | None:
        taken: Taken | None = await record(item)
        if not held.done():
            held.set_result(DELIVERED)
            await rig.settle()
        return taken

    inner.record = answer_meanwhile
    await rig.worker.flush()
    await rig.go()
    assert (rig.row("a1")["state"], rig.counted("dead")) == ("delivered", 0)


async def test_what_was_in_flight_at_a_kill_is_sent_again_under_the_same_id(rig: Rig) -> None:
    rig.hold()
    await rig.begin("a")
    await rig.sink.arrived.get()
    await rig.restart()
    rig.sink.answer = lambda _: DELIVERED
    await rig.go()
    first, second = rig.sink.sent
    assert (first.event_id, first.body, second.attempts) == (second.event_id, second.body, 0)


async def test_what_is_accepted_is_settled_as_that_and_lets_the_next_go(rig: Rig) -> None:
    rig.sink.answer = lambda _: SendResult(SendOutcome.ACCEPTED, "202")
    await rig.record("a", "a")
    with capture_logs() as logs:
        assert await rig.sent_after() == ["a1", "a2"]
    assert (rig.row("a1")["state"], rig.counted("accepted"), rig.counted("delivered")) == ("accepted", 2, 0)
    assert logs == []


async def test_a_body_refused_five_times_in_a_row_is_dead_and_holds_nothing_back(rig: Rig) -> None:
    rig.sink.answer = lambda delivery: REFUSED if name_of(delivery) == "a1" else DELIVERED
    await rig.record("a", "a")
    with capture_logs() as logs:
        for after_s in (0, 1, 5, 30, 30):
            assert rig.row("a1")["state"] == "waiting"
            assert await rig.sent_after(after_s) in (["a1"], ["a1", "a2"])
    assert (rig.row("a1")["state"], rig.row("a1")["answer"]) == ("dead", "422")
    assert rig.row("a2")["state"] == "delivered"
    assert (rig.counted("dead"), rig.counted("retried")) == (1, 4)
    (dead,) = [each for each in logs if each["event"] == "delivery.dead"]
    assert (dead["log_level"], dead["type"], dead["answer"]) == ("warning", "execution.failed", "422")
    assert (dead["attempt"], dead["refused"]) == (5, 5)


async def test_a_sink_that_asks_for_a_pause_is_left_alone_for_so_long_over_a_restart_too(rig: Rig) -> None:
    await rig.send("a", answer=BUSY)
    await rig.restart()
    await rig.record("b", "c", "d")
    rig.sink.answer = lambda _: DELIVERED
    assert await rig.sent_after(50) == []
    assert await rig.go(5) == pytest.approx(5 - 0.003)
    assert sorted(await rig.sent_after(5)) == ["a1", "b1", "c1", "d1"]


async def test_a_410_disables_the_sink_and_its_deliveries_wait(rig: Rig) -> None:
    rig.sink.answer = lambda _: GONE
    await rig.record("a")
    with capture_logs() as logs:
        assert await rig.sent_after() == ["a1"]
    await rig.record("b")
    assert await rig.sent_after(3600) == []
    assert rig.emitted == [("sink.disabled", 1)]
    assert (rig.sink_state(), rig.is_up()) == ("disabled", False)
    assert (rig.row("a1")["state"], rig.row("a1")["answer"]) == ("waiting", "410")
    assert {"event": "sink.disabled", "log_level": "warning", "sink": "ops", "answer": "410"} in logs
    with capture_logs() as logs:
        await rig.restart()
    (disabled,) = logs
    assert (disabled["event"], disabled["log_level"]) == ("sink.disabled", "warning")
    assert "410 Gone" in disabled["note"]
    assert not rig.is_up()
    assert await rig.sent_after(3600) == []
    assert rig.emitted == [("sink.disabled", 1)]


@pytest.mark.parametrize("is_enabled", [False, True])
async def test_a_disabled_sink_is_served_once_its_block_changes_or_it_is_enabled(rig: Rig, *, is_enabled: bool) -> None:
    await rig.send("a", "a", "b", answer=GONE)
    await rig.go(3600)
    rig.sink.answer = lambda _: FAILED
    if is_enabled:
        await rig.worker.enable()
        assert sorted(await rig.sent_after(1)) == ["a1", "b1"]
    await rig.restart(fingerprint="as written" if is_enabled else "changed")
    for _ in range(41):
        await rig.go(10)
    assert (rig.emitted, rig.sink_state(), rig.is_up()) == ([("sink.disabled", 1)], "failing", False)
    rig.sink.answer = lambda _: DELIVERED
    assert {"a1", "a2"} <= set(await rig.sent_after(60))
    assert (rig.emitted[1:], rig.sink_state(), rig.is_up()) == ([("sink.recovered", 2)], None, True)


async def test_a_success_that_was_on_its_way_leaves_a_disabled_sink_disabled(rig: Rig) -> None:
    held = asyncio.get_running_loop().create_future()
    rig.sink.answer = lambda delivery: GONE if name_of(delivery) == "a1" else held
    await rig.begin("a", "b")
    await rig.sink.arrived.get()
    await rig.sink.arrived.get()
    held.set_result(DELIVERED)
    await rig.go()
    assert (rig.row("b1")["state"], rig.sink_state()) == ("delivered", "disabled")


@pytest.mark.parametrize("is_off", [True, False])
async def test_the_clock_of_giving_up_stands_still_while_off_or_disabled(rig: Rig, *, is_off: bool) -> None:
    await rig.restart(rules=HASTY)
    answers = iter([FAILED, FAILED if is_off else GONE])
    rig.sink.answer = lambda _: next(answers, FAILED)
    await rig.send("a")
    await rig.go(60)
    if is_off:
        await rig.stop()
        rig.clock.elapsed_s += 5000
        await rig.start(rules=HASTY)
    else:
        await rig.go(5000, flushes=True)
        await rig.restart(rules=HASTY, fingerprint="changed")
    await rig.go(30)
    assert rig.row("a1")["state"] == "waiting"
    await rig.go(30)
    assert rig.row("a1")["state"] == "dead"


async def test_deliveries_keep_to_the_rate(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, rate_per_s=1.0))
    await rig.record("a", "b", "c")
    assert await rig.sent_after(1.0) == []
    assert await rig.sent_after(0.021) == ["a1"]
    assert await rig.go() == pytest.approx(1 / 0.98, abs=0.021)
    assert await rig.sent_after(1.0) == []
    assert await rig.sent_after(0.021) == ["b1"]
    assert await rig.sent_after(100) == ["c1"]


async def test_each_further_request_of_one_delivery_takes_a_slot_of_the_rate(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, rate_per_s=0.98))
    waits: list[float] = []

    async def in_parts() -> SendResult:
        waits.extend(rig.worker.take_slot() for _ in range(2))
        return DELIVERED

    rig.sink.answer = lambda _: in_parts()
    await rig.record("a", "b")
    assert await rig.sent_after(1.1) == ["a1"]
    assert waits == [pytest.approx(gap_s / 0.98**2, abs=0.021) for gap_s in (1, 2)]
    assert await rig.sent_after(2.9) == []
    assert await rig.sent_after(0.3) == ["b1"]


async def test_a_further_request_waits_for_the_end_of_a_pause(rig: Rig) -> None:
    answers = iter([BUSY, DELIVERED])
    rig.sink.answer = lambda _: next(answers)
    await rig.send("a")
    assert rig.worker.take_slot() == pytest.approx(60)


async def test_a_crash_of_one_attempt_is_a_failed_attempt(rig: Rig) -> None:
    rig.sink.answer = lambda _: ValueError("https://hooks.example.com/secret")
    await rig.record("a")
    with capture_logs() as logs:
        await rig.go()
    assert (rig.row("a1")["state"], rig.row("a1")["answer"]) == ("waiting", "error")
    (crash,) = [each for each in logs if each["event"] == "delivery.crashed"]
    assert (crash["error"], "secret" in str(logs)) == ("ValueError", False)


async def test_a_closed_output_ends_the_program_and_starts_nothing_more(rig: Rig) -> None:
    rig.sink.answer = lambda _: OutputClosedError("stdout was closed by its reader")
    await rig.send(*streams(20))
    assert isinstance(rig.ends[0], OutputClosedError)
    assert len(rig.sink.sent) == 16
    assert rig.row("s000-1")["state"] == "waiting"


async def test_draining_finishes_what_is_in_flight_and_starts_nothing_more(rig: Rig) -> None:
    held = rig.hold()
    await rig.begin(*streams(17))
    draining = asyncio.create_task(rig.worker.drain())
    await rig.sink.arrived.get()
    assert not draining.done()
    held.set_result(DELIVERED)
    await draining
    assert (rig.row("s015-1")["state"], len(rig.sink.sent)) == ("delivered", 16)
    await rig.worker.drain()


# Much at once: slots, batches, settling in groups


async def test_an_answer_frees_its_slot_before_it_is_settled_and_all_are_settled_at_once(rig: Rig) -> None:
    await rig.begin(*streams(40))
    assert [await rig.sink.arrived.get() for _ in range(40)] == [f"{stream}1" for stream in streams(40)]
    assert rig.store.asked["settle"] == 0
    await rig.go()
    assert (rig.store.asked["settle"], rig.counted("delivered")) == (1, 40)


async def test_what_was_begun_and_is_not_settled_is_bounded(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, group=GroupRules(("pipeline",), wait_s=1.0, max_count=100)))
    for number in range(12):
        await rig.record(*(f"p{number:02}-{stream}" for stream in streams(100)), data={"pipeline": {"id": str(number)}})
    held = rig.hold()
    rig.clock.elapsed_s += 1
    for _ in range(6):
        await rig.worker.tick()
        await asyncio.sleep(0)
    assert UNSETTLED_COUNT <= len(rig.sink.sent) < UNSETTLED_COUNT + 100
    held.set_result(DELIVERED)
    await rig.go()
    assert (len(rig.sink.sent), rig.counted("delivered")) == (1200, 1200)


async def test_what_is_recorded_while_enough_is_at_hand_is_read_once_there_is_room(rig: Rig) -> None:
    held = rig.hold()
    await rig.begin(*streams(60))
    await rig.begin("new")
    held.set_result(DELIVERED)
    rig.woken = False
    await rig.settle()
    while rig.woken:
        rig.woken = False
        await rig.worker.tick()
        await rig.settle()
    assert len(rig.sink.sent) == 61


async def test_a_sink_that_takes_batches_is_sent_all_that_is_due_at_once(rig: Rig) -> None:
    batches = note_batches(rig, batch_count=100)
    await rig.send(*streams(70), "a", "a")
    assert batches == [[*(f"{stream}1" for stream in streams(70)), "a1"], ["a2"]]


async def test_what_cannot_be_sent_holds_up_its_batch_only_once(rig: Rig) -> None:
    sent = note_batches(rig, batch_count=100, bad="b1")
    await rig.send("a", "b", "c")
    await rig.go(after_s=60.0)
    assert sent == [["a1", "b1", "c1"], ["a1"], ["b1"], ["c1"]]
    assert (rig.row("a1")["state"], rig.row("c1")["state"]) == ("delivered", "delivered")


async def test_what_waits_for_its_pace_goes_on_though_all_answers_came_at_once(rig: Rig) -> None:
    await rig.restart(rules=replace(RULES, rate_per_s=10.0))
    answers: list[asyncio.Future[SendResult]] = []

    def hold(_: Delivery) -> asyncio.Future[SendResult]:
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    rig.sink.answer = hold
    await rig.record(*streams(100))
    while len(answers) < CONCURRENCY:
        await rig.worker.tick()
        await asyncio.sleep(0)
        rig.clock.elapsed_s += 0.1
    assert await rig.worker.tick() == REST_S
    rig.woken = False
    for answer in answers[:]:
        answer.set_result(DELIVERED)
    await asyncio.wait(in_flight(rig.worker))
    assert rig.woken
    assert await rig.worker.tick() < 0.2


async def test_what_a_short_pause_holds_up_goes_on_right_after_it(rig: Rig) -> None:
    busy = replace(BUSY, retry_after_s=1.0)
    rig.sink.answer = lambda delivery: busy if name_of(delivery) == "s000-1" else DELIVERED
    await rig.record(*streams(100))
    assert await rig.go() <= 1.0


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


# When it settles what was answered, and what it holds back until then

PACED = replace(RULES, rate_per_s=100.0)
"""A webhook's own pace: a request every 10 ms."""


def states(rig: Rig, count: int) -> list[str]:
    return [rig.row(f"{stream}1")["state"] for stream in streams(count)]


def hang(rig: Rig, *names: str) -> dict[str, asyncio.Future[Answer]]:
    """Have the sink deliver all but those, each of which is answered once its future is done."""
    futures = {name: asyncio.get_running_loop().create_future() for name in names}
    rig.sink.answer = lambda delivery: futures.get(name_of(delivery), DELIVERED)
    return futures


async def answered(rig: Rig, *, under_way: int) -> None:
    """Let all that may be sent be answered but so many requests."""
    async with asyncio.timeout(10):
        for _ in range(5):  # the next ones begin when some have ended
            await asyncio.sleep(0)
            while len(in_flight(rig.worker)) > under_way:
                await asyncio.sleep(0)


async def test_a_lone_event_is_settled_at_once(rig: Rig) -> None:
    await rig.restart(rules=PACED)
    await rig.go(1)
    before_s = rig.clock.elapsed_s
    await rig.send("a")
    assert (rig.row("a1")["state"], rig.store.asked["settle"]) == ("delivered", 1)
    assert rig.clock.elapsed_s == pytest.approx(before_s + 0.001)


async def test_a_burst_shorter_than_100_ms_is_settled_in_one_transaction_right_after_its_last(rig: Rig) -> None:
    await rig.restart(rules=PACED)
    await rig.go(1)
    await rig.record(*streams(9))
    began_s = rig.clock.elapsed_s
    while len(rig.sink.sent) < 9:
        rest_s = await rig.go()
        rig.clock.elapsed_s += rest_s
    assert rig.store.asked["settle"] == 1
    assert states(rig, 9) == ["delivered"] * 9
    assert rig.clock.elapsed_s - began_s < 0.1 + rest_s


async def test_while_another_request_hangs_an_answer_is_settled_100_ms_after_the_first(rig: Rig) -> None:
    held = hang(rig, "b1")
    await rig.begin("a", "b")
    rig.woken = False
    await answered(rig, under_way=1)
    assert rig.woken
    assert await rig.worker.tick() == pytest.approx(SETTLE_AFTER_S)
    rig.clock.elapsed_s += SETTLE_AFTER_S - 0.01
    await rig.worker.tick()
    assert rig.store.asked["settle"] == 0
    rig.clock.elapsed_s += 0.01
    await rig.worker.tick()
    assert (rig.row("a1")["state"], rig.row("b1")["state"]) == ("delivered", "waiting")
    held["b1"].set_result(DELIVERED)
    await rig.go()
    assert rig.row("b1")["state"] == "delivered"


@pytest.mark.parametrize(("count", "state"), [(SETTLE_COUNT, "delivered"), (SETTLE_COUNT - 1, "waiting")])
async def test_64_answers_are_settled_at_once_and_63_are_not(rig: Rig, count: int, state: str) -> None:
    hang(rig, "z1")
    await rig.begin("z", *streams(count))
    await answered(rig, under_way=1)
    assert len(rig.sink.sent) == count + 1
    await rig.worker.tick()
    assert states(rig, count) == [state] * count


@pytest.mark.parametrize("recorded", ["with it", "while it is sent", "after its answer"])
async def test_the_next_event_of_an_execution_waits_for_no_others_than_its_own(rig: Rig, recorded: str) -> None:
    held = hang(rig, "a1", "b1", "c1")
    await rig.begin("a", "b", *(["a"] if recorded == "with it" else []))
    if recorded == "while it is sent":
        await rig.begin("a", "c")
    held["a1"].set_result(DELIVERED)
    await answered(rig, under_way=len(in_flight(rig.worker)) - 1)
    if recorded == "after its answer":
        await rig.record("a")
    rig.sink.take_sent()
    await rig.worker.tick()
    async with asyncio.timeout(10):
        while not rig.sink.sent:
            await asyncio.sleep(0)
    assert (rig.sink.take_sent(), rig.row("a1")["state"]) == (["a2"], "delivered")


async def test_an_answer_is_not_settled_for_one_that_could_not_be_taken_yet(rig: Rig) -> None:
    """Enough is ready: the next event of the execution is taken once there is room, whatever is settled before."""
    await rig.restart(rules=PACED)
    await rig.go(1)
    await rig.record(*streams(40), *streams(40))
    while len(rig.sink.sent) < 20:
        rest_s = await rig.go()
        rig.clock.elapsed_s += rest_s
    assert rig.store.asked["settle"] <= 2


async def test_at_a_drain_what_was_answered_is_settled_with_the_last_that_is_in_flight(rig: Rig) -> None:
    held = hang(rig, "b1")
    await rig.begin("a", "b")
    await answered(rig, under_way=1)
    draining = asyncio.create_task(rig.worker.drain())
    await asyncio.sleep(0)
    held["b1"].set_result(DELIVERED)
    await draining
    assert (rig.row("a1")["state"], rig.row("b1")["state"]) == ("delivered", "delivered")
    assert rig.store.asked["settle"] == 1


async def test_at_the_end_what_was_answered_is_settled_though_another_request_is_broken_off(rig: Rig) -> None:
    hang(rig, "b1")
    await rig.begin("a", "b")
    await answered(rig, under_way=1)
    await rig.restart()
    rig.sink.take_sent()
    rig.sink.answer = lambda _: DELIVERED
    assert await rig.sent_after() == ["b1"]
