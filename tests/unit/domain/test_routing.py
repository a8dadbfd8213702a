"""Which sinks an event goes to."""

from dataclasses import replace
from itertools import product
from uuid import UUID

import pytest

from watcher.domain.event import Event, EventType, Group
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.routing import GROUPED_WITH_OPENINGS, Grouped, GroupRules, Route, Router, types_matching
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
def test_events_go_together_that_are_alike_in_all_that_is_named(
    by: tuple[str, ...], same: dict[str, object], other: dict[str, object]
) -> None:
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
    closings = [
        replace(FAILED, problem=problem, closes=True),
        replace(FAILED, type=EventType.PROBLEM_CLOSED, closes=True),
    ]
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
