"""What one answer means for a delivery, and whose trouble a failure is."""

from uuid import UUID

import pytest

from watcher.delivery.retries import RetryDecision, decide
from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.timestamps import NEVER, Micros
from watcher.sinks.protocol import RetryRules, SendOutcome, SendResult, retry_after_s

RULES = RetryRules((1.0, 5.0, 30.0), give_up_after_s=100.0)
FAILURES = [SendOutcome.RETRY, SendOutcome.BUSY]
TRIED_AT = 1000


def delivery_of(*, attempts: int, steps: int, rejections: int) -> Delivery:
    return Delivery(
        sink="ops",
        event_id=UUID(int=1),
        type="execution.failed",
        stream=b"s",
        sequence=1,
        body=b"{}",
        recorded_at=Micros(0),
        due_at=Micros(0),
        attempts=attempts,
        steps=steps,
        rejections=rejections,
        tried_at=Micros(TRIED_AT if attempts else 0),
    )


def after(
    outcome: SendOutcome,
    *,
    attempts: int = 1,
    steps: int = 0,
    rejections: int = 0,
    through_at: int = TRIED_AT + 1,
    asked_s: float | None = None,
    waited_s: float = 0.0,
    jitter: float = 0.5,
) -> RetryDecision:
    """Conclude; unless it says otherwise something else has got through since the attempt before."""
    delivery = delivery_of(attempts=attempts, steps=steps, rejections=rejections)
    result = SendResult(outcome, "answer", asked_s)
    return decide(
        delivery, result, through_at=Micros(through_at), waited_s=waited_s, rules=RULES, jitter=lambda: jitter
    )


@pytest.mark.parametrize(
    ("outcome", "state"),
    [(SendOutcome.DELIVERED, DeliveryState.DELIVERED), (SendOutcome.ACCEPTED, DeliveryState.ACCEPTED)],
)
def test_a_success_settles(outcome: SendOutcome, state: DeliveryState) -> None:
    decision = after(outcome, attempts=7, steps=3, rejections=4, waited_s=1e9)
    assert decision == RetryDecision(state, 3, 0, 0.0)


def test_a_delivery_nobody_wants_waits_however_long_and_takes_no_step() -> None:
    decision = after(SendOutcome.GONE, attempts=7, steps=3, rejections=4, waited_s=1e9)
    assert decision == RetryDecision(DeliveryState.WAITING, 3, 0, 0.0)


@pytest.mark.parametrize(("steps", "wait_s"), [(0, 1), (1, 5), (2, 30), (3, 30), (1000, 30)])
@pytest.mark.parametrize("outcome", [*FAILURES, SendOutcome.REFUSED])
def test_its_own_trouble_takes_the_next_step_and_the_last_repeats(
    outcome: SendOutcome, steps: int, wait_s: float
) -> None:
    decision = after(outcome, attempts=2000, steps=steps)
    assert (decision.steps, decision.wait_s) == (steps + 1, wait_s)


@pytest.mark.parametrize(
    ("attempts", "through_at", "is_own"),
    [
        (1, TRIED_AT + 1, True),
        (1, TRIED_AT, False),
        (1, TRIED_AT - 1, False),
        (1, 0, False),  # nothing got through since the start
        (0, TRIED_AT + 1, False),  # there is no attempt since which anything could
        (9, TRIED_AT + 1, True),
    ],
)
@pytest.mark.parametrize("outcome", FAILURES)
def test_a_failure_is_its_own_if_anything_got_through_since_the_attempt_before(
    outcome: SendOutcome, attempts: int, through_at: int, *, is_own: bool
) -> None:
    assert after(outcome, attempts=attempts, through_at=through_at).steps == is_own


@pytest.mark.parametrize("through_at", [0, TRIED_AT + 1])
@pytest.mark.parametrize("attempts", [0, 1])
def test_a_refused_body_is_its_own_trouble_in_any_case(through_at: int, attempts: int) -> None:
    assert after(SendOutcome.REFUSED, attempts=attempts, through_at=through_at).steps == 1


@pytest.mark.parametrize(
    ("attempts", "steps", "wait_s"),
    [(0, 0, 1), (1, 0, 2), (2, 0, 4), (5, 0, 32), (6, 0, 60), (5000, 0, 60), (7, 5, 4), (2, 2, 1)],
)
def test_trouble_that_may_be_the_sinks_waits_a_second_doubling_to_a_minute(
    attempts: int, steps: int, wait_s: float
) -> None:
    decision = after(SendOutcome.RETRY, attempts=attempts, steps=steps, through_at=NEVER, jitter=0.9)
    assert (decision.steps, decision.wait_s) == (steps, wait_s)


