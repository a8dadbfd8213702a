from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sample_events import AT, OVERDUE_ENDS, replayed, sample

from watcher.domain.delivery import Delivery, Part
from watcher.domain.event import EventType
from watcher.domain.problems import CLOSINGS
from watcher.domain.routing import Silence, Silences, WeeklyHours, is_over, part_to_send
from watcher.domain.timestamps import Micros

START = datetime(2026, 11, 24, tzinfo=UTC)
END = START + timedelta(days=3)
FAILED = replace(sample(EventType.EXECUTION_FAILED), labels={"team": "sales", "env": "live"}, pipeline="p1")
DEGRADED = sample(EventType.ACCOUNT_DEGRADED)
LONE_CLOSING = sample(EventType.PIPELINE_RECOVERED)
BOTH = next(each for each in OVERDUE_ENDS if each.type == EventType.EXECUTION_FAILED)
REMINDER = sample(EventType.PROBLEM_REMINDER)
ACKNOWLEDGED = replace(sample(EventType.PROBLEM_ACKNOWLEDGED), acked_until=AT + timedelta(hours=1))


def silence(**wanted: Any) -> Silence:
    return Silence(START, END, **wanted)


EVERYTHING = silence(accounts=("default",))


@pytest.mark.parametrize(
    ("wanted", "failed", "degraded"),
    [
        ({"types": {EventType.EXECUTION_FAILED}}, True, False),
        ({"accounts": ("default", "eu")}, True, True),
        ({"accounts": ("eu",)}, False, False),
        ({"pipelines": ("p1",)}, True, False),
        ({"pipelines": ("p2",)}, False, False),
        ({"labels": {"team": "sales"}}, True, False),
        ({"labels": {"team": "sales", "env": "test"}}, False, False),
        ({"labels": {"team": "sales"}, "types": {EventType.ACCOUNT_DEGRADED}}, False, False),
    ],
)
def test_all_that_is_given_must_match(wanted: dict[str, object], *, failed: bool, degraded: bool) -> None:
    assert silence(**wanted).matches(FAILED) is failed
    assert silence(**wanted).matches(DEGRADED) is degraded


def test_no_silence_keeps_back_a_report() -> None:
    report = sample(EventType.WATCHER_REPORT)
    for each in (silence(), silence(types=frozenset(EventType)), silence(sinks=("ops",))):
        assert part_to_send(report, [each], at=AT) is Part.WHOLE


def test_those_that_are_on_and_may_concern_a_sink_are_found_and_replaced() -> None:
    there = silence(sinks=("ops",))
    silences = Silences([EVERYTHING, there])
    for at in (START, END - timedelta(microseconds=1)):
        assert silences.active("ops", at=at) == (EVERYTHING, there)
    assert silences.active("other", at=START) == (EVERYTHING,)
    assert silences.active("ops", at=START - timedelta(microseconds=1)) == silences.active("ops", at=END) == ()
    silences.all = [there]
    assert silences.active("other", at=START) == ()


BERLIN = ZoneInfo("Europe/Berlin")  # 2026: summer time from March 29 at 1:00 UTC until October 25 at 1:00 UTC
WEEKEND, SUNDAY = frozenset({5, 6}), frozenset({6})


def minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


@pytest.mark.parametrize(
    ("days", "hours", "at", "begin", "end"),
    [
        (WEEKEND, "20:00-32:00", "11-27 12:00", "11-28 19:00", "11-29 07:00"),
        (WEEKEND, "20:00-32:00", "11-29 06:59", "11-28 19:00", "11-29 07:00"),
        (WEEKEND, "20:00-32:00", "11-29 07:00", "11-29 19:00", "11-30 07:00"),
        (WEEKEND, "20:00-32:00", "11-30 07:00", "12-05 19:00", "12-06 07:00"),
        (SUNDAY, "08:00-09:00", "11-29 08:00", "12-06 07:00", "12-06 08:00"),
        (SUNDAY, "00:00-24:00", "11-29 22:59", "11-28 23:00", "11-29 23:00"),
        (SUNDAY, "20:00-32:00", "07-05 18:00", "07-05 18:00", "07-06 06:00"),
        # the day in spring has 23 hours, and no 2:30; that in autumn has 25, and 2:30 twice
        (SUNDAY, "00:00-24:00", "03-29 12:00", "03-28 23:00", "03-29 22:00"),
        (SUNDAY, "00:00-24:00", "10-25 12:00", "10-24 22:00", "10-25 23:00"),
        (SUNDAY, "02:30-03:15", "03-29 00:00", "03-29 00:30", "03-29 01:15"),
        (SUNDAY, "02:30-03:15", "10-25 00:00", "10-25 00:30", "10-25 02:15"),
        (SUNDAY, "01:00-02:30", "10-25 01:00", "10-24 23:00", "10-25 01:30"),
    ],
)
def test_a_weekly_silence_holds_by_the_clock_of_its_zone(
    days: frozenset[int], hours: str, at: str, begin: str, end: str
) -> None:
    first, last = map(minutes, hours.split("-"))
    weekly = WeeklyHours(days, first, last, BERLIN)
    moment, *window = (datetime.fromisoformat(f"2026-{text}Z") for text in (at, begin, end))
    assert list(weekly.window(moment)) == window
    silences = Silences([replace(silence(), weekly=weekly)])
    held = silences.active("ops", at=moment)
    assert [(each.starts_at, each.ends_at) for each in held] == ([tuple(window)] if window[0] <= moment else [])


