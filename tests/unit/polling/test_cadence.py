"""When to poll again."""

import random

import pytest

from watcher.polling.cadence import Cadence, backoff, fixed


def a_backoff(draw: float = 0.5) -> Cadence:
    return backoff(min_interval_s=1, max_interval_s=60, jitter=lambda: draw)


@pytest.mark.parametrize("dwell_s", [0, 1, 1e6])
def test_fixed_polls_every_min_interval(dwell_s: float) -> None:
    assert fixed(min_interval_s=2.5)(dwell_s) == 2.5


@pytest.mark.parametrize(
    ("dwell_s", "interval_s"), [(0, 1), (5, 1), (10, 1), (20, 2), (300, 30), (600, 60), (10_000, 60), (1e9, 60)]
)
def test_backoff_waits_a_tenth_of_the_time_in_this_status_within_the_bounds(dwell_s: float, interval_s: float) -> None:
    assert a_backoff()(dwell_s) == pytest.approx(interval_s)


@pytest.mark.parametrize(("draw", "interval_s"), [(0.0, 9.0), (0.25, 9.5), (0.5, 10.0), (0.9999999, 11.0)])
def test_backoff_is_spread_by_a_tenth_to_both_sides(draw: float, interval_s: float) -> None:
    assert a_backoff(draw)(100) == pytest.approx(interval_s, abs=1e-5)


def test_no_draw_leads_out_of_the_bounds() -> None:
    draw = random.Random(1)
    cadence = backoff(min_interval_s=1, max_interval_s=60, jitter=draw.random)
    assert all(1 <= cadence(draw.uniform(0, 1000)) <= 60 for _ in range(5000))


def test_a_clock_that_ran_backwards_leads_out_of_no_bound() -> None:
    assert a_backoff()(-100) == 1
