"""The coordinates of the graphs on a pipeline's page, computed from the periods of its history.

Horizontal coordinates are percent of a graph's width, vertical ones are pixels from its top.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from math import log
from operator import itemgetter
from typing import NamedTuple

from watcher.domain.history import DAY_US, HOUR_US
from watcher.domain.timestamps import to_us
from watcher.sinks.alert import in_words
from watcher.web.history import History, HistoryPeriod

SPANS: Mapping[str, tuple[int, int]] = {
    "24h": (DAY_US, HOUR_US),
    "7d": (7 * DAY_US, 6 * HOUR_US),
    "30d": (30 * DAY_US, DAY_US),
}
"""The spans that the page offers: the length of each and that of one bar, in microseconds."""

ENDS_HEIGHT, DURATIONS_HEIGHT, TOKENS_HEIGHT = 96, 64, 32
LOWEST = 2.0
"""Least height of a count that is not 0, in pixels."""

BANDS_COUNT = 30
"""Maximum number of problems that are drawn, the newest ones: a graph should have at most 300 elements."""

NARROWEST = 1.0
"""Least width of the band of a problem, in percent of the graph's width."""

LABEL_WIDTH = 20.0
"""Width of a label on the screen of a phone, in percent of the graph's width."""

DASH = 10
"""Length of the line of a median whose neighbours are empty, in thousandths of the graph's width."""

LOG_RATIO = 20
"""Greatest ratio of the 95th percentile to the median for a linear scale of durations."""

_TICKS_US = {HOUR_US: 6 * HOUR_US, 6 * HOUR_US: 2 * DAY_US, DAY_US: 7 * DAY_US}
"""Time between two labels below a graph, by the length of the graph's bars (microseconds)."""

_UNITS = ((7200, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))


class GraphBar(NamedTuple):
    """The bar of one period."""

    x: float
    width: float
    parts: Sequence[tuple[str, float, float]]
    """The parts of the bar, the lowest first, each as the name of its count, its top, and its height."""
    period: HistoryPeriod


class Durations(NamedTuple):
    """The graph of durations."""

    median: str
    """The SVG path of the medians; its width is 1000."""
    p95: Sequence[tuple[float, float]]
    """The dots of the 95th percentiles, each as x and y."""
    highest: str
    """The value at the top, in `unit`; on a logarithmic scale in words."""
    lowest: str
    unit: str
    is_log: bool


class GraphBand(NamedTuple):
    """The band of a problem or a silence behind a graph. `label` is empty if there is no room for it."""

    kind: str
    """`band` for a problem, `silence`."""
    x: float
    width: float
    label: str
    title: str
    page: str
    """The address of its page."""


class Graphs(NamedTuple):
    """The graphs of a history. `unknown` are the ranges without data, as x and width."""

    label: str
    ends: Sequence[GraphBar]
    most_ended: int
    tokens: Sequence[GraphBar]
    most_tokens: int
    durations: Durations | None
    bands: Sequence[GraphBand]
    unknown: Sequence[tuple[float, float]]
    ticks: Sequence[tuple[float, str]]


def graphs(history: History, span: str) -> Graphs:
    """Return the graphs of a history over one of `SPANS`."""
    periods, slot = history.periods, 100 / len(history.periods)
    most_ended, ends = _bars(periods, lambda each: each.ended.model_dump(), ENDS_HEIGHT)
    most_tokens, tokens = _bars(periods, lambda each: {"tokens": each.tokens}, TOKENS_HEIGHT)
    unknown, place = [], 0
    for is_known, run in groupby(periods, key=lambda each: each.known):
        count = len(list(run))
        if not is_known:
            unknown.append((place * slot, count * slot))
        place += count
    step_us = _TICKS_US[SPANS[span][1]]
    marked = [(index, each) for index, each in enumerate(periods) if to_us(each.from_) % step_us == 0]
    ended, worst = history.total.ended, max(periods, key=lambda each: each.ended.failed)
    failures = f", most failures {spell_period(worst)}" if ended.failed else ""
    return Graphs(
        f"last {span[:-1]} {span[-1]}: {ended.success:,} succeeded, {ended.failed:,} failed{failures}",
        ends,
        most_ended,
        tokens,
        most_tokens,
        _durations(history),
        _bands(history),
        unknown,
        [
            (x, f"{each.from_:%b %-d}" if each.from_.hour == 0 else f"{each.from_:%H:%M}")
            for index, each in marked
            if (x := (index + 0.5) * slot) < 100 - LABEL_WIDTH
        ],
    )


