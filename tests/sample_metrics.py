"""Numbers of a pipeline in which everything has happened that a metric tells of, and what Prometheus reads."""

from collections.abc import Sequence
from datetime import timedelta

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from virtual import EPOCH

from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import Micros
from watcher.runtime.metrics import STARTED, Metrics, PipelineMetrics


def busy_pipeline() -> PipelineMetrics:
    """Return one in which everything has happened that a metric says."""
    known = ExecutionRecord("9a1b", "0b5c", "success", end_seen_at=Micros(1))
    last_at = {STARTED: Micros(1), "success": Micros(1)}
    pipeline = PipelineMetrics("Sales agent", oldest={"running": Micros(1)}, last_at=last_at)
    facts = ExecutionSnapshot(
        "9a1b", "success", goals=("Booked",), started_at=EPOCH, finished_at=EPOCH + timedelta(seconds=2)
    )
    pipeline.count(known, facts, starts=True)
    return pipeline


def families_of(metrics: Metrics) -> Sequence[Metric]:
    """Return all metrics as Prometheus reads them from the text."""
    return list(text_string_to_metric_families(b"".join(metrics.text()).decode()))


def sample_value(metrics: Metrics, name: str, /, **labels: str) -> float | None:
    """Return the value of one sample, as Prometheus reads it from the text."""
    samples = (sample for family in families_of(metrics) for sample in family.samples)
    return next((each.value for each in samples if each.name == name and each.labels == labels), None)
