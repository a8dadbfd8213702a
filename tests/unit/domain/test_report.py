import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from watcher.domain.envelope import LINE_BYTES
from watcher.domain.event import EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.history import Totals
from watcher.domain.report import (
    LISTED_COUNT,
    Happening,
    PipelineResult,
    ReportSchedule,
    error_of,
    report_of,
    shorten_report,
)
from watcher.domain.routing import Router
from watcher.domain.timestamps import Micros

EVERY_DAY = frozenset(range(7))
YEAR = datetime(2026, 1, 1, tzinfo=UTC)
MONDAY = datetime(2026, 11, 30, 8, tzinfo=UTC)
ABOUT = {"from": "2026-11-29T08:00:00.000Z", "until": "2026-11-30T08:00:00.000Z", "name": None}


def schedule(at: str, zone: str, days: frozenset[int] = EVERY_DAY) -> ReportSchedule:
    return ReportSchedule(days, int(at[:2]) * 60 + int(at[3:]), ZoneInfo(zone))


def moments_of(given: ReportSchedule) -> list[tuple[datetime, datetime]]:
    """Return which two moments were the newest, looked at every hour of a year, in their order."""
    return list(dict.fromkeys(given.last_two(YEAR + timedelta(hours=count)) for count in range(365 * 24)))


@pytest.mark.parametrize(
    ("at", "zone"),
    [
        ("02:30", "Europe/Berlin"),
        ("02:00", "Europe/Berlin"),
        ("03:00", "Europe/Berlin"),
        ("00:00", "Europe/Berlin"),
        ("23:59", "America/New_York"),
        ("01:30", "America/New_York"),
        ("02:15", "Australia/Lord_Howe"),  # its clock is set by half an hour
        ("08:00", "Asia/Kolkata"),
        ("08:00", "UTC"),
    ],
)
def test_over_a_year_there_is_one_moment_for_each_day_of_its_zone(at: str, zone: str) -> None:
    before, found = zip(*moments_of(schedule(at, zone)), strict=True)
    assert before[1:] == found[:-1]  # no time is left out, and none counted twice
    days = [each.astimezone(ZoneInfo(zone)).date() for each in found]
    assert days == [days[0] + timedelta(days=count) for count in range(len(days))]
    assert len(days) in {365, 366}
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("day", "at", "zone", "moment"),
    [
        ("2026-11-30", "08:00", "Europe/Berlin", "2026-11-30T07:00"),
        ("2026-11-30", "08:00", "Asia/Kolkata", "2026-11-30T02:30"),
        ("2026-03-29", "02:30", "Europe/Berlin", "2026-03-29T01:30"),  # skipped: 03:30 summer time
        ("2026-10-25", "02:30", "Europe/Berlin", "2026-10-25T00:30"),  # twice: the first, in summer time
    ],
)
def test_a_moment_is_by_the_wall_clock_of_its_zone(day: str, at: str, zone: str, moment: str) -> None:
    due_at = datetime.fromisoformat(f"{moment}Z")
    given = schedule(at, zone)
    assert given.last_two(due_at)[1] == due_at
    assert given.last_two(due_at - timedelta(microseconds=1))[1] < due_at
    assert due_at.astimezone(ZoneInfo(zone)).date().isoformat() == day


def test_mondays_moment_of_workdays_comes_after_that_of_friday_and_before_that_of_tuesday() -> None:
    before, moment = schedule("08:00", "UTC", frozenset(range(5))).last_two(MONDAY)
    assert (before, moment) == (MONDAY - timedelta(days=3), MONDAY)


@pytest.mark.parametrize("passed", [timedelta(), timedelta(seconds=1), timedelta(days=6, hours=23)])
def test_a_weekly_report_has_its_moments_a_week_apart(passed: timedelta) -> None:
    given = schedule("08:00", "UTC", frozenset({0}))
    assert given.last_two(MONDAY + passed) == (MONDAY - timedelta(days=7), MONDAY)


# What a report says


def totals(success: int = 0, failed: int = 0, *, tokens: int = 0, seconds: tuple[int, ...] = ()) -> Totals:
    return Totals(Counter(success=success, failed=failed, tokens=tokens), Counter(seconds))


def result(
    name: str,
    now: Totals,
    before: Totals | None = None,
    *,
    state: str = "well",
    problems: int = 0,
    error: dict[str, Any] | None = None,
) -> PipelineResult:
    return PipelineResult("default", f"id of {name}", name, state, problems, now, before or Totals(), error)


def report(*results: PipelineResult, **how: Any) -> dict[str, Any]:
    return report_of(results, how.pop("errors", ()), ABOUT | how)


def names(made: dict[str, Any], *, needs_look: bool) -> list[str]:
    return [each["name"] for each in made["pipelines"] if each["needsLook"] is needs_look]


