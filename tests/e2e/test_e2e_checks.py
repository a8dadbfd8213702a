"""The checks itself: it complains of each thing it is there to find, and of nothing else."""

import json
from datetime import timedelta
from typing import Any

import pytest
from e2e import checks
from e2e.endpoint import Answer, Attempt

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.server import LoggedRequest, Simulator
from watcher.simulator.world import Lifecycle, StatusPhase, World

EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
SOURCE = "/accounts/default/pipelines/p"


def emitted(
    sequence: int, status: str, *, previous: str | None = None, at_s: float = 0.0, not_before_s: float | None = None
) -> dict[str, Any]:
    """Return an event seen `at_s` seconds after the world of these tests is old enough."""
    execution = {"id": EXECUTION, "status": status} | ({"previousStatus": previous} if previous else {})
    observed = {"at": at_s} | ({} if not_before_s is None else {"notBefore": not_before_s})
    return {
        "id": f"{sequence}-{status}",
        "type": f"execution.{status}",
        "source": SOURCE,
        "subject": EXECUTION,
        "sequence": f"{sequence:010d}",
        "data": {"execution": execution, "observed": observed},
    }


def account(sequence: int, what: str) -> dict[str, Any]:
    return {"id": str(sequence), "type": f"account.{what}", "source": "/accounts/a", "sequence": f"{sequence:010d}"}


def written(world: World, *events: dict[str, Any]) -> list[bytes]:
    for event in events:
        if observed := event.get("data", {}).get("observed"):
            observed.update({key: _date(world, moment_s=moment_s) for key, moment_s in observed.items()})
    return [json.dumps(event).encode() for event in events]


def _date(world: World, *, moment_s: float) -> str:
    return (world.epoch + timedelta(seconds=moment_s)).isoformat()


@pytest.fixture
def world() -> World:
    """Return a world in which one execution was new, ran from -20 s and succeeded at -10 s."""
    world = World(Clock())
    phases = (StatusPhase("new", 0.0), StatusPhase("running", 10.0), StatusPhase("success", 20.0))
    world.add(Lifecycle(execution=EXECUTION, phases=phases), pipeline=pipeline_named("p"), begins_s=-30.0)
    return world


@pytest.fixture
def simulator(world: World) -> Simulator:
    return Simulator(world)


NEW = emitted(1, "new", at_s=-25)
RUNNING = emitted(2, "running", previous="new", at_s=-19, not_before_s=-21)
SUCCESS = emitted(3, "success", previous="running", at_s=-9, not_before_s=-11)


def test_what_is_true_and_whole_finds_no_complaint(world: World, simulator: Simulator) -> None:
    bodies = written(world, *map(_copy, (NEW, RUNNING, SUCCESS)))
    assert checks.of_sequences([*bodies, *bodies]) == []
    assert checks.of_truth(bodies, simulator) == []
    assert checks.of_completeness(bodies, simulator) == []


def test_a_hole_other_bytes_and_a_second_id_are_found(world: World) -> None:
    assert checks.of_sequences(written(world, _copy(NEW), _copy(SUCCESS)))
    assert checks.of_sequences(written(world, _copy(NEW), _copy(NEW) | {"time": "later"}))
    assert checks.of_sequences(written(world, _copy(NEW), _copy(NEW) | {"id": "other"}))


@pytest.mark.parametrize(
    "lie",
    [
        emitted(1, "failed", at_s=-9),
        emitted(1, "success", at_s=-15),
        emitted(1, "running", at_s=-5, not_before_s=-9),
        emitted(1, "new", at_s=-25, previous="running"),
        emitted(1, "lost", at_s=-25),
    ],
)
def test_what_was_not_so_is_found(world: World, simulator: Simulator, lie: dict[str, Any]) -> None:
    assert checks.of_truth(written(world, _copy(lie)), simulator)


def test_an_execution_that_does_not_exist_and_a_second_end_are_found(world: World, simulator: Simulator) -> None:
    assert checks.of_truth(written(world, _copy(NEW) | {"subject": "stranger"}), simulator)
    assert checks.of_truth(written(world, emitted(1, "success"), emitted(2, "success", previous="success")), simulator)


def test_a_loss_is_excused_by_refusals_in_a_row(world: World, simulator: Simulator) -> None:
    lost = written(world, emitted(1, "lost", at_s=world.now_s() + 1))
    for _ in range(3):
        simulator.request_log.open(LoggedRequest(world.clock.monotonic(), 0, "get", execution=EXECUTION, code=404))
    assert checks.of_truth(lost, simulator) == []
    simulator.request_log.open(
        LoggedRequest(world.clock.monotonic(), 0, "get", execution=EXECUTION, code=200, answered="new")
    )
    assert checks.of_truth(lost, simulator)


def test_a_missing_end_and_a_missing_status_are_found(world: World, simulator: Simulator) -> None:
    simulator.request_log.open(
        LoggedRequest(world.clock.monotonic(), 0, "get", execution=EXECUTION, code=200, answered="new")
    )
    assert checks.of_completeness(written(world, _copy(NEW)), simulator)
    assert checks.of_completeness([], simulator)
    assert checks.of_everything_answered([], simulator)
    assert checks.of_everything_answered(written(world, _copy(NEW)), simulator) == []


def test_overtaking_and_going_back_are_found() -> None:
    taken = [_attempt(NEW, Answer.TAKE), _attempt(RUNNING, Answer.TAKE)]
    assert checks.of_order(taken) == []
    assert checks.of_order([_attempt(NEW, Answer.TAKE_AND_CUT), _attempt(RUNNING, Answer.TAKE)])
    assert checks.of_order([*taken, _attempt(NEW, Answer.TAKE)])


@pytest.mark.parametrize(("types", "well"), [("dr", True), ("drdr", False), ("dd", False), ("d", False), ("rd", False)])
def test_alarms_that_do_not_alternate_or_are_too_many_are_found(world: World, types: str, *, well: bool) -> None:
    words = {"d": "degraded", "r": "recovered"}
    bodies = written(world, *(account(number, words[letter]) for number, letter in enumerate(types, start=1)))
    assert (checks.of_alternation(bodies, troubles_count=1) == []) is well


def _attempt(event: dict[str, Any], answer: Answer) -> Attempt:
    return Attempt(0.0, b"", {}, answer, [event])


def _copy(event: dict[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(event))
    return copy
