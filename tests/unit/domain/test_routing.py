"""Which sinks an event goes to."""

import pytest

from watcher.domain.event import EventType
from watcher.domain.routing import Route, Router, types_matching
from watcher.domain.watch import Watch

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
OTHER = "77aa0000-0000-4000-8000-000000000000"
SALES = Watch("default", PIPELINE, (), labels={"team": "sales", "tier": "gold"})
NAMELESS = Watch("default", OTHER, ())
ALL = frozenset(EventType)


def a_route(
    *, types: frozenset[EventType] = ALL, labels: dict[str, str] | None = None, pipelines: tuple[str, ...] = ()
) -> Route:
    return Route(types, labels or {}, frozenset(pipelines))


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
    ("labels", "wanted"),
    [
        ({}, True),
        ({"team": "sales"}, True),
        ({"team": "sales", "tier": "gold"}, True),
        ({"team": "sales", "tier": "silver"}, False),
        ({"team": "Sales"}, False),
        ({"region": "eu"}, False),
        ({"region": ""}, False),
    ],
)
def test_all_labels_must_match(labels: dict[str, str], *, wanted: bool) -> None:
    assert a_route(labels=labels).wants(EventType.EXECUTION_NEW, SALES) is wanted


@pytest.mark.parametrize(
    ("pipelines", "wanted"), [((), True), ((PIPELINE,), True), ((OTHER, PIPELINE), True), ((OTHER,), False)]
)
def test_any_pipeline_is_enough(pipelines: tuple[str, ...], *, wanted: bool) -> None:
    assert a_route(pipelines=pipelines).wants(EventType.EXECUTION_NEW, SALES) is wanted


def test_labels_and_pipelines_must_both_match() -> None:
    assert not a_route(labels={"team": "sales"}, pipelines=(OTHER,)).wants(EventType.EXECUTION_NEW, SALES)
    assert not a_route(labels={"team": "sales"}, pipelines=(OTHER,)).wants(EventType.EXECUTION_NEW, NAMELESS)


def test_the_type_must_match_whatever_else_does() -> None:
    route = a_route(types=frozenset({EventType.EXECUTION_FAILED}), labels={"team": "sales"})
    assert route.wants(EventType.EXECUTION_FAILED, SALES)
    assert not route.wants(EventType.EXECUTION_NEW, SALES)


def test_an_event_without_a_pipeline_passes_by_its_type_alone() -> None:
    route = a_route(types=types_matching(("account.*",)), labels={"team": "sales"}, pipelines=(OTHER,))
    assert route.wants(EventType.ACCOUNT_DEGRADED, None)
    assert not route.wants(EventType.SINK_FAILING, None)


def test_a_gap_goes_where_its_pipelines_executions_go() -> None:
    router = Router({"sales": a_route(labels={"team": "sales"}), "one": a_route(pipelines=(OTHER,)), "all": a_route()})
    assert router.sinks_for(EventType.PIPELINE_GAP, watch=SALES) == ("sales", "all")
    assert router.sinks_for(EventType.PIPELINE_GAP, watch=NAMELESS) == ("one", "all")


def test_an_event_goes_to_every_sink_that_wants_it_in_the_order_of_the_file() -> None:
    router = Router({"b": a_route(), "a": a_route(labels={"team": "sales"}), "c": a_route(types=frozenset())})
    assert router.sinks_for(EventType.EXECUTION_NEW, watch=SALES) == ("b", "a")
    assert router.sinks_for(EventType.EXECUTION_NEW, watch=NAMELESS) == ("b",)


def test_a_sink_is_not_sent_its_own_trouble() -> None:
    router = Router({"console": a_route(), "ops": a_route()})
    assert router.sinks_for(EventType.SINK_FAILING, but="ops") == ("console",)
