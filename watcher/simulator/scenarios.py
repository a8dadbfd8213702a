"""Scenarios of faults, and the functions that fill a world from a seed and write a configuration for it."""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from watcher.simulator.faults import Fault, Faults, Window
from watcher.simulator.server import SIM_KEY
from watcher.simulator.world import BRISK, REAL, Kind, SimExecution, SimPipeline, World, make_lifecycle, seeded_uuid

NAMES = ("Sales agent", "Onboarding", "Support triage", "Appointment reminder", "Payment chaser")
UNKNOWN_STATUS = "transferring"
RATE_LIMIT = "50/s"
"""The rate limit in the example configuration: the simulator itself has none."""

SEED = 7
"""The default seed. Equal seeds give equal executions and ids."""

NULLABLE_FIELDS = frozenset({"error", "triggeredBy", "triggeredByEntityId", "conversationId", "startedAt"})
OPTIONAL_FIELDS = frozenset(
    {"pipelineName", "pipelineVersionNumber", "startedAt", "finishedAt", "error", "aiTokensUsed", "nodesStarted"}
    | {"conversationHistory", "contactDetails", "environment", "triggeredBy", "triggeredByEntityId"}
    | {"conversationId", "nodesExecuted", "pipelineMessages"}
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A behaviour of the API: its faults and the share of odd executions. `words` describe the scenario in the help."""

    words: str
    faults: Faults = field(default_factory=Faults)
    odd_share: float = 0.0


CALM = Faults()
HARSH = Faults(
    odds={
        Fault.RATE_LIMITED: 0.02,
        Fault.RATE_LIMITED_SECONDS: 0.02,
        Fault.RATE_LIMITED_DATE: 0.01,
        Fault.SERVER_ERROR: 0.02,
        Fault.BAD_GATEWAY: 0.03,
        Fault.UNAVAILABLE: 0.01,
        Fault.HTML: 0.02,
        Fault.TRUNCATED: 0.02,
        Fault.WRONG_EXECUTION: 0.02,
        Fault.SLOW: 0.025,
        Fault.HANG: 0.005,
        Fault.RESET: 0.02,
        Fault.DROPPED: 0.02,
        Fault.FORBIDDEN: 0.005,
        Fault.NOT_FOUND: 0.01,
        Fault.REDIRECT: 0.005,
        Fault.OVERSIZE: 0.002,
    },
    windows=(Window(Fault.UNAUTHORIZED, 60, 75), Window(Fault.UNAVAILABLE, 150, 170)),
)
"""Faults that make about a quarter of all answers useless; for a while the key is refused, or the API unavailable."""

_FLAKY = dict.fromkeys((Fault.SERVER_ERROR, Fault.BAD_GATEWAY, Fault.RATE_LIMITED_SECONDS, Fault.RESET), 0.05) | (
    dict.fromkeys((Fault.HTML, Fault.TRUNCATED, Fault.WRONG_EXECUTION), 0.04)
)

SCENARIOS: Mapping[str, Scenario] = {
    "calm": Scenario("nothing goes wrong", CALM),
    "flaky": Scenario("a third of the answers are errors, 429, resets or rubbish", Faults(odds=_FLAKY)),
    "slow": Scenario("answers take 3 s or never come", Faults(odds={Fault.SLOW: 0.4, Fault.HANG: 0.02})),
    "outage": Scenario("no connection from second 15 to 60", Faults(windows=(Window(Fault.RESET, 15, 60),))),
    "unauthorized": Scenario(
        "the key is refused from second 15 to 45", Faults(windows=(Window(Fault.UNAUTHORIZED, 15, 45),))
    ),
    "odd": Scenario("half of the executions lack fields, have unknown statuses or vanish", CALM, odd_share=0.5),
    "harsh": Scenario("all of these by turns, redirects and huge answers", HARSH, odd_share=0.25),
}

LONG_EVERY = 30
"""In a pipeline that goes on for ever, one execution of this many takes as long as a real one: minutes or hours."""

_ENDLESS_INDEX, _PAST_INDEX = 1_000_000, 100_000_000
"""The first index of executions in pipelines that go on for ever, and of past executions.

An index decides the id of an execution, so other executions must have lower indexes.
"""

PAST_EVERY_S, PAST_FOR_S = 1800.0, 7 * 86_400.0
"""Seconds between two starts of past executions in a pipeline, and the length of the past in seconds."""

WORSE = "Appointment reminder"
WORSE_FOR_S = 12 * 3600.0
"""In the pipeline `WORSE`, a quarter of the executions of the last 12 h failed. One in fifty of all others failed."""


def populate(
    world: World,
    *,
    seed: int = SEED,
    pipelines_count: int = 5,
    executions_count: int = 8,
    fit_s: float | None = None,
    odd_share: float = 0.0,
    fails: Mapping[str, float] | None = None,
    forever: bool = False,
) -> None:
    """Fill the world with pipelines of `executions_count` executions each, which begin within 40 s.

    With `fit_s` all executions begin and end within `fit_s` seconds. A pipeline in `fails` gets an execution every 10 s
    instead, for ever: executions that begin within the seconds given there fail, later ones succeed. With `forever`
    each pipeline gets an execution every 10 s, and has executions that began in the week before the world began.
    """
    rng = Random(f"{seed}/oddities")
    for nth, name in enumerate(pipeline_names(pipelines_count)):
        pipeline = pipeline_named(name, seed=seed)
        for place in range(1, round(PAST_FOR_S / PAST_EVERY_S)) if forever else ():
            is_worse = name == WORSE and place * PAST_EVERY_S <= WORSE_FOR_S
            kind = Kind.FAILING if rng.random() < (0.25 if is_worse else 0.02) else Kind.QUICK
            lifecycle = make_lifecycle(seed, index=_PAST_INDEX * (nth + 1) + place, kind=kind)
            world.add(lifecycle, pipeline=pipeline, begins_s=-place * PAST_EVERY_S)
        fails_s = (fails or {}).get(name)
        if forever or fails_s is not None:
            _make_endless(world, pipeline=pipeline, seed=seed, nth=nth, fails_s=fails_s)
        if fails_s is not None:
            continue
        for index in range(nth * executions_count, (nth + 1) * executions_count):
            execution = _cast(world, pipeline=pipeline, seed=seed, index=index, fit_s=fit_s)
            if rng.random() < odd_share:
                world.replace(rng.choice(_ODD)(execution))


def pipeline_names(count: int) -> list[str]:
    """Return `count` different names of pipelines; after `NAMES` come the same names with a number."""
    numbered = (f"{name} {nth}" for nth in itertools.count(2) for name in NAMES)
    return [*itertools.islice(itertools.chain(NAMES, numbered), count)]


def pipeline_named(name: str, *, seed: int = 0) -> SimPipeline:
    """Return a pipeline with this name; its ids are computed from the seed and the name."""
    rng = Random(f"{seed}/{name}")
    return SimPipeline(id=seeded_uuid(rng), name=name, version_id=seeded_uuid(rng), version_number=rng.randint(1, 9))


def _cast(world: World, *, pipeline: SimPipeline, seed: int, index: int, fit_s: float | None) -> SimExecution:
    rng = Random(f"{seed}/{index}/begin")
    begins_s = max(0.0, rng.uniform(-20, 40) if fit_s is None else rng.uniform(-0.2, 0.4) * fit_s)
    lifecycle = make_lifecycle(seed, index=index, pace=REAL if fit_s is None else BRISK)
    if fit_s is not None:
        lifecycle = lifecycle.stretched(min(1.0, (fit_s - begins_s) / lifecycle.length_s()))
    return world.add(lifecycle, pipeline=pipeline, begins_s=begins_s)


def _make_endless(world: World, *, pipeline: SimPipeline, seed: int, nth: int, fails_s: float | None) -> None:
    make, first = partial(make_lifecycle, seed), _ENDLESS_INDEX * (nth + 1)
    if fails_s is None:
        world.add_endless(pipeline, lambda place: make(index=first + place, pace=BRISK if place % LONG_EVERY else REAL))
        return
    kinds, until = (Kind.QUICK, Kind.FAILING), fails_s / world.STARTS_EVERY_S
    world.add_endless(pipeline, lambda place: make(index=first + place, pace=BRISK, kind=kinds[place < until]))


def _odd(execution: SimExecution, *, last_open: Mapping[str, Any] | None = None, **changes: Any) -> SimExecution:
    """Return an execution with a changed lifecycle; `last_open` changes the phase before the end."""
    lifecycle = replace(execution.lifecycle, **changes)
    if last_open:
        *phases, before, end = lifecycle.phases
        lifecycle = replace(lifecycle, phases=(*phases, replace(before, **last_open), end))
    return replace(execution, lifecycle=lifecycle)


_ODD: Sequence[Callable[[SimExecution], SimExecution]] = (
    lambda execution: replace(execution, visible_s=execution.begins_s + 5),
    lambda execution: replace(execution, deleted_s=execution.begins_s + execution.lifecycle.length_s() / 2),
    lambda execution: _odd(execution, last_open={"status": UNKNOWN_STATUS}),
    lambda execution: _odd(execution, last_open={"ends": True}),
    lambda execution: _odd(execution, nulls=frozenset({"finishedAt"})),
    lambda execution: _odd(execution, nulls=NULLABLE_FIELDS),
    lambda execution: _odd(execution, absent=OPTIONAL_FIELDS),
)
"""Functions that make an execution odd, in ways that the documentation of the API does not exclude."""


def example_config(world: World, *, base_url: str, fails: Collection[str] = ()) -> dict[str, Any]:
    """Return a configuration that watches all pipelines; those in `fails` have a rule about failures."""
    account = {"api_key": SIM_KEY, "base_url": base_url, "rate_limit": RATE_LIMIT}
    watches: list[dict[str, object]] = []
    for pipeline in world.pipelines.values():
        watches.append({"pipeline": pipeline.id, "name": pipeline.name})
        if pipeline.name in fails:
            watches[-1]["rules"] = {"failing": {"consecutive": 3, "recover_after": 1, "quiet_for": "1s"}}
    return {"accounts": {"default": account}, "watch": watches}