def tried(delivery: Delivery, *, recorded: datetime) -> Delivery:
    return replace(delivery, attempts=1, recorded_at=Micros(round(recorded.timestamp() * 1e6)))


def unsent(delivery: Delivery) -> Delivery:
    """Return it to a sink that was not sent the opening of its problem."""
    return replace(delivery, is_opening_sent=False)


@pytest.mark.parametrize(
    ("delivery", "in_peace", "silenced"),
    [
        (FAILED, Part.WHOLE, None),
        (tried(FAILED, recorded=AT), Part.WHOLE, Part.WHOLE),
        (tried(FAILED, recorded=START - timedelta(seconds=1)), Part.WHOLE, Part.WHOLE),
        (replayed(FAILED), Part.WHOLE, Part.WHOLE),
        (LONE_CLOSING, Part.WHOLE, Part.WHOLE),
        (unsent(LONE_CLOSING), None, None),
        (BOTH, Part.WHOLE, Part.CLOSING),
        (unsent(BOTH), Part.NEWS, None),
        (replayed(unsent(BOTH)), Part.NEWS, Part.NEWS),
        (replace(BOTH, only_closes=True), Part.WHOLE, Part.CLOSING),
        (replace(unsent(BOTH), only_closes=True), None, None),
        (REMINDER, Part.WHOLE, None),
        (replace(REMINDER, is_problem_open=False), None, None),
        (replace(REMINDER, acked_until=AT + timedelta(seconds=1)), None, None),
        (replace(REMINDER, acked_until=AT), Part.WHOLE, None),
        (ACKNOWLEDGED, Part.WHOLE, Part.WHOLE),
        (unsent(ACKNOWLEDGED), None, None),
        (replace(ACKNOWLEDGED, acked_until=AT), None, None),
        (replace(ACKNOWLEDGED, acked_until=None), None, None),
    ],
)
def test_a_silence_keeps_back_what_was_never_tried_but_for_the_end_of_what_was_sent(
    delivery: Delivery, in_peace: Part | None, silenced: Part | None
) -> None:
    assert part_to_send(delivery, [], at=AT) is in_peace
    assert part_to_send(delivery, [EVERYTHING], at=AT) is silenced


@pytest.mark.parametrize("type_", sorted(CLOSINGS))
def test_what_only_says_that_a_problem_is_over_is_never_kept_back(type_: EventType) -> None:
    assert part_to_send(sample(type_), [EVERYTHING], at=AT) is Part.WHOLE


def test_what_was_begun_before_a_silence_goes_on_with_its_end() -> None:
    assert part_to_send(tried(BOTH, recorded=START - timedelta(seconds=1)), [EVERYTHING], at=AT) is Part.WHOLE
    assert part_to_send(tried(BOTH, recorded=AT), [EVERYTHING], at=AT) is Part.CLOSING


@pytest.mark.parametrize(
    ("delivery", "expected"),
    [
        (DEGRADED, False),
        (replace(DEGRADED, is_problem_open=False), False),  # it was never a dead letter: its closing comes after it
        (replayed(DEGRADED), False),
        (replayed(replace(DEGRADED, is_problem_open=False)), True),
        (replayed(replace(ACKNOWLEDGED, is_problem_open=False)), True),
        (replayed(replace(BOTH, is_problem_open=False)), False),
        (replayed(FAILED), False),
    ],
)
def test_what_is_replayed_of_a_problem_that_has_closed_is_over_unless_it_closes_it(
    delivery: Delivery, *, expected: bool
) -> None:
    assert is_over(delivery) is expected
