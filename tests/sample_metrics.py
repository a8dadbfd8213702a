"""Numbers of a pipeline in which everything has happened that a metric tells of."""

from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import Micros
from watcher.runtime.metrics import STARTED, PipelineMetrics


def busy_pipeline() -> PipelineMetrics:
    """Return one in which everything has happened that a metric says."""
    known = ExecutionRecord("9a1b", "0b5c", "success", end_seen_at=Micros(1))
    last_at = {STARTED: Micros(1), "success": Micros(1)}
    pipeline = PipelineMetrics("Sales agent", oldest={"running": Micros(1)}, last_at=last_at)
    pipeline.count(known, ExecutionSnapshot("9a1b", "success", goals=("Booked",)), starts=True)
    return pipeline
