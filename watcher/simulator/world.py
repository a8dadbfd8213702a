"""The world that is asked about: pipelines, executions, what is true of them now and what was. Knows no HTTP.

Its times are seconds since it began, on the monotonic clock it is given.
"""

import math
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from watcher.domain.execution import Status
from watcher.runtime.clock import Clock
from watcher.simulator.lifecycles import Lifecycle, StatusPhase, has_ended


class Order(StrEnum):
    """Which end of the list comes first: the documentation does not say."""

    NEWEST = "newest"
    OLDEST = "oldest"


@dataclass(frozen=True, slots=True)
class SimPipeline:
    """A pipeline with the version that runs."""

    id: str
    name: str
    version_id: str = "00000000-0000-4000-8000-000000000001"
    version_number: int = 1


@dataclass(frozen=True, slots=True)
class SimExecution:
    """A lifecycle that takes place in a pipeline. The API shows it from `visible_s` until `deleted_s`."""

    pipeline: SimPipeline
    lifecycle: Lifecycle
    begins_s: float = 0.0
    visible_s: float = 0.0
    deleted_s: float = math.inf

    @property
    def id(self) -> str:
        """Return the execution's id."""
        return self.lifecycle.execution

    def is_visible(self, now_s: float) -> bool:
        """Say whether the API knows it."""
        return self.visible_s <= now_s < self.deleted_s

    def phase_at(self, now_s: float) -> StatusPhase:
        """Return where it stands."""
        return self.lifecycle.phase_at(now_s - self.begins_s)

    def started_s(self, now_s: float) -> float | None:
        """Return when it left `new`, if it has."""
        begun = (self.begins_s + phase.begins_s for phase in self.lifecycle.phases if phase.status != Status.NEW)
        return next((begins_s for begins_s in begun if begins_s <= now_s), None)

    def finished_s(self, now_s: float) -> float | None:
        """Return when it ended, if it has."""
        phase = self.phase_at(now_s)
        return self.begins_s + phase.begins_s if has_ended(phase) else None


class World:
    """All pipelines and executions."""

    def __init__(self, clock: Clock, *, order: Order = Order.NEWEST) -> None:
        """Begin now."""
        self.clock = clock
        self.epoch = clock.now()
        self.order = order
        self._origin = clock.monotonic()
        self.pipelines: dict[str, SimPipeline] = {}
        self._ids: dict[str, list[tuple[float, str]]] = {}
        """Those of a pipeline's executions, in the order they begin."""
        self._executions: dict[str, SimExecution] = {}

    def now_s(self) -> float:
        """Return seconds since the world began."""
        return self.clock.monotonic() - self._origin

    def add(self, lifecycle: Lifecycle, *, pipeline: SimPipeline, begins_s: float = 0.0) -> SimExecution:
        """Let a lifecycle take place; one that begins in the past is under way. Raises `ValueError` on an id in use."""
        if lifecycle.execution in self._executions:
            raise ValueError(f"execution {lifecycle.execution} exists already")
        execution = SimExecution(pipeline, lifecycle, begins_s, visible_s=begins_s)
        self._executions[execution.id] = execution
        self.pipelines[pipeline.id] = pipeline
        insort(self._ids.setdefault(pipeline.id, []), (begins_s, execution.id))
        return execution

    def replace(self, execution: SimExecution) -> None:
        """Let an execution have another life than was planned, of which nothing was answered yet."""
        self._executions[execution.id] = execution

    def find(self, execution: str, *, pipeline: str | None = None) -> SimExecution | None:
        """Return an execution of that pipeline, whether the API shows it or not."""
        found = self._executions.get(execution)
        return found if found and pipeline in {None, found.pipeline.id} else None

    def listed(self, pipeline: str) -> list[SimExecution]:
        """Return what the API shows of a pipeline now, in the order of its lists."""
        now_s = self.now_s()
        ids = self._ids[pipeline]
        ordered = reversed(ids) if self.order is Order.NEWEST else iter(ids)
        executions = (self._executions[execution] for _, execution in ordered)
        return [execution for execution in executions if execution.is_visible(now_s)]

    def executions(self) -> Iterator[SimExecution]:
        """Go through all executions: past, present and to come."""
        return iter(self._executions.values())