def test_a_report_has_what_happened_in_each_pipeline_and_in_all() -> None:
    error = error_of("Greeting", "upstream timeout", 12)
    sales = totals(312, 30, tokens=5_000, seconds=(25,) * 300 + (39,) * 12)
    other = result("Onboarding", totals(8, tokens=100))
    made = report(
        other,
        result("Sales agent", sales, totals(492, 8), state="failing", problems=1, error=error),
        errors=[{"pipeline": "Sales agent", **error}] * 4,
        name="morning",
        timezone="Europe/Berlin",
        link="https://watcher.example.com",
    )
    figures = {"openProblems": 1, "failed": 30, "successRateBefore": 0.984, "medianSeconds": 11.4, "p95Seconds": 11.4}
    about = {"account": "default", "id": "id of Sales agent", "name": "Sales agent"}
    of_it = {"state": "failing", "needsLook": True, "ended": 342, "successRate": 0.9122, "tokens": 5_000}
    assert made["pipelines"][0] == about | of_it | figures | {"error": error}
    assert made["total"] == figures | {"ended": 350, "successRate": 0.9142, "tokens": 5_100}
    counts = {"lookCount": 1, "wellCount": 1, "moreCount": 0, "lineCount": 0}
    assert {key: made[key] for key in made.keys() - {"pipelines", "total"}} == counts | ABOUT | {
        "name": "morning",
        "timezone": "Europe/Berlin",
        "link": "https://watcher.example.com",
        "happened": [],
        "errors": [{"pipeline": "Sales agent", **error}] * 3,
    }


def test_a_pipeline_needs_a_look_by_its_state_a_low_rate_or_a_fall_that_chance_does_not_explain() -> None:
    made = report(
        result("open problem", totals(100), state="silent", problems=1),
        result("unknown", totals(), state="unknown"),
        result("under 90 %", totals(89, 11), totals(89, 11)),
        result("fell", totals(950, 50), totals(1_000)),
        result("90 %", totals(90, 10), totals(90, 10)),
        result("fell by chance", totals(19, 1), totals(20)),
        result("rose", totals(1_000), totals(950, 50)),
        result("nothing ended", totals()),
        result("its failures are over", totals(5, 5))._replace(is_over=True),
    )
    assert set(names(made, needs_look=True)) == {"open problem", "unknown", "under 90 %", "fell"}
    assert (made["lookCount"], made["wellCount"]) == (4, 5)


def test_the_worst_come_first_by_open_problems_then_rate_then_how_many_failed() -> None:
    made = report(
        result("well, one failed", totals(99, 1)),
        result("fell", totals(950, 50), totals(1_000)),
        result("unknown", totals(), state="unknown"),
        result("half failed", totals(5, 5)),
        result("half of many failed", totals(50, 50)),
        result("overdue", totals(10), state="overdue", problems=40),
        result("failing", totals(1, 9), state="failing", problems=1),
        result("well", totals(99)),
    )
    worst = ["failing", "overdue", "half of many failed", "half failed", "fell", "unknown"]
    assert names(made, needs_look=True) == worst
    assert names(made, needs_look=False) == ["well, one failed", "well"]


def test_a_rate_is_rounded_down_and_absent_if_nothing_ended() -> None:
    made = report(result("a", totals(99_999, 1)), result("b", totals()))
    assert [each.get("successRate") for each in made["pipelines"]] == [0.9999, None]


def test_an_event_has_the_worst_20_and_says_how_many_more_there_are() -> None:
    made = shorten_report(report(*(result(f"number {count:02}", totals(count, 10)) for count in range(30))))
    assert [each["name"] for each in made["pipelines"]] == [f"number {count:02}" for count in range(LISTED_COUNT)]
    assert (made["moreCount"], made["lookCount"] + made["wellCount"]) == (10, 30)


@pytest.mark.parametrize("character", ["x", "ä", "漢", "🎉", '"', "\x1b", "\u2028"])
def test_a_report_loses_whole_pipelines_before_its_event_is_too_long(character: str) -> None:
    text = character * 300
    error = error_of(text, text, 10**9)
    result_ = result(text, totals(10**9, 10**9, tokens=10**15, seconds=(10, 20)), totals(10**9), error=error)
    results = (result_._replace(id=f"{count}{LISTED_COUNT}" * 18) for count in range(LISTED_COUNT))
    errors, link = [{"pipeline": text[:128], **error}] * 3, f"https://{'x' * 250}"
    made = shorten_report(report(*results, errors=errors, name="x" * 64, link=link))
    entry = EventFactory(Router({})).report("x" * 64, made, sinks=["a"], moment=MONDAY, after=0, at=MONDAY)
    assert len(entry.event.body) <= LINE_BYTES
    assert len(made["pipelines"]) + made["moreCount"] == LISTED_COUNT
    assert made["pipelines"]
    assert all("error" in each and "tokens" in each for each in made["pipelines"])


