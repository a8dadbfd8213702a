"""The pacer under simulated arrivals: never above its rate, and close to it when there is enough to do."""

import random
from bisect import bisect_left
from collections.abc import Callable

import pytest

from watcher.domain.timestamps import Monotonic
from watcher.runtime.pacing import Pacer

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
