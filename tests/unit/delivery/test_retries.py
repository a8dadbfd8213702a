"""What one answer means for a delivery."""

from dataclasses import replace
from uuid import UUID

import pytest
from worker_rig import HASTY

from watcher.delivery.retries import failed
from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.timestamps import NEVER, Micros
from watcher.sinks.protocol import SendOutcome, SendResult, WorkerRules

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
    attempt = failed(
        [delivery], result, rules, at=at, clock_s=waited_s, begun_s=0.0, through_at=NEVER, jitter=lambda: jitter
    )
    (record,) = attempt.records
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
