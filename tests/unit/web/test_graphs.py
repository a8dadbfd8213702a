"""The graphs of a pipeline's page: what is drawn where. No store, no browser."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from stores import START

from watcher.web.graphs import (
    BANDS_COUNT,
    DURATIONS_HEIGHT,
    ENDS_HEIGHT,
    LABEL_WIDTH,
    LOWEST,
    NARROWEST,
    Durations,
    graphs,
    short,
    spell_period,
)
from watcher.web.history import EndCounts, History, HistoryPeriod, PastProblem, SilencedTime
from watcher.web.models import PipelineRef

UNTIL = START + timedelta(hours=10)


def period(from_: datetime = START, hours: int = 1, **fields: Any) -> HistoryPeriod:
    ends = {name: fields.pop(name, 0) for name in ("success", "failed", "unrecognized")}
    given = {"known": True, "started": 0, "ended": EndCounts(**ends), "tokens": 0, **fields}
    return HistoryPeriod(from_=from_, until=from_ + timedelta(hours=hours), **given)


def history(
    by_place: dict[int, dict[str, Any]], *, count: int = 24, hours: int = 1, problems: Sequence[PastProblem] = ()
) -> History:
    """Return a history in which something happened in these of its periods."""
    first = UNTIL - timedelta(hours=count * hours)
    periods = [period(first + timedelta(hours=hours * n), hours, **by_place.get(n, {})) for n in range(count)]
    sums = {name: sum(getattr(each.ended, name) for each in periods) for name in EndCounts.model_fields}
    known = [each for each in periods if each.median_seconds is not None and each.p95_seconds is not None]
    measures: dict[str, Any] = {}
    if known:
        measures["median_seconds"] = sorted(each.median_seconds or 0 for each in known)[len(known) // 2]
        measures["p95_seconds"] = max(each.p95_seconds or 0 for each in known)
    whole = period(first, count * hours, **sums, **measures)
    its: dict[str, Any] = {"account": "default", "pipeline": PipelineRef(id="x"), "errors": [], "problems": problems}
    return History(from_=first, until=UNTIL, periods=periods, total=whole, **its)


def problem(number: int, opened: float, closed: float | None) -> PastProblem:
    """Return a problem that was open from one until another hour before the end of the graph."""
    closed_at = None if closed is None else UNTIL - timedelta(hours=closed)
    opened_at = UNTIL - timedelta(hours=opened)
    return PastProblem(id=bytes([number] * 16), kind="pipeline.failing", opened_at=opened_at, closed_at=closed_at)


def durations(by_place: dict[int, dict[str, Any]]) -> Durations:
    """Return how the durations of a day are drawn."""
    drawn = graphs(history(by_place), "24h").durations
    assert drawn is not None
    return drawn


def test_failures_stand_on_successes_can_be_seen_and_the_running_bar_has_no_end() -> None:
    drawn = graphs(history({3: {"success": 6, "failed": 2}, 4: {"success": 4, "unrecognized": 1}}), "24h")
    assert drawn.most_ended == 8
    first, second = drawn.ends
    assert first.parts == [("success", ENDS_HEIGHT / 4, ENDS_HEIGHT * 3 / 4), ("failed", 0.0, ENDS_HEIGHT / 4)]
    assert [name for name, _, _ in second.parts] == ["success", "unrecognized"]
    assert first.x == pytest.approx(3.1 * 100 / 24)
    (bar,) = graphs(history({3: {"success": 9_000, "failed": 1}}), "24h").ends
    assert bar.parts[1][2] == LOWEST
    past, running = graphs(history({22: {"success": 1}, 23: {"success": 1}}), "24h").ends
    assert past.x + past.width < 23 * 100 / 24
    assert running.x + running.width > 100


def test_the_label_says_what_a_graph_shows_and_when_most_failed() -> None:
    drawn = graphs(history({16: {"success": 310}, 17: {"failed": 9}, 18: {"failed": 3}}), "24h")
    assert drawn.label == "last 24 h: 310 succeeded, 12 failed, most failures Nov 24 03:00 to 04:00 UTC"
    assert graphs(history({}, count=30, hours=24), "30d").label == "last 30 d: 0 succeeded, 0 failed"
    assert spell_period(period(hours=24)) == "Nov 24"


def test_median_and_p95_share_a_scale_that_is_logarithmic_if_they_are_far_apart() -> None:
    ran = {n: {"success": 1, "median_seconds": 10.0, "p95_seconds": 20.0 * (1 + n % 2)} for n in (3, 4, 8)}
    drawn = durations(ran)
    assert (drawn.highest, drawn.lowest, drawn.unit, drawn.is_log) == ("40", "0", "seconds", False)
    assert [y for _, y in drawn.p95] == [0.0, DURATIONS_HEIGHT / 2, DURATIONS_HEIGHT / 2]
    assert drawn.median == "M146 48.0L188 48.0M349 48.0h10"
    ran = {3: {"success": 9, "median_seconds": 10.0, "p95_seconds": 201.0}}
    drawn = durations(ran)
    assert (drawn.is_log, drawn.highest, drawn.lowest, drawn.unit) == (True, "3 m 21 s", "10.0 s", "minutes")
    assert drawn.median.endswith(f" {DURATIONS_HEIGHT:.1f}h10")
    assert drawn.p95[0][1] == 0.0
    assert not durations({3: {**ran[3], "p95_seconds": 200.0}}).is_log


@pytest.mark.parametrize(
    ("seconds", "highest", "unit"), [(0.25, "0.25", "seconds"), (119, "119", "seconds"), (7200, "2", "hours")]
)
def test_durations_have_the_unit_that_suits_them(seconds: float, highest: str, unit: str) -> None:
    drawn = durations({3: {"success": 1, "median_seconds": seconds, "p95_seconds": seconds}})
    assert (drawn.highest, drawn.unit) == (highest, unit)


def test_times_that_are_not_known_are_joined_and_what_is_none_is_not_drawn() -> None:
    unknown = {"known": False}
    drawn = graphs(history({0: unknown, 1: unknown, 2: unknown, 23: unknown}), "24h")
    first, last = drawn.unknown
    assert list(first) == pytest.approx([0, 12.5])
    assert list(last) == pytest.approx([23 * 100 / 24, 100 / 24])
    drawn = graphs(history({3: {"failed": 2}}), "24h")
    assert (drawn.durations, drawn.most_tokens, drawn.tokens) == (None, 0, [])
    assert graphs(history({3: {"failed": 2, "tokens": 50}}), "24h").most_tokens == 50


def test_a_problem_lies_behind_the_time_that_it_was_open() -> None:
    before, short_one, open_one = graphs(
        history({}, problems=[problem(1, 6, None), problem(2, 30, 18), problem(3, 12, 11.99)]), "24h"
    ).bands
    assert before.width == pytest.approx(25)
    assert (before.x, before.label) == (0.0, "failing")
    assert short_one.x == pytest.approx(50)
    assert (short_one.width, short_one.label) == (NARROWEST, "")
    assert open_one.x == pytest.approx(75)
    assert (open_one.x + open_one.width, open_one.label) == (100, "failing")


def test_words_over_problems_do_not_overlap_and_only_the_newest_problems_are_drawn() -> None:
    problems = [problem(number, 24 - number / 2, None) for number in range(40)]
    bands = graphs(history({}, problems=problems), "24h").bands
    assert len(bands) == BANDS_COUNT
    labelled = [band.x for band in bands if band.label]
    assert len(labelled) > 1
    assert min(later - earlier for earlier, later in pairwise(labelled)) >= LABEL_WIDTH
    assert all(band.x + band.width <= 100.001 for band in bands)


def test_a_silence_lies_behind_its_time_and_leads_to_the_silences() -> None:
    silenced = [
        SilencedTime(from_=UNTIL - timedelta(hours=30), until=UNTIL + timedelta(hours=1), what="silenced: deploy")
    ]
    whole = history({}, problems=[problem(1, 6, None)]).model_copy(update={"silences": silenced})
    silence, failing = graphs(whole, "24h").bands
    assert (silence.kind, silence.x, silence.width) == ("silence", 0.0, 100.0)
    assert (silence.label, silence.title, silence.page) == ("silenced", "silenced: deploy", "/silences")
    assert (failing.kind, failing.label, failing.page) == ("band", "failing", f"/problems/{whole.problems[0].id}")


@pytest.mark.parametrize(
    ("span", "count", "hours", "texts"),
    [
        ("24h", 24, 1, ["12:00", "18:00", "Nov 24"]),
        ("7d", 28, 6, ["Nov 19", "Nov 21", "Nov 23"]),
        ("30d", 30, 24, ["Oct 29", "Nov 5", "Nov 12"]),
    ],
)
def test_a_few_moments_are_written_below(span: str, count: int, hours: int, texts: list[str]) -> None:
    until = UNTIL if hours == 1 else START + timedelta(hours=24)
    first = until - timedelta(hours=count * hours)
    periods = [period(first + timedelta(hours=hours * number), hours) for number in range(count)]
    whole = history({}).model_copy(update={"from_": first, "until": until, "periods": periods})
    assert [text for _, text in graphs(whole, span).ticks] == texts


@pytest.mark.parametrize(("count", "text"), [(9_999, "9,999"), (41_200, "41 k"), (12_300_000, "12 M")])
def test_large_numbers_are_short_at_an_axis(count: int, text: str) -> None:
    assert short(count) == text