def spell_period(period: HistoryPeriod) -> str:
    """Return a period in words, such as `Nov 24 03:00 to 04:00 UTC`, or `Nov 24` for a day."""
    if period.until - period.from_ == timedelta(days=1):
        return f"{period.from_:%b %-d}"
    return f"{period.from_:%b %-d %H:%M} to {period.until:%H:%M} UTC"


def short(count: int) -> str:
    """Return a number in a short form: `9,999`, `120 k`, `3 M`."""
    return f"{count:,}" if count < 10_000 else f"{count // 1000} k" if count < 10_000_000 else f"{count // 1_000_000} M"


def _bars(
    periods: Sequence[HistoryPeriod], counts: Callable[[HistoryPeriod], Mapping[str, int]], height: int
) -> tuple[int, Sequence[GraphBar]]:
    """Return the highest sum of a period's counts, and a bar for each period in which a count is not 0."""
    slot, stacks = 100 / len(periods), list(map(counts, periods))
    most = max(sum(stack.values()) for stack in stacks)
    bars = []
    for index, (period, stack) in enumerate(zip(periods, stacks, strict=True)):
        top, parts = float(height), []
        for name, count in stack.items():
            if count:
                part = max(LOWEST, height * count / most)
                top -= part
                parts.append((name, top, part))
        if parts:
            bars.append(GraphBar((index + 0.1) * slot, slot * (0.8 if period is not periods[-1] else 1), parts, period))
    return most, bars


def _durations(history: History) -> Durations | None:
    """Return the graph of the durations of successes, `None` without successes."""
    total, slot = history.total, 100 / len(history.periods)
    known = [
        (index, each.median_seconds, each.p95_seconds)
        for index, each in enumerate(history.periods)
        if each.median_seconds is not None and each.p95_seconds is not None
    ]
    if total.median_seconds is None or total.p95_seconds is None:
        return None
    highest, is_log = max(p95 for _, _, p95 in known), total.p95_seconds > LOG_RATIO * total.median_seconds
    lowest = min(median for _, median, _ in known) if is_log else 0.0

    def y(seconds: float) -> float:
        share = log(seconds / lowest) / log(highest / lowest) if is_log else seconds / highest
        return DURATIONS_HEIGHT * (1 - share)

    path, drawn = "", {index for index, _, _ in known}
    for index, median, _ in known:
        x, is_alone = 10 * (index + 0.5) * slot, drawn.isdisjoint((index - 1, index + 1))
        place = f"{x - DASH / 2 * is_alone:.0f} {y(median):.1f}"
        path += f"L{place}" if index - 1 in drawn else f"M{place}h{DASH}" if is_alone else f"M{place}"
    factor, unit = next((factor, unit) for least, factor, unit in _UNITS if highest >= least)
    return Durations(
        path,
        [((index + 0.5) * slot, y(p95)) for index, _, p95 in known],
        in_words(highest) if is_log else f"{highest / factor:.3g}",
        in_words(lowest) if is_log else "0",
        unit,
        is_log,
    )


def _bands(history: History) -> Sequence[GraphBand]:
    """Return the bands of the newest silences and the newest problems, in the order of their beginnings.

    The band of an open problem reaches the right edge.
    """
    problems = sorted(history.problems, key=lambda each: each.opened_at)[-BANDS_COUNT:]
    silences = history.silences[-BANDS_COUNT:]
    spans = [
        *(("silence", each.from_, each.until, "silenced", each.what, "/silences") for each in silences),
        *(
            ("band", each.opened_at, each.closed_at, each.kind.partition(".")[2], each.kind, f"/problems/{each.id}")
            for each in problems
        ),
    ]
    length, bands, free_from = history.until - history.from_, [], 0.0
    for kind, begins_at, ends_at, label, title, page in sorted(spans, key=itemgetter(1)):
        x = max(0.0, 100 * ((begins_at - history.from_) / length))
        end = 100.0 if ends_at is None else min(100.0, 100 * ((ends_at - history.from_) / length))
        has_label = end - x >= LABEL_WIDTH and x >= free_from
        if has_label:
            free_from = x + LABEL_WIDTH
        width = max(NARROWEST, end - x)
        bands.append(GraphBand(kind, min(x, 100 - NARROWEST), width, label if has_label else "", title, page))
    return bands
