from uuid import UUID

import pytest

from watcher.attempts import Conclusion, RetryRules, conclude
from watcher.models import Delivery, DeliveryState
from watcher.ports.sinks import Receipt, Verdict

RULES = RetryRules((1.0, 5.0, 30.0), give_up_after_s=100.0)
FAILURES = [verdict for verdict in Verdict if verdict not in {Verdict.DELIVERED, Verdict.GONE}]


def after(
    verdict: Verdict,
    *,
    attempts: int = 0,
    rejections: int = 0,
    retry_after_s: float | None = None,
    tried_for_s: float = 0.0,
    jitter: float = 0.5,
    rules: RetryRules = RULES,
) -> Conclusion:
    delivery = Delivery("ops", UUID(int=1), "execution.failed", b"s", 1, b"{}", 0, 0, attempts, rejections)
    receipt = Receipt(verdict, "answer", retry_after_s)
    return conclude(delivery, receipt, tried_for_s=tried_for_s, rules=rules, jitter=lambda: jitter)


def test_a_success_settles() -> None:
    conclusion = after(Verdict.DELIVERED, attempts=7, rejections=4, tried_for_s=1e9)
    assert conclusion == Conclusion(DeliveryState.DELIVERED, 0, 0.0)


def test_a_delivery_nobody_wants_waits_however_long() -> None:
    conclusion = after(Verdict.GONE, attempts=7, rejections=4, tried_for_s=1e9)
    assert conclusion == Conclusion(DeliveryState.WAITING, 0, 0.0)


@pytest.mark.parametrize(("attempts", "wait_s"), [(0, 1), (1, 5), (2, 30), (3, 30), (1000, 30)])
@pytest.mark.parametrize("verdict", FAILURES)
def test_an_attempt_waits_for_its_step_and_the_last_repeats(verdict: Verdict, attempts: int, wait_s: float) -> None:
    assert after(verdict, attempts=attempts).wait_s == wait_s


@pytest.mark.parametrize(("jitter", "wait_s"), [(0.0, 4.0), (0.25, 4.5), (0.75, 5.5), (1.0, 6.0)])
def test_a_step_is_moved_by_up_to_a_fifth(jitter: float, wait_s: float) -> None:
    assert after(Verdict.RETRY, attempts=1, jitter=jitter).wait_s == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("retry_after_s", "wait_s"), [(None, 5), (0, 5), (4.9, 5), (5.1, 5.1), (3600, 3600), (3601, 3600), (1e9, 3600)]
)
@pytest.mark.parametrize("verdict", FAILURES)
def test_the_wait_is_the_larger_of_step_and_retry_after(
    verdict: Verdict, retry_after_s: float | None, wait_s: float
) -> None:
    assert after(verdict, attempts=1, retry_after_s=retry_after_s).wait_s == wait_s


def test_a_step_longer_than_an_hour_is_not_capped() -> None:
    rules = RetryRules((10_800.0,), give_up_after_s=None)
    assert after(Verdict.RETRY, retry_after_s=1e9, rules=rules).wait_s == 10_800


@pytest.mark.parametrize(
    ("verdict", "before", "state", "rejections"),
    [
        (Verdict.REFUSED, 0, DeliveryState.WAITING, 1),
        (Verdict.REFUSED, 3, DeliveryState.WAITING, 4),
        (Verdict.REFUSED, 4, DeliveryState.DEAD, 5),
        (Verdict.RETRY, 4, DeliveryState.WAITING, 0),
        (Verdict.BUSY, 4, DeliveryState.WAITING, 0),
    ],
)
def test_five_refusals_in_a_row_are_the_end(
    verdict: Verdict, before: int, state: DeliveryState, rejections: int
) -> None:
    conclusion = after(verdict, rejections=before)
    assert (conclusion.state, conclusion.rejections) == (state, rejections)


@pytest.mark.parametrize("verdict", FAILURES)
def test_a_failure_after_the_time_to_give_up_is_the_end(verdict: Verdict) -> None:
    assert after(verdict, tried_for_s=99.9).state is DeliveryState.WAITING
    assert after(verdict, tried_for_s=100.0).state is DeliveryState.DEAD


def test_the_sink_is_spared_as_long_after_a_dead_letter() -> None:
    assert after(Verdict.BUSY, tried_for_s=100.0, retry_after_s=60).wait_s == 60


def test_without_a_time_to_give_up_it_goes_on_for_ever() -> None:
    rules = RetryRules((1.0,), give_up_after_s=None)
    assert after(Verdict.RETRY, attempts=10**6, tried_for_s=1e9, rules=rules).state is DeliveryState.WAITING
