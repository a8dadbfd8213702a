"""When the circuit breaker of a sink opens, what may be tried meanwhile, and what closes it."""

import pytest

from watcher.delivery.retries import CircuitBreaker
from watcher.domain.timestamps import Monotonic


def breaker(*failures: str, opens: bool = True, retry_after_s: float = 0.0) -> CircuitBreaker:
    """Return one that saw failures of these deliveries at second 100."""
    made = CircuitBreaker(opens=opens)
    for delivery in failures:
        made.failed(delivery, now=Monotonic(100), retry_after_s=retry_after_s, waited=False)
    return made


@pytest.mark.parametrize(
    ("failures", "is_open"),
    [
        ("", False),
        ("abcd", False),
        ("abcde", True),
        ("aaaaa", False),
        ("aaaaaaaaaaaaaaaa", False),
        ("aaaab", True),
        ("baaaa", True),
        ("aaaaaab", True),
    ],
)
def test_it_opens_after_five_failures_in_a_row_of_at_least_two_deliveries(failures: str, is_open: bool) -> None:
    assert breaker(*failures).is_open is is_open


def test_a_success_in_between_begins_the_row_anew() -> None:
    made = breaker(*"abcd")
    made.works()
    made.failed("e", now=Monotonic(100), retry_after_s=0, waited=False)
    assert not made.is_open
    for delivery in "eeef":
        made.failed(delivery, now=Monotonic(100), retry_after_s=0, waited=False)
    assert made.is_open


def test_one_that_never_opens_stays_closed() -> None:
    assert not breaker(*"abcdefghij", opens=False).is_open


def test_what_works_closes_it() -> None:
    made = breaker(*"abcde")
    made.works()
    assert not made.is_open


def test_what_was_tried_waits_a_second_and_what_never_was_goes_at_once() -> None:
    made = breaker(*"abcde")
    assert made.opens_at(never_tried=False) == 101.0
    assert made.opens_at(never_tried=True) <= 100


def test_of_what_was_never_tried_one_a_second_may_go() -> None:
    made = breaker(*"abcde")
    made.trial_begins(never_tried=True, now=Monotonic(100.5))
    assert made.opens_at(never_tried=True) == 101.5
    made.trial_begins(never_tried=False, now=Monotonic(101))
    assert made.opens_at(never_tried=True) == 101.5


def test_one_is_tried_at_a_time() -> None:
    made = breaker(*"abcde")
    trying = [made.is_trying]
    made.trial_begins(never_tried=False, now=Monotonic(101))
    trying.append(made.is_trying)
    made.trial_ends()
    assert [*trying, made.is_trying] == [False, True, False]


def test_each_failure_of_one_that_waited_doubles_the_wait_up_to_half_a_minute() -> None:
    made, waits = breaker(*"abcde"), []
    for _ in range(7):
        now = made.opens_at(never_tried=False)
        made.failed("a", now=now, retry_after_s=0, waited=True)
        waits.append(made.opens_at(never_tried=False) - now)
    assert waits == [2, 4, 8, 16, 30, 30, 30]


def test_other_failures_while_it_is_open_change_no_wait() -> None:
    made = breaker(*"abcdefghijklmnop")
    assert made.opens_at(never_tried=False) == 101.0


def test_a_failure_that_had_waited_until_it_closed_opens_nothing() -> None:
    made = breaker(*"abcde")
    made.works()
    made.failed("a", now=Monotonic(200), retry_after_s=0, waited=True)
    assert not made.is_open


def test_the_longest_retry_after_of_the_row_is_waited_for() -> None:
    made = CircuitBreaker()
    for delivery, retry_after_s in zip("abcde", (0, 90, 20, 0, 5), strict=True):
        made.failed(delivery, now=Monotonic(100), retry_after_s=retry_after_s, waited=False)
    assert made.opens_at(never_tried=False) == 190.0
    made.works()
    for delivery in "abcde":
        made.failed(delivery, now=Monotonic(200), retry_after_s=0, waited=False)
    assert made.opens_at(never_tried=False) == 201.0


def test_a_wait_begins_with_a_second_again_once_it_was_closed() -> None:
    made = breaker(*"abcde")
    for _ in range(5):
        made.failed("a", now=Monotonic(100), retry_after_s=0, waited=True)
    made.works()
    for delivery in "abcde":
        made.failed(delivery, now=Monotonic(500), retry_after_s=0, waited=False)
    assert made.opens_at(never_tried=False) == 501.0