@pytest.mark.parametrize(("jitter", "wait_s"), [(0.0, 4.0), (0.25, 4.5), (0.75, 5.5), (1.0, 6.0)])
def test_a_step_is_moved_by_up_to_a_fifth(jitter: float, wait_s: float) -> None:
    assert after(SendOutcome.RETRY, steps=1, jitter=jitter).wait_s == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("asked_s", "wait_s"), [(None, 5), (0, 5), (4.9, 5), (5.1, 5.1), (3600, 3600), (3601, 3600), (1e9, 3600)]
)
@pytest.mark.parametrize("outcome", [*FAILURES, SendOutcome.REFUSED])
def test_the_wait_is_the_larger_of_step_and_retry_after(
    outcome: SendOutcome, asked_s: float | None, wait_s: float
) -> None:
    assert after(outcome, steps=1, asked_s=asked_s).wait_s == wait_s


@pytest.mark.parametrize(("asked_s", "wait_s"), [(None, 2), (1.9, 2), (2.1, 2.1), (1e9, 3600)])
def test_retry_after_lengthens_the_wait_without_a_step_too(asked_s: float | None, wait_s: float) -> None:
    assert after(SendOutcome.RETRY, through_at=NEVER, asked_s=asked_s).wait_s == wait_s


@pytest.mark.parametrize(("asked_s", "heeded_s"), [(None, 0), (0, 0), (5, 5), (3601, 3600)])
def test_a_receiver_is_left_alone_for_an_hour_at_most(asked_s: float | None, heeded_s: float) -> None:
    assert retry_after_s(SendResult(SendOutcome.BUSY, "429", asked_s)) == heeded_s


@pytest.mark.parametrize(
    ("outcome", "before", "state", "rejections"),
    [
        (SendOutcome.REFUSED, 0, DeliveryState.WAITING, 1),
        (SendOutcome.REFUSED, 3, DeliveryState.WAITING, 4),
        (SendOutcome.REFUSED, 4, DeliveryState.DEAD, 5),
        (SendOutcome.RETRY, 4, DeliveryState.WAITING, 0),
        (SendOutcome.BUSY, 4, DeliveryState.WAITING, 0),
    ],
)
@pytest.mark.parametrize("through_at", [0, TRIED_AT + 1])
def test_five_refusals_in_a_row_are_the_end(
    outcome: SendOutcome, before: int, state: DeliveryState, rejections: int, through_at: int
) -> None:
    decision = after(outcome, rejections=before, through_at=through_at)
    assert (decision.state, decision.rejections) == (state, rejections)


@pytest.mark.parametrize("through_at", [0, TRIED_AT + 1])
@pytest.mark.parametrize("outcome", [*FAILURES, SendOutcome.REFUSED])
def test_a_failure_after_the_time_to_give_up_is_the_end(outcome: SendOutcome, through_at: int) -> None:
    assert after(outcome, waited_s=99.9, through_at=through_at).state is DeliveryState.WAITING
    assert after(outcome, waited_s=100.0, through_at=through_at).state is DeliveryState.DEAD


def test_a_step_longer_than_an_hour_is_not_capped_and_without_a_time_to_give_up_it_goes_on_for_ever() -> None:
    refused = SendResult(SendOutcome.REFUSED, "422", 1e9)
    rules = RetryRules((10_800.0,), give_up_after_s=None)
    delivery = Delivery("ops", UUID(int=1), "execution.failed", b"s", 1, b"{}", Micros(0), Micros(0))
    decision = decide(delivery, refused, through_at=Micros(0), waited_s=1e9, rules=rules, jitter=lambda: 0.5)
    assert decision == RetryDecision(DeliveryState.WAITING, 1, 1, 10_800)


@pytest.mark.parametrize(("asked_s", "wait_s"), [(None, 0.0), (7.0, 7.0)])
def test_a_group_that_is_refused_goes_on_at_once_and_none_of_it_is_refused_for_that(
    asked_s: float | None, wait_s: float
) -> None:
    group, result = delivery_of(attempts=1, steps=2, rejections=4), SendResult(SendOutcome.REFUSED, "413", asked_s)
    decision = decide(group, result, through_at=NEVER, waited_s=0.0, rules=RULES, jitter=lambda: 0.5, count=2)
    assert decision == RetryDecision(DeliveryState.WAITING, 2, 0, wait_s)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("asked_s", "wait_s"), [(None, 0.0), (7.0, 7.0)])
def test_a_minimal_form_that_is_left_goes_at_once(count: int, asked_s: float | None, wait_s: float) -> None:
    refused = SendResult(SendOutcome.REFUSED, "400", asked_s, minimal_left=True)
    delivery = delivery_of(attempts=1, steps=2, rejections=0)
    decision = decide(delivery, refused, through_at=NEVER, waited_s=0.0, rules=RULES, jitter=lambda: 0.5, count=count)
    assert decision == RetryDecision(DeliveryState.WAITING, 2, 1, wait_s)


def test_a_group_that_is_refused_for_too_long_is_dead() -> None:
    group, result = delivery_of(attempts=1, steps=2, rejections=0), SendResult(SendOutcome.REFUSED, "413")
    decision = decide(group, result, through_at=NEVER, waited_s=100.0, rules=RULES, jitter=lambda: 0.5, count=2)
    assert decision.state is DeliveryState.DEAD
