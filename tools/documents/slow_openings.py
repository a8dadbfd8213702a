"""The table of docs/inside/rules.md: how often `slow` reports what is no fault, simulated with the rule itself."""

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from random import Random
from statistics import fmean

from watcher.rules.slow import DURATIONS_COUNT, Slow, SlowSettings, usual_duration

SECOND = 1_000_000
ENDS_COUNT = 10_000
"""Executions of one history, one at a time. Each that is slow opens a problem of its own."""

HISTORIES_COUNT = 20
STEP_AT = ENDS_COUNT // 2
COLUMNS: Mapping[str, Slow] = {
    "`slow: {}`": Slow(SlowSettings()),
    "`slow: {times: 6}`": Slow(SlowSettings(times=6.0)),
    "`slow: {at_least: 15m}`": Slow(SlowSettings.model_validate({"at_least": "15m"})),
}
"""The rules by what is written into the file. The first is the default."""

LEAST_TIMES = min(rule.settings.times for rule in COLUMNS.values())

Draw = Callable[[Random, int], float]
"""Returns the seconds that the nth execution takes; those of the past are the 0th."""


def spread(sigma: float) -> Draw:
    """Return durations around 300 s whose logarithms are normal."""
    return lambda draw, _: 300 * draw.lognormvariate(0, sigma)


def heavy_tail(alpha: float) -> Draw:
    """Return durations from 100 s on, with a tail by Pareto."""
    return lambda draw, _: 100 * draw.paretovariate(alpha)


def two_kinds(long_share: float) -> Draw:
    """Return durations of about 30 s, and of about 600 s for that share."""
    return lambda draw, _: (600 if draw.random() < long_share else 30) * draw.lognormvariate(0, 0.1)


def step(factor: float, sigma: float) -> Draw:
    """Return durations around 300 s that are longer by a factor in the second half of a history."""
    return lambda draw, nth: 300 * (factor if nth >= STEP_AT else 1) * draw.lognormvariate(0, sigma)


def _drift(draw: Random, nth: int) -> float:
    return 300 * math.pow(1.01, nth / 100) * draw.lognormvariate(0, 0.3)


ROWS: Mapping[str, Draw] = {
    "vary little around 300 s (log-normal, sigma 0.3)": spread(0.3),
    "vary around 300 s (log-normal, sigma 0.5)": spread(0.5),
    "vary much around 300 s (log-normal, sigma 0.8)": spread(0.8),
    "vary very much around 300 s (log-normal, sigma 1.0)": spread(1.0),
    "are rarely many times as long (Pareto, alpha 2.5)": heavy_tail(2.5),
    "are often many times as long (Pareto, alpha 1.5)": heavy_tail(1.5),
    "are of two kinds: 90 % take 30 s, 10 % take 600 s": two_kinds(0.1),
    "are of two kinds: 97 % take 30 s, 3 % take 600 s": two_kinds(0.03),
    "become longer by 1 % with every 100 (sigma 0.3)": _drift,
    "take 300 s, from one moment on 600 s": step(2, 0),
    "take 300 s, from one moment on 1,200 s": step(4, 0),
    "vary around 300 s, from one moment on around 1,200 s (sigma 0.3)": step(4, 0.3),
}


def openings(draw: Draw, *, seed: int, past_count: int = DURATIONS_COUNT) -> list[int]:
    """Return how many problems each rule opens in one history, after so many successes of the past."""
    random, found = Random(seed), [0] * len(COLUMNS)
    durations = [round(draw(random, max(0, nth)) * SECOND) for nth in range(-past_count, ENDS_COUNT)]
    last = sorted(durations[:past_count])
    for nth, duration in enumerate(durations[past_count:], start=past_count):
        if duration > LEAST_TIMES * last[len(last) // 2]:  # usual is at least the middle: that saves most of the time
            usual = usual_duration(last) or 0
            found = [
                count + (duration > rule.limit_us(usual)) for count, rule in zip(found, COLUMNS.values(), strict=True)
            ]
        insort(last, duration)
        if len(last) > DURATIONS_COUNT:
            del last[bisect_left(last, durations[nth - DURATIONS_COUNT])]
    return found


def table() -> str:
    """Return the table: of each rule the mean of some histories, and the most in one of them."""
    lines = [f"| durations that | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, draw in ROWS.items():
        histories = [openings(draw, seed=seed) for seed in range(HISTORIES_COUNT)]
        cells = (_cell(counts) for counts in zip(*histories, strict=True))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(counts: tuple[int, ...]) -> str:
    mean, most = fmean(counts), max(counts)
    if min(counts) == most:
        return f"{most}"
    return f"{mean:.0f}, at most {most}" if mean >= 10 else f"{mean:.1f}, at most {most}"
