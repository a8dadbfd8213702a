"""Every metric has the name and the labels of the contract, and what is known starts at 0."""

import os
from importlib.metadata import version

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sample_metrics import busy_pipeline

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventType
from watcher.domain.execution import Outcome
from watcher.runtime.metrics import AccountMetrics, Metrics, SinkMetrics

OUTCOMES = [
    "ok",
    "not_found",
    "unauthorized",
    "forbidden",
    "rate_limited",
    "rejected",
    "server_error",
    "timeout",
    "connection",
    "redirect",
    "invalid",
]
CONTRACT = {
    "api_requests_total": ("counter", {"account", "endpoint", "outcome"}),
    "api_request_duration_seconds": ("histogram", {"account", "endpoint"}),
    "polls_total": ("counter", {"account", "outcome"}),
    "open_executions": ("gauge", {"account", "status"}),
    "events_total": ("counter", {"type"}),
    "problems_open": ("gauge", {"kind"}),
    "detection_delay_seconds": ("histogram", set()),
    "poll_lateness_seconds": ("histogram", {"account"}),
    "deliveries_total": ("counter", {"sink", "outcome"}),
    "delivery_delay_seconds": ("histogram", {"sink"}),
    "alertmanager_refreshes_total": ("counter", set()),  # of sinks that ask for it
    "outbox_pending": ("gauge", {"sink"}),
    "outbox_oldest_timestamp_seconds": ("gauge", {"sink"}),
    "sink_up": ("gauge", {"sink"}),
    "sink_trouble_info": ("gauge", set()),  # shows only what is in trouble
    "account_up": ("gauge", {"account"}),
    "last_successful_poll_timestamp_seconds": ("gauge", {"account"}),
    "leases_held": ("gauge", set()),  # of replicas on PostgreSQL
    "lease_takeovers_total": ("counter", set()),  # the same
    "store_up": ("gauge", set()),
    "store_failures_total": ("counter", set()),
    "loop_lag_seconds": ("gauge", set()),
    "config_last_reload_successful": ("gauge", set()),
    "config_last_reload_success_timestamp_seconds": ("gauge", set()),
    "config_restart_pending": ("gauge", set()),
    "build_info": ("gauge", {"version"}),
    "pipeline_info": ("gauge", {"account", "pipeline", "name"}),
    "executions_started_total": ("counter", {"account", "pipeline"}),
    "executions_ended_total": ("counter", {"account", "pipeline", "status"}),
    "execution_duration_seconds": ("histogram", {"account", "pipeline", "status"}),
    "execution_ai_tokens_total": ("counter", {"account", "pipeline"}),
    "execution_goals_total": ("counter", {"account", "pipeline", "goal"}),
    "pipeline_open_executions": ("gauge", {"account", "pipeline", "status"}),
    "pipeline_oldest_open_timestamp_seconds": ("gauge", {"account", "pipeline", "status"}),
    "pipeline_last_started_timestamp_seconds": ("gauge", {"account", "pipeline"}),
    "pipeline_last_ended_timestamp_seconds": ("gauge", {"account", "pipeline", "status"}),
}
PROCESS: dict[str, tuple[str, set[str]]] = {
    "cpu_seconds_total": ("counter", set()),
    "max_fds": ("gauge", set()),
    "open_fds": ("gauge", set()),
    "resident_memory_bytes": ("gauge", set()),
    "start_time_seconds": ("gauge", set()),
    "virtual_memory_bytes": ("gauge", set()),
}


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    AccountMetrics(metrics, "default").pipelines["0b5c"] = busy_pipeline()
    SinkMetrics(metrics, "ops")
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"watcher_{name}", labels)


def shown(metrics: Metrics) -> dict[str, tuple[str, set[str]]]:
    """What Prometheus reads: names, types, labels."""
    families = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        families[name] = (family.type, labels)
    return families


def test_the_names_and_labels_are_those_of_the_contract_and_no_others(metrics: Metrics) -> None:
    ours = {f"watcher_{name}": rest for name, rest in CONTRACT.items()}
    assert shown(metrics) == ours | {f"process_{name}": rest for name, rest in PROCESS.items()}


def test_the_help_of_a_metric_is_a_phrase(metrics: Metrics) -> None:
    helps = [family.documentation for family in metrics.registry.collect() if family.name.startswith("watcher_")]
    assert [each for each in helps if len(each.split()) < 5 or not each.endswith(".")] == []


def test_the_process_is_this_one(metrics: Metrics) -> None:
    files = metrics.registry.get_sample_value("process_open_fds")
    assert files == pytest.approx(len(os.listdir("/proc/self/fd")), abs=1)  # noqa: PTH208 (its own included)


def test_the_outcomes_are_those_of_the_contract() -> None:
    assert list(Outcome) == OUTCOMES


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_requests_and_polls_start_at_0_with_every_outcome(metrics: Metrics, outcome: str) -> None:
    for endpoint in ("get", "list"):
        assert value(metrics, "api_requests_total", account="default", endpoint=endpoint, outcome=outcome) == 0
    assert value(metrics, "polls_total", account="default", outcome=outcome) == 0


