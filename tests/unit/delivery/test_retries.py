"""What one answer means for a delivery, and whether its sink is well, failing or disabled."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest
from worker_rig import HASTY, FakeClock

from watcher.delivery.retries import FAILURES_COUNT, CircuitBreaker, Request, records_of
from watcher.delivery.sink_state import SinkState, WorkerDependencies
from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.timestamps import NEVER, Micros, Monotonic
from watcher.sinks.protocol import SendOutcome, SendResult, WorkerRules
from watcher.store.changes import BackoffState, SinkRecord

NO_BACKOFF = BackoffState()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def sink_state(
    clock: FakeClock, state: str | None = None, *, clock_s: float = 0.0, backoff: BackoffState = NO_BACKOFF
) -> SinkState:
    return SinkState(SinkRecord(0, state, clock_s, backoff), clock=clock)


def delivery(number: int = 1, *, attempts: int = 0, tried_at: Micros = NEVER) -> Delivery:
    return Delivery("ops", number, b"", UUID(int=1), "", b"", NEVER, NEVER, attempts=attempts, tried_at=tried_at)


def answered(
    sink: SinkState, clock: FakeClock, answer: str = "503", *, of: Delivery | None = None, pause_s: float = 0.0
) -> None:
    outcome = SendOutcome.DELIVERED if answer in {"204", "written"} else SendOutcome.RETRY
    result = SendResult(SendOutcome.BUSY if pause_s else outcome, answer, pause_s)
    sink.note_answer(of or delivery(), result, at=clock.steady_us())


def state_after(sink: SinkState, clock: FakeClock, seconds: float) -> str | None:
    clock.elapsed_s += seconds
    sink.check()
    return sink.state


@pytest.mark.parametrize(
    ("came", "reported"),
    [((), "none"), (("written",), "none"), (("written", "disk_full"), "disk_full"), (("503", "written"), "none")],
)
def test_a_sink_fails_with_the_last_answer_since_one(clock: FakeClock, came: tuple[str, ...], reported: str) -> None:
    sink = sink_state(clock)
    for answer in came:
        answered(sink, clock, answer)
    sink.note_attempt(delivery())
    assert state_after(sink, clock, 300) == "failing"
    assert sink.answer == reported


@pytest.mark.parametrize(("left_s", "lasts_s"), [(60, 60), (-5, -5), (90_000, 3600)])
def test_a_pause_goes_on_after_a_restart_within_its_most(clock: FakeClock, left_s: float, lasts_s: float) -> None:
    sink = sink_state(clock, backoff=BackoffState(pause_s=left_s))
    assert sink.paused_until == clock.monotonic() + lasts_s


def test_the_backoff_of_a_sink_is_what_is_left_of_its_pause_and_for_how_long_it_fails(clock: FakeClock) -> None:
    sink = sink_state(clock)
    assert sink.backoff() == NO_BACKOFF
    answered(sink, clock, pause_s=100)
    answered(sink, clock, pause_s=90)
    clock.elapsed_s += 40
    assert sink.backoff() == BackoffState(60, 40)
    clock.elapsed_s += 460
    assert sink.backoff() == BackoffState(None, 300)


def test_what_failed_while_others_got_through_says_nothing_of_the_sink_until_it_is_settled(clock: FakeClock) -> None:
    sink, tried_at = sink_state(clock), clock.steady_us()
    clock.elapsed_s += 1
    answered(sink, clock, "204")
    answered(sink, clock, of=delivery(1, attempts=1, tried_at=tried_at))
    for _ in range(3):
        clock.elapsed_s += 600
        sink.note_attempt(delivery(1, attempts=2, tried_at=clock.steady_us()))
        answered(sink, clock, of=delivery(1, attempts=2, tried_at=clock.steady_us()))
    assert state_after(sink, clock, 600) is None
    answered(sink, clock, of=delivery(2, attempts=1, tried_at=clock.steady_us()))
    assert state_after(sink, clock, 300) == "failing"
    answered(sink, clock, "204")
    sink.failed_alone.discard(1)
    answered(sink, clock, of=delivery(1))
    assert state_after(sink, clock, 300) == "failing"


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_failure_is_the_sinks_unless_something_got_through_between(clock: FakeClock, attempts: int) -> None:
    sink = sink_state(clock)
    answered(sink, clock, "204")
    clock.elapsed_s += 1
    answered(sink, clock, of=delivery(1, attempts=attempts, tried_at=clock.steady_us()))
    assert state_after(sink, clock, 300) == "failing"


FAILURES = [SendOutcome.RETRY, SendOutcome.BUSY, SendOutcome.REFUSED]


def after(
    outcome: SendOutcome,
    *,
    attempts: int = 1,
    rejections: int = 0,
    asked_s: float = 0.0,
    minimal_left: bool = False,
    waited_s: float = 0.0,
    jitter: float = 0.5,
    rules: WorkerRules = HASTY,
) -> tuple[DeliveryState, int, float]:
    """Return where a delivery stands that goes alone, how often it was refused in a row, and how long it waits."""
    delivery = Delivery(
        "ops", 1, b"s", UUID(int=1), "execution.failed", b"{}", NEVER, NEVER, attempts=attempts, rejections=rejections
    )
    result = SendResult(outcome, "answer", asked_s, minimal_left=minimal_left)
    at = Micros(0)
    clock = FakeClock()
    sink = SinkState(SinkRecord(0, None, 0.0, BackoffState()), clock=clock)
    clock.elapsed_s = waited_s
    deps = cast("WorkerDependencies", SimpleNamespace(rules=rules, jitter=lambda: jitter, clock=clock))
    request = Request([delivery], None, Monotonic(clock.monotonic() - waited_s))
    (record,) = records_of(request, result, deps, sink, at=at, failures_before=0)
    return record.state, record.delivery.rejections, record.delivery.due_at / 1e6


@pytest.mark.parametrize(("jitter", "wait_s"), [(0.0, 4.0), (0.25, 4.5), (0.75, 5.5), (1.0, 6.0)])
def test_a_step_is_moved_by_up_to_a_fifth(jitter: float, wait_s: float) -> None:
    assert after(SendOutcome.RETRY, jitter=jitter)[2] == pytest.approx(wait_s)


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0, 5), (4.9, 5), (5.1, 5.1), (3600, 3600)])
@pytest.mark.parametrize("outcome", FAILURES)
def test_the_wait_is_the_larger_of_step_and_retry_after(outcome: SendOutcome, asked_s: float, wait_s: float) -> None:
    assert after(outcome, asked_s=asked_s)[2] == wait_s


def test_a_step_longer_than_an_hour_is_not_capped_and_without_a_time_to_give_up_it_goes_on_for_ever() -> None:
    rules = replace(HASTY, schedule_s=(10_800.0,), give_up_after_s=None)
    decision = after(SendOutcome.REFUSED, asked_s=3600, waited_s=1e9, rules=rules)
    assert decision == (DeliveryState.WAITING, 1, 10_800)


@pytest.mark.parametrize(("asked_s", "wait_s"), [(0.0, 0.0), (7.0, 7.0)])
def test_a_minimal_form_that_is_left_goes_at_once(asked_s: float, wait_s: float) -> None:
    decision = after(SendOutcome.REFUSED, asked_s=asked_s, minimal_left=True)
    assert decision == (DeliveryState.WAITING, 1, wait_s)


@pytest.mark.parametrize(("success_us", "is_together"), [(6, True), (7, True), (8, False)])
def test_a_group_that_failed_three_times_goes_apart_if_something_got_through_after_it_was_last_tried(
    clock: FakeClock, success_us: int, *, is_together: bool
) -> None:
    sink = sink_state(clock)
    sink.last_success_at = Micros(success_us)
    group = [replace(delivery(number, attempts=2, tried_at=Micros(7)), group_key=b"g") for number in (1, 2)]
    result = SendResult(SendOutcome.RETRY, "503")
    deps = cast("WorkerDependencies", SimpleNamespace(rules=HASTY, jitter=lambda: 0.5, clock=clock))
    records = records_of(Request(group, None, clock.monotonic()), result, deps, sink, at=Micros(9), failures_before=2)
    assert [record.delivery.group_key for record in records] == [b"g" if is_together else None] * 2


def test_an_open_breaker_that_finds_nothing_to_try_asks_again_in_a_second() -> None:
    breaker = CircuitBreaker(FAILURES_COUNT, opens=True, now=Monotonic(0.0))
    breaker.note_trial("never_tried", begins=False, now=Monotonic(10.0))
    assert breaker.trial(Monotonic(10.0)) == "tried_longest_ago"
    breaker.note_trial("tried_longest_ago", begins=False, now=Monotonic(10.0))
    assert (breaker.trial(Monotonic(10.9)), breaker.trial_at()) == (None, 11.0)
    breaker.note_trial("never_tried", begins=False, now=Monotonic(10.5))
    assert breaker.trial(Monotonic(11.0)) == "tried_longest_ago"
