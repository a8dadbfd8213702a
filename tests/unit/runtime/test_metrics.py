"""Every metric has the name and the labels of the contract, and what is known starts at 0."""

import re
from collections.abc import Sequence
from importlib.metadata import version

import pytest
from prometheus_client import CollectorRegistry, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector
from sample_metrics import busy_pipeline, families_of, sample_value

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventType
from watcher.domain.execution import Outcome
from watcher.runtime.metrics import SLICE_COUNT, AccountMetrics, FastHistogram, Metrics, PipelineMetrics, SinkMetrics

OUTCOMES = [
    *("ok", "not_found", "unauthorized", "forbidden", "rate_limited", "rejected", "server_error", "timeout"),
    *("connection", "redirect", "invalid"),
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
    "deliveries_batched": ("histogram", {"sink"}),
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
    **dict.fromkeys(("max_fds", "open_fds", "resident_memory_bytes"), ("gauge", set())),
    **dict.fromkeys(("start_time_seconds", "virtual_memory_bytes"), ("gauge", set())),
}


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    AccountMetrics(metrics, "default").pipelines["0b5c"] = busy_pipeline()
    SinkMetrics(metrics, "ops")
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return sample_value(metrics, f"watcher_{name}", **labels)


def shown(metrics: Metrics) -> dict[str, tuple[str, set[str]]]:
    """What Prometheus reads: names, types, labels."""
    families = {}
    for family in families_of(metrics):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        families[name] = (family.type, labels)
    return families


def test_the_text_of_pipelines_is_as_the_library_would_write_it(metrics: Metrics) -> None:
    names = ("", "Ünï\U0001f600", 'a "quoted" \\n one\\', "idle")
    for number, name in enumerate(names):
        metrics.pipelines["default"][f"77aa-{number}"] = each = busy_pipeline()
        each.name, each.tokens_count, each.goals[name] = name, 12_345_678, 1
        each.durations_s["success"] = 0.1 * number  # type: ignore[assignment]
    metrics.pipelines["default"]["idle"] = PipelineMetrics("idle")

    class Read(Collector):
        def collect(self) -> Sequence[Metric]:
            return families_of(metrics)

    ours, librarys = (
        [  # the library sorts labels
            (re.sub(r"\{.*\}", "", line), set(re.findall(r'\w+="(?:[^"\\]|\\.)*"', line)))
            for line in text[text.index(b"# HELP watcher_pipeline_info") :].decode().splitlines()
        ]
        for text in (b"".join(metrics.text()), generate_latest(Read()))
    )
    assert ours == librarys
    assert sample_value(metrics, "watcher_pipeline_info", account="default", pipeline="77aa-2", name=names[2]) == 1


def test_a_status_without_ends_has_no_buckets_and_no_piece_many_pipelines(metrics: Metrics) -> None:
    samples = [each for family in families_of(metrics) for each in family.samples]
    shown = [each for each in samples if each.name.startswith("watcher_execution_duration_seconds")]
    success = [(each.name.rpartition("_")[2], each.value) for each in shown if each.labels["status"] == "success"]
    assert success == [("bucket", 0), *[("bucket", 1)] * 12, ("count", 1), ("sum", 2)]
    others = {(each.labels["status"], each.name.rpartition("_")[2], each.value) for each in shown}
    assert {each for each in others if each[0] != "success"} == {
        (status, name, 0) for status in ("failed", "unrecognized") for name in ("count", "sum")
    }
    metrics.pipelines["default"] = {f"77aa-{number}": busy_pipeline() for number in range(4 * SLICE_COUNT)}
    assert max(piece.count(b"\n") for piece in metrics.text()) <= SLICE_COUNT * 3 * 15


def test_names_labels_helps_and_outcomes_are_those_of_the_contract(metrics: Metrics) -> None:
    ours = {f"watcher_{name}": rest for name, rest in CONTRACT.items()}
    all_ = ours | {f"process_{name}": rest for name, rest in PROCESS.items()}
    assert shown(metrics) == all_, "a row of CONTRACT; of a pipeline also let it happen in tests/sample_metrics.py"
    helps = [family.documentation for family in families_of(metrics) if family.name.startswith("watcher_")]
    assert [each for each in helps if len(each.split()) < 5 or not each.endswith(".")] == []
    assert list(Outcome) == OUTCOMES


