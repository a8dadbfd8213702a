"""The pacer is never above its rate, and close to it when there is enough to do; waits double, spread, heed servers."""

import random
from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from watcher.domain.timestamps import Monotonic
from watcher.runtime.pacing import LONGEST_WAIT_S, Pacer, doubling, parse_retry_after, spread

RATES = [0.5, 5, 100, 5000]
Lateness = Callable[[], float]


def punctual() -> float:
    return 0.0


def late(upto_s: float) -> Lateness:
    draw = random.Random(7)
    return lambda: draw.uniform(0, upto_s)


def rested(rate: float) -> Pacer:
    """Return a pacer whose last request was long ago."""
    return Pacer(rate, now=Monotonic(-1000))


def departures(pacer: Pacer, *, begin: float, end: float, lateness: Lateness) -> list[float]:
    """Send all that may go, waking when the pacer says and a little after."""
    moments: list[float] = []
    now = begin
    while True:
        now = max(now, pacer.ready_at)
        if pacer.ready_at >= now:
            now += lateness()
        if now >= end:
            return moments
        while pacer.ready_at <= now:
            pacer.spend(Monotonic(now))
            moments.append(now)


def busiest_second(moments: list[float]) -> int:
    return max((bisect_left(moments, moment + 1) - index for index, moment in enumerate(moments)), default=0)


@pytest.mark.parametrize("upto_s", [0.0, 0.001, 0.005, 0.015])
@pytest.mark.parametrize("rate", RATES)
def test_no_second_holds_more_than_the_rate_and_a_little(rate: float, upto_s: float) -> None:
    moments = departures(rested(rate), begin=1000, end=1010, lateness=late(upto_s))
    assert busiest_second(moments) <= rate * 1.05 + 2


@pytest.mark.parametrize("rate", RATES)
def test_a_pacer_that_is_woken_in_time_uses_97_percent_of_the_rate(rate: float) -> None:
    moments = departures(rested(rate), begin=0, end=100 / min(rate, 5), lateness=punctual)
    assert len(moments) >= 0.97 * rate * 100 / min(rate, 5)


@pytest.mark.parametrize("idle_s", [1, 60, 3600, 1e6])
@pytest.mark.parametrize("rate", RATES)
def test_unused_time_is_lost_so_no_burst_follows_it(rate: float, idle_s: float) -> None:
    pacer = rested(rate)
    before = departures(pacer, begin=1000, end=1002, lateness=punctual)
    after = departures(pacer, begin=1002 + idle_s, end=1004 + idle_s, lateness=punctual)
    assert len([moment for moment in after if moment == after[0]]) <= 1 + 0.02 * rate
    assert busiest_second(before + after) <= rate * 1.05 + 2


@pytest.mark.ci
@pytest.mark.parametrize("life_s", [0.25, 1.5, 7.0])
@pytest.mark.parametrize("rate", RATES)
def test_one_start_after_another_stays_within_the_rate(rate: float, life_s: float) -> None:
    moments: list[float] = []
    for life in range(40):
        begin = 1000 + life * life_s
        moments += departures(Pacer(rate, now=Monotonic(begin)), begin=begin, end=begin + life_s, lateness=punctual)
    assert busiest_second(moments) <= rate * 1.05 + 2
    assert len(moments) <= rate * 40 * life_s


NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempt", "base_s", "delay_s"),
    [(1, 1, 1), (2, 1, 2), (3, 1, 4), (6, 1, 32), (7, 1, 60), (8, 1, 60), (10**6, 1, 60), (1, 90, 60)],
)
def test_a_wait_doubles_up_to_its_cap(attempt: int, base_s: float, delay_s: float) -> None:
    assert doubling(attempt, base_s=base_s, cap_s=60) == delay_s


@pytest.mark.parametrize(("draw", "delay_s"), [(0.0, 8.0), (0.5, 10.0), (0.75, 11.0), (0.999999, 12.0)])
def test_a_wait_is_spread_to_both_sides(draw: float, delay_s: float) -> None:
    assert spread(10, share=0.2, jitter=lambda: draw) == pytest.approx(delay_s, abs=1e-4)


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (None, None),
        ("0", 0.0),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("1.5", 1.5),
        ("86400", 86400.0),
        ("Tue, 24 Nov 2026 10:01:30 GMT", 90.0),
        ("Tuesday, 24-Nov-26 10:01:30 GMT", 90.0),
        ("Tue, 24 Nov 2026 12:01:30 +0200", 90.0),
        ("Tue, 24 Nov 2026 09:00:00 GMT", 0.0),
        ("Tue, 24 Nov 2026 10:01:30", 90.0),
        ("Tue Nov 24 10:01:30 2026", 90.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("Tue, 99 Nov 2026 10:00:00 GMT", None),
        ("24 Nov 2026 10:6001600200", None),
        ("1\u0663(", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT_S),
        ("9" * 400, LONGEST_WAIT_S),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_anything_else_is_absent(value: str | None, wait_s: float | None) -> None:
    assert parse_retry_after(value, now=NOW) == wait_s


def test_a_date_is_measured_from_now() -> None:
    header = "Tue, 24 Nov 2026 10:01:30 GMT"
    assert parse_retry_after(header, now=NOW + timedelta(seconds=60)) == 30.0
