"""Named scenarios, and how a world is filled with people's agents and their executions from a seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random

from watcher.clerk.simulator.faults import Fault, Faults, Window
from watcher.clerk.simulator.lifecycles import BRISK, REAL, StatusPhase, make_lifecycle, seeded_uuid
from watcher.clerk.simulator.world import SimExecution, SimPipeline, World

NAMES = ("Sales agent", "Onboarding", "Support triage", "Appointment reminder", "Payment chaser")
UNKNOWN_STATUS = "transferring"
NULLABLE_FIELDS = frozenset({"error", "triggeredBy", "triggeredByEntityId", "conversationId", "startedAt"})
OPTIONAL_FIELDS = frozenset(
    {"pipelineName", "pipelineVersionNumber", "startedAt", "finishedAt", "error", "aiTokensUsed", "nodesStarted"}
    | {"conversationHistory", "contactDetails", "environment", "triggeredBy", "triggeredByEntityId"}
    | {"conversationId", "nodesExecuted", "pipelineMessages"}
)


class Anomaly(StrEnum):
    """Something the documentation does not promise and that happens to an execution."""

    LATE = "late"
    """It is not shown at once."""
    DELETED = "deleted"
    """It is forgotten half-way."""
    UNRECOGNIZED = "unrecognized"
    """Its last open status is a word of tomorrow."""
    ENDS_OPEN = "ends_open"
    """Its last open status comes with a `finishedAt`."""
    UNFINISHED = "unfinished"
    """It never has a `finishedAt`."""
    NULLS = "nulls"
    BARE = "bare"
    """It has the required fields only."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How the API behaves, and which share of the executions is odd."""

    faults: Faults = field(default_factory=Faults)
    odd_share: float = 0.0


CALM = Faults()
HARSH = Faults(
    odds={
        Fault.RATE_LIMITED: 0.02,
        Fault.RATE_LIMITED_SECONDS: 0.02,
        Fault.RATE_LIMITED_DATE: 0.01,
        Fault.SERVER_ERROR: 0.02,
        Fault.BAD_GATEWAY: 0.02,
        Fault.UNAVAILABLE: 0.01,
        Fault.GATEWAY_TIMEOUT: 0.01,
        Fault.HTML: 0.02,
        Fault.TRUNCATED: 0.02,
        Fault.WRONG_EXECUTION: 0.02,
        Fault.SLOW: 0.02,
        Fault.DRIP: 0.005,
        Fault.HANG: 0.005,
        Fault.RESET: 0.02,
        Fault.DROPPED: 0.02,
        Fault.FORBIDDEN: 0.005,
        Fault.NOT_FOUND: 0.01,
        Fault.REDIRECT: 0.005,
        Fault.OVERSIZE: 0.001,
        Fault.BOMB: 0.001,
    },
    windows=(Window(Fault.UNAUTHORIZED, 60, 75), Window(Fault.UNAVAILABLE, 150, 170)),
)
"""About a quarter of all answers is useless, and the key is refused for a while."""

SCENARIOS: Mapping[str, Scenario] = {
    "calm": Scenario(CALM),
    "harsh": Scenario(HARSH, odd_share=0.25),
    "odd": Scenario(CALM, odd_share=0.5),
    "flaky": Scenario(Faults(odds={Fault.SERVER_ERROR: 0.1, Fault.BAD_GATEWAY: 0.1, Fault.RESET: 0.1})),
    "limited": Scenario(Faults(odds={Fault.RATE_LIMITED: 0.05, Fault.RATE_LIMITED_SECONDS: 0.05})),
    "garbled": Scenario(Faults(odds={Fault.HTML: 0.1, Fault.TRUNCATED: 0.1, Fault.WRONG_EXECUTION: 0.1})),
    "slow": Scenario(Faults(odds={Fault.SLOW: 0.3, Fault.DRIP: 0.1, Fault.HANG: 0.02})),
    "outage": Scenario(Faults(windows=(Window(Fault.RESET, 15, 60),))),
    "unauthorized": Scenario(Faults(windows=(Window(Fault.UNAUTHORIZED, 15, 45),))),
}


def populate(
    world: World,
    *,
    seed: int,
    pipelines_count: int,
    executions_count: int,
    fit_s: float | None = None,
    odd_share: float = 0.0,
) -> None:
    """Fill the world with pipelines of `executions_count` executions each; all begin within 40 s.

    With `fit_s` they begin and end within that many seconds of the world, at the world's normal speed.
    """
    rng = Random(f"{seed}/oddities")
    for nth in range(pipelines_count):
        pipeline = pipeline_named(_name(nth), seed=seed)
        for index in range(nth * executions_count, (nth + 1) * executions_count):
            execution = _cast(world, pipeline=pipeline, seed=seed, index=index, fit_s=fit_s)
            if rng.random() < odd_share:
                world.replace(_ODD[rng.choice(list(Anomaly))](execution))


def pipeline_named(name: str, *, seed: int = 0) -> SimPipeline:
    """Return a pipeline whose ids follow from the seed and its name."""
    rng = Random(f"{seed}/{name}")
    return SimPipeline(id=seeded_uuid(rng), name=name, version_id=seeded_uuid(rng), version_number=rng.randint(1, 9))


def _name(nth: int) -> str:
    repetition, place = divmod(nth, len(NAMES))
    return f"{NAMES[place]} {repetition + 1}" if repetition else NAMES[place]


def _cast(world: World, *, pipeline: SimPipeline, seed: int, index: int, fit_s: float | None) -> SimExecution:
    rng = Random(f"{seed}/{index}/begin")
    begins_s = max(0.0, rng.uniform(-20, 40) if fit_s is None else rng.uniform(-0.2, 0.4) * fit_s)
    lifecycle = make_lifecycle(seed, index=index, pace=REAL if fit_s is None else BRISK)
    if fit_s is not None:
        lifecycle = lifecycle.stretched(min(1.0, (fit_s - begins_s) / lifecycle.length_s()))
    return world.add(lifecycle, pipeline=pipeline, begins_s=begins_s)


def _with_last_open(execution: SimExecution, *, status: str | None = None, ends: bool = False) -> SimExecution:
    *phases, last_open, end = execution.lifecycle.phases
    odd = StatusPhase(status or last_open.status, last_open.begins_s, ends=ends)
    return replace(execution, lifecycle=replace(execution.lifecycle, phases=(*phases, odd, end)))


def _without(
    execution: SimExecution, *, nulls: frozenset[str] = frozenset(), absent: frozenset[str] = frozenset()
) -> SimExecution:
    return replace(execution, lifecycle=replace(execution.lifecycle, nulls=nulls, absent=absent))


_ODD: Mapping[Anomaly, Callable[[SimExecution], SimExecution]] = {
    Anomaly.LATE: lambda execution: replace(execution, visible_s=execution.begins_s + 5),
    Anomaly.DELETED: lambda execution: replace(
        execution, deleted_s=execution.begins_s + execution.lifecycle.length_s() / 2
    ),
    Anomaly.UNRECOGNIZED: lambda execution: _with_last_open(execution, status=UNKNOWN_STATUS),
    Anomaly.ENDS_OPEN: lambda execution: _with_last_open(execution, ends=True),
    Anomaly.UNFINISHED: lambda execution: _without(execution, nulls=frozenset({"finishedAt"})),
    Anomaly.NULLS: lambda execution: _without(execution, nulls=NULLABLE_FIELDS),
    Anomaly.BARE: lambda execution: _without(execution, absent=OPTIONAL_FIELDS),
}