@pytest.mark.ci
def test_what_is_known_starts_at_0(metrics: Metrics) -> None:
    account, sink = {"account": "default"}, {"sink": "ops"}
    open_ = ("new", "running", "paused", "unrecognized", "lost", "unseen")
    known: list[tuple[str, dict[str, str]]] = [
        *(
            ("api_requests_total", account | {"endpoint": at, "outcome": each})
            for at in ("get", "list")
            for each in OUTCOMES
        ),
        *(("api_request_duration_seconds_count", account | {"endpoint": each}) for each in ("get", "list")),
        *(("polls_total", account | {"outcome": each}) for each in (*OUTCOMES, "contradicted")),
        *(("open_executions", account | {"status": each}) for each in open_),
        *((name, account) for name in ("account_up", "last_successful_poll_timestamp_seconds")),
        ("poll_lateness_seconds_count", account),
        *(("events_total", {"type": str(each)}) for each in EventType),
        *(("deliveries_total", sink | {"outcome": each}) for each in ("delivered", "retried", "dead", "silenced")),
        *((name, sink) for name in ("outbox_pending", "outbox_oldest_timestamp_seconds", "sink_up")),
        ("delivery_delay_seconds_count", sink),
        ("deliveries_batched_count", sink),
    ]
    assert [(name, labels) for name, labels in known if value(metrics, name, **labels) != 0] == []
    assert value(metrics, "build_info", version=version("clerk-watcher")) == 1


def test_a_sink_counts_what_became_of_its_attempts_and_refreshes(metrics: Metrics) -> None:
    sink = SinkMetrics(metrics, "ops")
    sink.count_delivery(0.3)
    sink.count_delivery(7)
    sink.count_delivery(1, state=DeliveryState.ACCEPTED)
    sink.count_delivery(-3600)  # it was recorded by a clock that was ahead
    sink.outcomes["retried"].inc()
    sink.outcomes["retried"].inc(3)
    sink.outcomes["dead"].inc()
    sink.outcomes["silenced"].inc(5)
    counts = [
        value(metrics, "deliveries_total", sink="ops", outcome=outcome)
        for outcome in ("delivered", "accepted", "retried", "dead", "silenced")
    ]
    assert counts == [3, 1, 4, 1, 5]
    assert value(metrics, "delivery_delay_seconds_sum", sink="ops") == pytest.approx(8.3)
    assert value(metrics, "delivery_delay_seconds_bucket", sink="ops", le="0.5") == 2
    sink = SinkMetrics(metrics, "ops")
    sink.count_refresh(well=True)
    sink.count_refresh(well=False)
    sink.count_refresh(well=False)
    assert value(metrics, "alertmanager_refreshes_total", sink="ops", outcome="ok") == 1
    assert value(metrics, "alertmanager_refreshes_total", sink="ops", outcome="failed") == 2
    metrics.forget("sink", "ops")
    assert value(metrics, "alertmanager_refreshes_total", sink="ops", outcome="ok") is None


@pytest.mark.parametrize("values", [(), (0.0, 0.005, 0.006), (0.5, 0.1, 3600, 3600.5, 1e9), (0.005, 0.5, 1, 60, 3600)])
def test_a_histogram_without_locks_shows_what_the_librarys_own_would(values: tuple[float, ...]) -> None:
    shown = []
    for kind in (Histogram, FastHistogram):
        registry = CollectorRegistry()
        one = kind("lateness_seconds", "Late.", ("account",), buckets=(0.005, 0.5, 1, 60, 3600), registry=registry)
        for value in values:
            one.labels("a").observe(value)
        shown.append([line for line in generate_latest(registry).decode().splitlines() if "_created" not in line])
    assert shown[0] == shown[1]
