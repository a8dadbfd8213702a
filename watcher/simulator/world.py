"""The simulated world: pipelines and executions with their lifecycles, made from a seed.

Times in a lifecycle and its nodes are seconds since the lifecycle began. All other times are seconds since the world
began, on the monotonic clock.
"""

import math
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from random import Random
from uuid import UUID

from watcher.domain.execution import TERMINAL_STATUSES, Status
from watcher.runtime.clock import Clock


class Kind(StrEnum):
    """A kind of lifecycle."""

    QUICK = "quick"
    PAUSES = "pauses"
    FAILING = "failing"
    LONG = "long"


@dataclass(frozen=True, slots=True)
class StatusPhase:
    """A phase in one status. With `ends` the execution has a `finishedAt` although the status is not terminal."""

    status: str
    begins_s: float
    ends: bool = False

    @property
    def has_ended(self) -> bool:
        """Return whether the execution has a `finishedAt` in this phase."""
        return self.ends or self.status in TERMINAL_STATUSES


@dataclass(frozen=True, slots=True)
class Node:
    """A node that an execution runs.

    As in the documentation of the API, every node may name a goal, but only nodes with `is_goal` reach it.
    """

    id: str
    number: str
    name: str
    begins_s: float
    ends_s: float
    error: str | None = None
    is_goal: bool = False
    goal: str | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The lifecycle of one execution. Answers have null in the fields in `nulls`, and lack the fields in `absent`."""

    execution: str
    phases: tuple[StatusPhase, ...]
    nodes: tuple[Node, ...] = ()
    error: str | None = None
    triggered_by: str | None = "message_received"
    triggered_by_entity_id: str | None = None
    conversation_id: str | None = None
    nulls: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    def phase_at(self, t: float) -> StatusPhase:
        """Return the phase at `t` seconds; for a negative `t` return the first phase."""
        return next((phase for phase in reversed(self.phases) if phase.begins_s <= t), self.phases[0])

    def length_s(self) -> float:
        """Return the time when the last phase begins: the execution has ended then."""
        return self.phases[-1].begins_s

    def stretched(self, factor: float) -> "Lifecycle":
        """Return the lifecycle with all times multiplied by `factor`."""
        phases = tuple(replace(phase, begins_s=phase.begins_s * factor) for phase in self.phases)
        nodes = tuple(
            replace(node, begins_s=node.begins_s * factor, ends_s=node.ends_s * factor) for node in self.nodes
        )
        return replace(self, phases=phases, nodes=nodes)


_DECK = tuple(map(Kind, ("quick", "pauses", "long", "quick", "failing", "pauses", "long", "quick")))
"""The kinds of successive executions. One in eight fails, so that with any seed a small world has failures."""

_GOALS = {
    "Book appointment": "Booked appointment",
    "Collect payment": "Payment received",
    "Confirm identity": "Identity confirmed",
}
_NODES = ("Greeting", "Qualify lead", "Answer question", "Send reminder", "Wait for reply", *_GOALS)
_ERRORS = (
    "upstream timeout after 30 s",
    "the calendar answered 502",
    "the model returned no answer",
    "the contact has opted out",
    "the phone number cannot be reached",
)
_TRIGGERS = ("message_received", "api", "schedule", "contact_created")

_PAUSES = {Kind.QUICK: (0, 0), Kind.PAUSES: (1, 2), Kind.FAILING: (0, 0), Kind.LONG: (1, 3)}

SecondsRange = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pace:
    """The shortest and the longest duration of a phase in each status that is not terminal, in seconds."""

    new_s: SecondsRange
    running_s: Mapping[Kind, SecondsRange]
    paused_s: Mapping[Kind, SecondsRange]


REAL = Pace(
    new_s=(0.2, 2.0),
    running_s={Kind.QUICK: (2, 20), Kind.PAUSES: (5, 40), Kind.FAILING: (3, 60), Kind.LONG: (300, 2400)},
    paused_s={Kind.PAUSES: (20, 600), Kind.LONG: (600, 5400)},
)
"""The pace of real agents: an execution takes seconds to hours."""

BRISK = Pace(new_s=(0.5, 2.5), running_s=dict.fromkeys(Kind, (1.5, 5.0)), paused_s=dict.fromkeys(Kind, (1.5, 4.0)))
"""A fast pace for demonstrations: an execution takes about half a minute at most."""


def make_lifecycle(seed: int, *, index: int, kind: Kind | None = None, pace: Pace = REAL) -> Lifecycle:
    """Return the lifecycle that belongs to a seed and an index. Equal arguments give equal lifecycles."""
    rng = Random(f"{seed}/{index}")
    kind = kind or _DECK[index % len(_DECK)]
    execution = seeded_uuid(rng)
    phases = _phases(kind, pace=pace, rng=rng)
    nodes = _nodes(phases, fails=kind is Kind.FAILING, rng=rng)
    return Lifecycle(
        execution=execution,
        phases=phases,
        nodes=nodes,
        error=next((f"{node.name}: {node.error}" for node in nodes if node.error), None),
        triggered_by=rng.choice(_TRIGGERS),
        triggered_by_entity_id=seeded_uuid(rng),
        conversation_id=seeded_uuid(rng),
    )


def seeded_uuid(rng: Random) -> str:
    """Return the next random UUID, version 4, of a generator."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def _phases(kind: Kind, *, pace: Pace, rng: Random) -> tuple[StatusPhase, ...]:
    at_s = rng.uniform(*pace.new_s)
    phases = [StatusPhase(Status.NEW, 0.0), StatusPhase(Status.RUNNING, at_s)]
    for _ in range(rng.randint(*_PAUSES[kind])):
        at_s += rng.uniform(*pace.running_s[kind])
        phases.append(StatusPhase(Status.PAUSED, at_s))
        at_s += rng.uniform(*pace.paused_s[kind])
        phases.append(StatusPhase(Status.RUNNING, at_s))
    at_s += rng.uniform(*pace.running_s[kind])
    phases.append(StatusPhase(Status.FAILED if kind is Kind.FAILING else Status.SUCCESS, at_s))
    return tuple(phases)


