"""When the circuit breaker of a sink opens, what may be tried meanwhile, and what closes it."""

import pytest

from watcher.delivery.retries import CircuitBreaker
from watcher.domain.timestamps import Monotonic

AT = Monotonic(100)


def breaker(*, failures: int, opens: bool = True) -> CircuitBreaker:
    """Return one that saw so many failures at second 100."""
    made = CircuitBreaker(opens=opens)
    for _ in range(failures):
        made.failed(AT, waited=False)
    return made


@pytest.mark.parametrize(
    ("failures", "opens", "is_open"), [(0, True, False), (4, True, False), (5, True, True), (50, False, False)]
)
def test_it_opens_after_five_failures_in_a_row_if_it_ever_does(failures: int, *, opens: bool, is_open: bool) -> None:
    assert breaker(failures=failures, opens=opens).is_open is is_open


@pytest.mark.parametrize(("failures", "opens", "is_open"), [(4, True, False), (5, True, True), (9, False, False)])
def test_it_goes_on_from_the_failures_of_an_earlier_life(failures: int, *, opens: bool, is_open: bool) -> None:
    made = breaker(failures=0, opens=opens)
    made.resume(failures, now=AT)
    assert made.is_open is is_open
    made.failed(AT, waited=False)
    assert made.is_open is opens


def test_what_works_closes_it_and_begins_the_row_and_its_waits_anew() -> None:
    made = breaker(failures=5)
    for _ in range(5):
        made.failed(AT, waited=True)
    made.works()
    assert not made.is_open
    for _ in range(4):
        made.failed(Monotonic(500), waited=True)  # on its way since before it closed
    assert not made.is_open
    made.failed(Monotonic(500), waited=False)
    assert (made.is_open, made.trial(Monotonic(500.9)), made.trial_at()) == (True, "never_tried", float("-inf"))
    made.trial_begins(never_tried=True, now=Monotonic(500.9))
    assert [made.trial(Monotonic(at)) for at in (500.95, 501, 501.9)] == [None, "tried_longest_ago", "never_tried"]


def test_of_what_was_never_tried_one_a_second_may_go_and_whether_there_is_any_is_asked_as_often() -> None:
    made = breaker(failures=5)
    made.trial_begins(never_tried=True, now=Monotonic(100.5))
    assert (made.trial(Monotonic(100.9)), made.trial(Monotonic(101.4))) == (None, "tried_longest_ago")
    made.trial_begins(never_tried=False, now=Monotonic(101.4))
    assert made.trial(Monotonic(101.5)) == "never_tried"
    made.nothing_waits("never_tried", now=Monotonic(101.5))
    assert made.trial(Monotonic(101.6)) == "tried_longest_ago"
    made.nothing_waits("tried_longest_ago", now=Monotonic(101.6))
    assert (made.trial(Monotonic(102.4)), made.trial_at()) == (None, 102.5)


def test_one_is_tried_at_a_time() -> None:
    made = breaker(failures=5)
    trying = [made.is_trying]
    made.trial_begins(never_tried=False, now=Monotonic(101))
    trying.append(made.is_trying)
    made.trial_ends()
    assert [*trying, made.is_trying] == [False, True, False]


def test_each_failure_of_one_that_waited_doubles_the_wait_up_to_half_a_minute() -> None:
    made, now, waits = breaker(failures=5), AT, list[float]()
    made.trial_begins(never_tried=True, now=Monotonic(10_000))  # no more of these
    for _ in range(8):
        waits.append(made.trial_at() - now)
        now = made.trial_at()
        made.failed(now, waited=True)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_other_failures_while_it_is_open_change_no_wait() -> None:
    made = breaker(failures=20)
    made.trial_begins(never_tried=True, now=AT)
    assert made.trial_at() == 101.0
