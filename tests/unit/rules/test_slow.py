import pytest

from watcher.rules.slow import Slow, SlowSettings, usual_duration

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("durations", "usual"),
    [
        ([7] * 19, None),
        ([*range(1, 21)], 20),
        ([*range(200, 0, -1)], 191),
        ([7] * 191 + [100] * 9, 7),
        ([7] * 190 + [100] * 10, 100),
    ],
    ids=["too few", "the longest of twenty", "the 191st of 200", "nine long ones", "ten long ones"],
)
def test_of_two_hundred_durations_the_usual_one_is_the_tenth_from_above(
    durations: list[int], usual: int | None
) -> None:
    assert usual_duration(durations) == usual


@pytest.mark.parametrize(
    ("durations_s", "count"),
    [
        ([], 0),
        ([300] * 20, 0),
        ([300] * 19 + [3600], 0),
        ([300] * 20 + [900], 0),
        ([300] * 20 + [901], 1),
        ([10] * 20 + [70], 0),
        ([10] * 20 + [71], 1),
        ([300] * 200 + [1200] * 50, 10),
        ([300] * 20 + [1200] * 50, 2),
        ([1200] * 200 + [300] * 200 + [1200], 1),
        ([1200] * 200 + [300] * 190 + [1200], 0),
    ],
)
def test_a_duration_is_compared_with_the_two_hundred_before_it(durations_s: list[int], count: int) -> None:
    assert Slow(SlowSettings()).count_slow([each * SECOND for each in durations_s]) == count