def _nodes(phases: Sequence[StatusPhase], *, fails: bool, rng: Random) -> tuple[Node, ...]:
    spans: list[SecondsRange] = []
    for phase, after in pairwise(phases):
        if phase.status == Status.RUNNING:
            count = rng.randint(1, 3)
            step_s = (after.begins_s - phase.begins_s) / count
            spans += pairwise([*(phase.begins_s + step_s * nth for nth in range(count)), after.begins_s])
    nodes = [_node(number, span=span, rng=rng) for number, span in enumerate(spans, start=1)]
    if fails:
        nodes[-1] = replace(nodes[-1], error=rng.choice(_ERRORS), is_goal=False)
    return tuple(nodes)


def _node(number: int, *, span: SecondsRange, rng: Random) -> Node:
    name = rng.choice(_NODES)
    return Node(
        id=seeded_uuid(rng),
        number=str(number),
        name=name,
        begins_s=span[0],
        ends_s=span[1],
        is_goal=name in _GOALS,
        goal=_GOALS.get(name, "Booked appointment"),
        tokens=rng.randint(0, 900),
    )


@dataclass(frozen=True, slots=True)
class SimPipeline:
    """A pipeline and its running version."""

    id: str
    name: str
    version_id: str = "00000000-0000-4000-8000-000000000001"
    version_number: int = 1


