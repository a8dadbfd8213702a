"""Which sinks an event goes to, and what a silence keeps back."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sample_events import AT, OVERDUE_ENDS, replayed, sample

from watcher.domain.delivery import Delivery, Part
from watcher.domain.event import Event, EventType, Group
from watcher.domain.problems import CLOSINGS, PROBLEM_KINDS
from watcher.domain.routing import (
    GROUPED_WITH_OPENINGS,
    Grouped,
    GroupRules,
    Route,
    Router,
    Silence,
    Silences,
    WeeklyHours,
    is_over,
    part_to_send,
    types_matching,
)
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Watch

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
OTHER = "77aa0000-0000-4000-8000-000000000000"
SALES = Watch("default", PIPELINE, (), labels={"team": "sales", "tier": "gold"})
NAMELESS = Watch("default", OTHER, ())
ALL = frozenset(EventType)


FAILED = Event(
    *(UUID(int=1), EventType.EXECUTION_FAILED, b"s", 1, b"{}", b"s"),
    account="default",
    pipeline="p",
    labels={"team": "sales"},
)


def a_route(
    *, types: frozenset[EventType] = ALL, labels: dict[str, str] | None = None, pipelines: tuple[str, ...] = ()
) -> Route:
    return Route(types, labels or {}, frozenset(pipelines))


def goes(route: Route, type_: EventType, watch: Watch | None) -> bool:
    return Router({"ops": route}).entry_of(replace(FAILED, type=type_), watch=watch).sinks == ("ops",)


@pytest.mark.parametrize(
    ("globs", "types"),
    [
        (("*",), ALL),
        (("execution.failed",), {EventType.EXECUTION_FAILED}),
        (("account.*",), {EventType.ACCOUNT_DEGRADED, EventType.ACCOUNT_RECOVERED}),
        (("*.recovered",), {EventType.ACCOUNT_RECOVERED, EventType.SINK_RECOVERED, EventType.PIPELINE_RECOVERED}),
        (("execution.failed", "sink.d*"), {EventType.EXECUTION_FAILED, EventType.SINK_DISABLED}),
        (("execution.?ew",), {EventType.EXECUTION_NEW}),
        (("execution",), set()),
        (("Execution.failed",), set()),
        (("failed",), set()),
        ((), set()),
    ],
)
def test_a_glob_names_whole_types(globs: tuple[str, ...], types: set[EventType]) -> None:
    assert types_matching(globs) == types


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        (a_route(), True),
        (a_route(labels={"team": "sales"}), True),
        (a_route(labels={"team": "sales", "tier": "gold"}), True),
        (a_route(labels={"team": "sales", "tier": "silver"}), False),
        (a_route(labels={"team": "Sales"}), False),
        (a_route(labels={"region": ""}), False),
        (a_route(pipelines=(PIPELINE,)), True),
        (a_route(pipelines=(OTHER, PIPELINE)), True),
        (a_route(pipelines=(OTHER,)), False),
        (a_route(labels={"team": "sales"}, pipelines=(OTHER,)), False),
        (a_route(types=frozenset({EventType.EXECUTION_FAILED}), labels={"team": "sales"}), False),
    ],
)
def test_the_type_and_all_labels_must_match_and_any_pipeline(route: Route, *, wanted: bool) -> None:
    assert goes(route, EventType.EXECUTION_NEW, SALES) is wanted


def test_an_event_without_a_pipeline_passes_by_its_type_alone() -> None:
    route = a_route(types=types_matching(("account.*",)), labels={"team": "sales"}, pipelines=(OTHER,))
    assert goes(route, EventType.ACCOUNT_DEGRADED, None)
    assert not goes(route, EventType.SINK_FAILING, None)


def test_an_event_goes_to_every_sink_that_wants_it_in_the_order_of_the_file() -> None:
    router = Router({"b": a_route(), "a": a_route(labels={"team": "sales"}), "c": a_route(types=frozenset())})
    assert router.entry_of(replace(FAILED, type=EventType.EXECUTION_NEW), watch=SALES).sinks == ("b", "a")
    assert router.entry_of(replace(FAILED, type=EventType.EXECUTION_NEW), watch=NAMELESS).sinks == ("b",)


def test_a_sink_is_not_sent_its_own_trouble() -> None:
    router = Router({"console": a_route(), "ops": a_route()})
    assert router.entry_of(replace(FAILED, type=EventType.SINK_FAILING), without_sink="ops").sinks == ("console",)


@pytest.mark.parametrize(
    ("by", "same", "other"),
    [
        (("pipeline",), {"account": "eu"}, {"pipeline": "q"}),
        (("account",), {"pipeline": "q"}, {"account": "eu"}),
        (("type",), {"pipeline": "q"}, {"type": EventType.EXECUTION_LOST}),
        (("pipeline", "labels.team"), {"labels": {"team": "sales", "env": "live"}}, {"labels": {"team": "support"}}),
    ],
)
def test_alike_events_go_together(by: tuple[str, ...], same: dict[str, object], other: dict[str, object]) -> None:
    rules = GroupRules(by, wait_s=30.0, max_count=100)
    group = rules.group_of(FAILED)
    assert group is not None
    assert (len(group.key or b""), group.wait_s) == (16, 30.0)
    assert rules.group_of(replace(FAILED, **same)) == group  # type: ignore[arg-type] # each a field of it
    assert rules.group_of(replace(FAILED, **other)) not in {group, None}  # type: ignore[arg-type]


@pytest.mark.parametrize("lacks", ["pipeline", "labels"])
def test_an_event_that_lacks_a_field_goes_alone(lacks: str) -> None:
    rules = GroupRules(("pipeline", "labels.team"), wait_s=30.0, max_count=100)
    lacking = replace(FAILED, **{lacks: {} if lacks == "labels" else None})  # type: ignore[arg-type]
    assert rules.group_of(lacking) is None


@pytest.mark.parametrize("type_", EventType)
def test_what_happens_to_executions_is_grouped_and_a_gap_and_at_some_sinks_no_problem(type_: EventType) -> None:
    event = replace(FAILED, type=type_)
    is_grouped = type_.startswith("execution.") or type_ is EventType.PIPELINE_GAP
    for of, problem in product((Grouped.EXECUTIONS, Grouped.WITHOUT_PROBLEMS), (None, UUID(int=5))):
        rules = GroupRules(("pipeline",), wait_s=30.0, max_count=100, of=of)
        group = rules.group_of(replace(event, problem=problem))
        assert (group is not None) is (is_grouped and (of is Grouped.EXECUTIONS or problem is None))


def test_openings_acknowledgements_and_closings_are_groups_of_their_own() -> None:
    rules = GroupRules(("account",), wait_s=10.0, max_count=100, of=Grouped.PROBLEMS)
    problem = UUID(int=5)
    openings = [replace(FAILED, type=type_, problem=problem) for type_ in PROBLEM_KINDS]
    openings += [replace(FAILED, type=type_) for type_ in GROUPED_WITH_OPENINGS]
    closings = [replace(FAILED, closes=True, problem=problem)]
    closings.append(replace(FAILED, closes=True, type=EventType.PROBLEM_CLOSED))
    acknowledged = replace(FAILED, type=EventType.PROBLEM_ACKNOWLEDGED, problem=problem)
    groups = [{rules.group_of(each) for each in some} for some in (openings, closings, [acknowledged])]
    assert [len(each) for each in groups] == [1, 1, 1]
    assert len(set.union(*groups)) == 3
    assert None not in set.union(*groups)
    for other in (FAILED, replace(FAILED, type=EventType.PROBLEM_REMINDER, problem=problem)):
        assert rules.group_of(other) is None


def test_an_event_is_grouped_where_a_sink_groups_it() -> None:
    rules = GroupRules(("pipeline",), wait_s=5.0, max_count=100)
    router = Router({"a": replace(a_route(), group=rules), "b": a_route(), "c": replace(a_route(), group=rules)})
    groups = router.entry_of(FAILED, without_sink="c").groups
    assert {name: group.wait_s for name, group in groups.items()} == {"a": 5.0}
    assert isinstance(groups["a"], Group)
    router.routes = {"a": a_route()}
    assert router.entry_of(FAILED, without_sink="c").groups == {}


# Silences

START = datetime(2026, 11, 24, tzinfo=UTC)
END = START + timedelta(days=3)
DELIVERY = replace(sample(EventType.EXECUTION_FAILED), labels={"team": "sales", "env": "live"}, pipeline="p1")
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
    assert silence(**wanted).matches(DELIVERY) is failed
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
def test_a_weekly_silence_holds_by_its_zone(days: frozenset[int], hours: str, at: str, begin: str, end: str) -> None:
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
        (DELIVERY, Part.WHOLE, None),
        (tried(DELIVERY, recorded=AT), Part.WHOLE, Part.WHOLE),
        (tried(DELIVERY, recorded=START - timedelta(seconds=1)), Part.WHOLE, Part.WHOLE),
        (replayed(DELIVERY), Part.WHOLE, Part.WHOLE),
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
        (replayed(DELIVERY), False),
    ],
)
def test_what_is_replayed_of_a_closed_problem_is_over_unless_it_closes_it(delivery: Delivery, expected: bool) -> None:
    assert is_over(delivery) is expected
