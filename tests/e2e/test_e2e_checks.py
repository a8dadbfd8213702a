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


def written(simulator: Simulator, *events: dict[str, Any]) -> list[bytes]:
    copies = [json.loads(json.dumps(event)) for event in events]
    for event in copies:
        if observed := event.get("data", {}).get("observed"):
            for key, moment_s in observed.items():
                observed[key] = (simulator.world.epoch + timedelta(seconds=moment_s)).isoformat()
    return [json.dumps(event).encode() for event in copies]


@pytest.fixture
def simulator() -> Simulator:
    """Return one in whose world one execution was new, ran from -20 s and succeeded at -10 s."""
    world = World(Clock())
    phases = (StatusPhase("new", 0.0), StatusPhase("running", 10.0), StatusPhase("success", 20.0))
    world.add(Lifecycle(execution=EXECUTION, phases=phases), pipeline=pipeline_named("p"), begins_s=-30.0)
    return Simulator(world)


def ask(simulator: Simulator, code: int, answered: str | None = None) -> None:
    at = simulator.world.clock.monotonic()
    simulator.request_log.open(LoggedRequest(at, 0, "get", execution=EXECUTION, code=code, answered=answered))


NEW = emitted(1, "new", at_s=-25)
RUNNING = emitted(2, "running", previous="new", at_s=-19, not_before_s=-21)
SUCCESS = emitted(3, "success", previous="running", at_s=-9, not_before_s=-11)


def test_what_is_true_and_whole_finds_no_complaint(simulator: Simulator) -> None:
    bodies = written(simulator, NEW, RUNNING, SUCCESS)
    assert checks.of_all(simulator, [*bodies, *bodies]) == []


@pytest.mark.parametrize(
    "told", [(NEW, SUCCESS), (NEW, NEW | {"time": "later"}), (NEW, NEW | {"id": "other"})], ids=["hole", "bytes", "id"]
)
def test_a_hole_other_bytes_and_a_second_id_are_found(simulator: Simulator, told: tuple[dict[str, Any], ...]) -> None:
    assert checks.of_sequences(written(simulator, *told))


@pytest.mark.parametrize(
    "lies",
    [
        [emitted(1, "failed", at_s=-9)],
        [emitted(1, "success", at_s=-15)],
        [emitted(1, "running", at_s=-5, not_before_s=-9)],
        [emitted(1, "new", at_s=-25, previous="running")],
        [emitted(1, "lost", at_s=-25)],
        [NEW | {"subject": "stranger"}],
        [emitted(1, "success"), emitted(2, "success", previous="success")],  # a second end
    ],
)
def test_what_was_not_so_is_found(simulator: Simulator, lies: list[dict[str, Any]]) -> None:
    assert checks.of_truth(written(simulator, *lies), simulator)


def test_a_loss_is_excused_by_refusals_in_a_row(simulator: Simulator) -> None:
    lost = written(simulator, emitted(1, "lost", at_s=simulator.world.now_s() + 1))
    for _ in range(3):
        ask(simulator, 404)
    assert checks.of_truth(lost, simulator) == []
    ask(simulator, 200, "new")
    assert checks.of_truth(lost, simulator)


def test_a_missing_end_and_a_missing_status_are_found(simulator: Simulator) -> None:
    ask(simulator, 200, "new")
    assert checks.of_completeness(written(simulator, NEW), simulator)
    assert checks.of_completeness([], simulator)
    assert checks.of_everything_answered([], simulator)
    assert checks.of_everything_answered(written(simulator, NEW), simulator) == []


def test_overtaking_and_going_back_are_found() -> None:
    taken = [attempt(NEW, Answer.TAKE), attempt(RUNNING, Answer.TAKE)]
    assert checks.of_order(taken) == []
    assert checks.of_order([attempt(NEW, Answer.TAKE_AND_CUT), attempt(RUNNING, Answer.TAKE)])
    assert checks.of_order([*taken, attempt(NEW, Answer.TAKE)])


def attempt(event: dict[str, Any], answer: Answer) -> Attempt:
    return Attempt(0.0, b"", {}, answer, [event])


@pytest.mark.parametrize(("types", "well"), [("dr", True), ("drdr", False), ("dd", False), ("d", False), ("rd", False)])
def test_alarms_that_do_not_alternate_or_are_too_many_are_found(
    simulator: Simulator, types: str, *, well: bool
) -> None:
    words = {"d": "degraded", "r": "recovered"}
    bodies = written(simulator, *(account(number, words[letter]) for number, letter in enumerate(types, start=1)))
    assert (checks.of_alternation(bodies, troubles_count=1) == []) is well