@dataclass(frozen=True, slots=True)
class SimExecution:
    """An execution of a pipeline. It begins at `begins_s`; the API knows it from `visible_s` until `deleted_s`."""

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
        """Return whether the API knows the execution at `now_s`."""
        return self.visible_s <= now_s < self.deleted_s

    def phase_at(self, now_s: float) -> StatusPhase:
        """Return the phase of the execution at `now_s`."""
        return self.lifecycle.phase_at(now_s - self.begins_s)

    def started_s(self, now_s: float) -> float | None:
        """Return the time when the execution left `new`, `None` if that is later than `now_s`."""
        begun = (self.begins_s + phase.begins_s for phase in self.lifecycle.phases if phase.status != Status.NEW)
        return next((begins_s for begins_s in begun if begins_s <= now_s), None)

    def finished_s(self, now_s: float) -> float | None:
        """Return the time when the execution ended, `None` if it has not ended at `now_s`."""
        phase = self.phase_at(now_s)
        return self.begins_s + phase.begins_s if phase.has_ended else None


class World:
    """The pipelines and the executions of a simulation, on one clock."""

    STARTS_EVERY_S = 10.0
    """Seconds between two starts in a pipeline that goes on for ever."""

    def __init__(self, clock: Clock, *, newest_first: bool = True) -> None:
        self.clock = clock
        self.epoch = clock.now()
        self._newest_first = newest_first
        self._origin = clock.monotonic()
        self.pipelines: dict[str, SimPipeline] = {}
        self._ids: dict[str, list[tuple[float, str]]] = {}
        """The beginning and the id of each execution, by pipeline, in the order of the beginnings."""
        self._executions: dict[str, SimExecution] = {}
        self._endless: list[tuple[SimPipeline, Callable[[int], Lifecycle]]] = []
        self._started_count = 1
        """The number of executions that have started in each pipeline of `_endless`."""

    def now_s(self) -> float:
        """Return the seconds since the world began."""
        return self.clock.monotonic() - self._origin

    def add(self, lifecycle: Lifecycle, *, pipeline: SimPipeline, begins_s: float = 0.0) -> SimExecution:
        """Add an execution; it may begin in the past. Raises `ValueError` if the world has an execution of that id."""
        if lifecycle.execution in self._executions:
            raise ValueError(f"execution {lifecycle.execution} exists already")
        execution = SimExecution(pipeline, lifecycle, begins_s, visible_s=begins_s)
        self._executions[execution.id] = execution
        self.pipelines[pipeline.id] = pipeline
        insort(self._ids.setdefault(pipeline.id, []), (begins_s, execution.id))
        return execution

    def add_endless(self, pipeline: SimPipeline, make: Callable[[int], Lifecycle]) -> None:
        """Add a pipeline that goes on for ever, to a new world. `make` returns the lifecycle of the nth, from 0."""
        self.add(make(0), pipeline=pipeline)
        self._endless.append((pipeline, make))

    def _catch_up(self) -> float:
        """Add the executions that have begun by now in pipelines that go on for ever. Return the present time."""
        now_s = self.now_s()
        while (begins_s := self._started_count * self.STARTS_EVERY_S) <= now_s:
            for pipeline, make in self._endless:
                self.add(make(self._started_count), pipeline=pipeline, begins_s=begins_s)
            self._started_count += 1
        return now_s

    def replace(self, execution: SimExecution) -> None:
        """Replace the execution with the same id, which no answer may have shown yet."""
        self._executions[execution.id] = execution

    def find(self, execution: str, *, pipeline: str | None = None) -> SimExecution | None:
        """Return an execution, visible or not; `None` if it does not exist in the pipeline."""
        found = self._executions.get(execution)
        return found if found and pipeline in {None, found.pipeline.id} else None

    def list_executions(self, pipeline: str) -> list[SimExecution]:
        """Return the executions of a pipeline that the API knows now, in the order of its lists."""
        now_s = self._catch_up()
        ids = self._ids[pipeline]
        ordered = reversed(ids) if self._newest_first else ids
        executions = (self._executions[execution] for _, execution in ordered)
        return [execution for execution in executions if execution.is_visible(now_s)]

    def executions(self) -> Iterator[SimExecution]:
        """Return all executions, also those that begin later, but for pipelines that go on for ever."""
        self._catch_up()
        return iter(self._executions.values())