def happening(name: str, since: int, until: int | None, text: str = "503", **more: Any) -> Happening:
    """Return a failing pipeline, with times in minutes."""
    at, end = (None if minute is None else Micros(minute * 60_000_000) for minute in (since, until))
    assert at is not None
    return Happening("pipeline.failing", "pipeline", {name: name}, at, end, f"{name} keeps failing", text, **more)


def lines_of(*happenings: Happening) -> list[tuple[str, bool]]:
    made = report_of([], (), ABOUT, happenings)
    return [(each["what"], "until" in each) for each in made["happened"]]


def test_one_trouble_of_several_pipelines_in_one_stretch_is_one_line() -> None:
    found = lines_of(
        *(happening(name, 0, 1) for name in "abcd"),
        *(happening(name, 5, 20) for name in "ab"),
        *(happening(name, 31, 32) for name in "cd"),
        *(happening(name, 0, 1, "429 of another kind") for name in "ab"),
        *(happening(name, 0, None) for name in "ef"),
    )
    assert found == [("e, f", False), ("4 pipelines (6 times)", True), ("a, b", True), ("c, d", True)]


def test_what_happened_to_one_pipeline_again_and_again_is_one_line_with_its_newest_error() -> None:
    again = [happening("a", 60 * hour, 60 * hour + 1, f"error {'x' * hour}") for hour in range(5)]
    made = report_of([], (), ABOUT, again)
    (line,) = made["happened"]
    assert (line["what"], line["error"]) == ("a keeps failing (5 times)", "error xxxx")
    assert (line["from"], line["until"]) == ("1970-01-01T00:00:00.000Z", "1970-01-01T04:01:00.000Z")


def test_accounts_and_sinks_have_lines_of_their_own_before_pipelines_and_acknowledged_ones_are_last() -> None:
    sink = Happening("sink.failing", "sink", {"ops": "ops"}, Micros(0), None, "Sink ops is failing", rank=1)
    dead = replace(sink, kind="delivery.dead", names={"ops": "ops"}, title="Sink ops: 3 dead letters")
    over = replace(sink, names={"ops": "ops"}, until=Micros(1))
    accounts = [Happening("account.degraded", "account", {name: name}, Micros(0), None, name, rank=0) for name in "ab"]
    acked = replace(accounts[0], names={"d": "d"}, title="d", is_acknowledged=True)
    other = happening("e", 0, None, "429 of another kind", rank=1)
    found = lines_of(happening("c", 0, None, rank=0), sink, dead, other, acked, *accounts, over)
    assert [what for what, _ in found] == [
        *("a", "b", "Sink ops is failing", "Sink ops: 3 dead letters", "c keeps failing", "e keeps failing", "d"),
        "Sink ops is failing",
    ]


def test_pipelines_of_one_name_are_counted_each() -> None:
    twin = replace(happening("a", 0, None), names={"eu/a": "a"})
    assert lines_of(happening("a", 0, None), twin, happening("b", 0, None), twin) == [("a, a, b (4 times)", False)]


def test_what_happened_is_cut_until_the_event_fits() -> None:
    text = "\x1b" * 300
    happenings = [happening(f"{number}{text}", number * 60, None, f"{'x' * number} {text}") for number in range(60)]
    made = shorten_report(report_of([result("a", totals(1))], (), ABOUT, happenings))
    assert 0 < len(made["happened"]) < 20
    assert made["lineCount"] == 60
    assert len(json.dumps(made).encode()) < 16 * 1024


def test_an_event_of_a_report_has_one_id_for_each_name_and_moment() -> None:
    made = shorten_report(report())

    def id_of(name: str, moment: datetime, after: int) -> object:
        entry = EventFactory(Router({})).report(name, made, sinks=["a"], moment=moment, after=after, at=MONDAY)
        return entry.event.id

    ids = {id_of(name, MONDAY + timedelta(days=count), 0) for name in ("a", "b") for count in range(3)}
    assert len(ids) == 6
    assert id_of("a", MONDAY, 0) == id_of("a", MONDAY, 7)


def test_an_event_of_a_report_goes_to_its_sinks_alone_and_once_to_each() -> None:
    made = shorten_report(report())
    entry = EventFactory(Router({})).report("a", made, sinks="xyx", moment=MONDAY, after=4, at=MONDAY)
    assert (entry.sinks, dict(entry.groups)) == (("x", "y"), {})
    event = entry.event
    assert (event.type, event.sequence, event.pipeline) == (EventType.WATCHER_REPORT, 5, None)
    assert b'"source":"/reports/a"' in event.body
    assert b'"subject"' not in event.body