def test_contradictions_start_at_0(metrics: Metrics) -> None:
    assert value(metrics, "polls_total", account="default", outcome="contradicted") == 0


@pytest.mark.parametrize("endpoint", ["get", "list"])
def test_durations_of_both_endpoints_start_at_0(metrics: Metrics, endpoint: str) -> None:
    assert value(metrics, "api_request_duration_seconds_count", account="default", endpoint=endpoint) == 0


@pytest.mark.parametrize("type_", EventType)
def test_events_start_at_0_with_every_type(metrics: Metrics, type_: EventType) -> None:
    assert value(metrics, "events_total", type=type_) == 0


@pytest.mark.parametrize("status", ["new", "running", "paused", "unrecognized", "lost", "unseen"])
def test_open_executions_start_at_0_with_everything_that_is_not_an_end(metrics: Metrics, status: str) -> None:
    assert value(metrics, "open_executions", account="default", status=status) == 0


@pytest.mark.parametrize("outcome", ["delivered", "retried", "dead", "silenced"])
def test_deliveries_start_at_0_with_every_outcome(metrics: Metrics, outcome: str) -> None:
    assert value(metrics, "deliveries_total", sink="ops", outcome=outcome) == 0


@pytest.mark.parametrize(
    "name", ["account_up", "last_successful_poll_timestamp_seconds", "poll_lateness_seconds_count"]
)
def test_the_rest_of_an_account_is_there_from_the_start(metrics: Metrics, name: str) -> None:
    assert value(metrics, name, account="default") == 0


@pytest.mark.parametrize(
    "name", ["outbox_pending", "outbox_oldest_timestamp_seconds", "sink_up", "delivery_delay_seconds_count"]
)
def test_the_rest_of_a_sink_is_there_from_the_start(metrics: Metrics, name: str) -> None:
    assert value(metrics, name, sink="ops") == 0


def test_the_build_reports_its_version(metrics: Metrics) -> None:
    assert value(metrics, "build_info", version=version("clerk-watcher")) == 1


def test_a_sink_counts_what_became_of_its_attempts(metrics: Metrics) -> None:
    sink = SinkMetrics(metrics, "ops")
    sink.delivered(0.3)
    sink.delivered(7)
    sink.delivered(1, state=DeliveryState.ACCEPTED)
    sink.retried()
    sink.retried(3)
    sink.dead()
    sink.silenced(5)
    counts = [
        value(metrics, "deliveries_total", sink="ops", outcome=outcome)
        for outcome in ("delivered", "accepted", "retried", "dead", "silenced")
    ]
    assert counts == [2, 1, 4, 1, 5]
    assert value(metrics, "delivery_delay_seconds_sum", sink="ops") == pytest.approx(8.3)
    assert value(metrics, "delivery_delay_seconds_bucket", sink="ops", le="0.5") == 1


def test_reminders_and_refreshes_are_counted(metrics: Metrics) -> None:
    sink = SinkMetrics(metrics, "ops")
    sink.reminded()
    sink.refreshed(well=True)
    sink.refreshed(well=False)
    sink.refreshed(well=False)
    assert value(metrics, "events_total", type="problem.reminder") == 1
    assert value(metrics, "alertmanager_refreshes_total", sink="ops", outcome="ok") == 1
    assert value(metrics, "alertmanager_refreshes_total", sink="ops", outcome="failed") == 2
    metrics.forget_sink("ops")
    assert value(metrics, "alertmanager_refreshes_total", sink="ops", outcome="ok") is None


def test_a_delivery_recorded_by_a_clock_that_was_ahead_took_no_time(metrics: Metrics) -> None:
    SinkMetrics(metrics, "ops").delivered(-3600)
    assert value(metrics, "delivery_delay_seconds_sum", sink="ops") == 0
    assert value(metrics, "delivery_delay_seconds_bucket", sink="ops", le="0.1") == 1


def test_a_sink_is_up_or_not(metrics: Metrics) -> None:
    sink = SinkMetrics(metrics, "ops")
    states = []
    for well in (True, False):
        sink.up(well)
        states.append(value(metrics, "sink_up", sink="ops"))
    assert states == [1, 0]


def test_an_account_counts_under_its_own_name(metrics: Metrics) -> None:
    other = AccountMetrics(metrics, "other")
    other.requests[Outcome.TIMEOUT].inc()
    other.polls[Outcome.TIMEOUT].inc()
    other.up.set(1)
    labels = {"account": "other", "outcome": "timeout"}
    assert value(metrics, "api_requests_total", endpoint="get", **labels) == 1
    assert value(metrics, "api_requests_total", endpoint="list", **labels) == 0
    assert value(metrics, "polls_total", **labels) == 1
    assert (value(metrics, "account_up", account="other"), value(metrics, "account_up", account="default")) == (1, 0)


def test_two_daemons_in_one_process_do_not_share_their_counts() -> None:
    first, second = Metrics(), Metrics()
    AccountMetrics(first, "a").polls[Outcome.OK].inc()
    AccountMetrics(second, "a")
    assert value(second, "polls_total", account="a", outcome="ok") == 0
