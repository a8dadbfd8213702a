"""The checks themselves: they complain of each thing they are there to find, and of nothing else."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from e2e import checks
from e2e.chaos import Loss, Spell
from e2e.endpoint import Answer, Attempt
from e2e.handovers import delays, nobody_able, overlapping

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.server import LoggedRequest, RequestLog, Simulator
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


# Who asked although another replica had the account, and who waited

PLACES = 3
KILLED = Loss(2.5, place=0, accounts=frozenset({0}), is_stop=False)


def log_of(*asked: tuple[float, int], answered: str | None = "running", account: int = 0) -> RequestLog:
    """Return a log in which replicas, by their places, asked for an account at these moments."""
    log = RequestLog()
    for at, place in asked:
        entry = LoggedRequest(at, account * PLACES + place, "get", execution="e", code=200, answered=answered)
        log.open(entry)
    return log


def waited(log: RequestLog, *losses: Loss, outages: Sequence[tuple[float, float]] = ()) -> list[float]:
    found = delays(log, losses, places_count=PLACES, outages=outages, until=100.0)
    return [seconds for seconds, *_ in found]


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ([(1, 0), (2, 0), (12, 1), (13, 1)], 0),
        ([(1, 0), (2, 0), (12, 1), (12.4, 0), (13, 1)], 1),
        ([(1, 0), (12, 1), (12.4, 0), (13, 1), (13.4, 0), (14, 1)], 3),
        ([(1, 0), (12, 1), (24, 0), (36, 1)], 0),
    ],
)
def test_who_asks_between_two_requests_of_another_overlaps(asked: list[tuple[float, int]], count: int) -> None:
    assert len(overlapping(log_of(*asked), places_count=PLACES)) == count


def test_an_account_waits_from_the_loss_of_its_replica_to_the_next_request() -> None:
    assert waited(log_of((1, 0), (2, 0), (12.5, 1)), KILLED) == [10.0]


def test_what_a_stopped_replica_asks_when_it_goes_on_does_not_end_the_waiting() -> None:
    stopped = Loss(2.5, place=0, accounts=frozenset({0}), is_stop=True)
    assert waited(log_of((1, 0), (2, 0), (15, 0), (17.5, 1)), stopped) == [15.0]
    assert waited(log_of((1, 0), (2, 0), (15, 0), (15.5, 0)), stopped) == [13.0]


def test_nobody_is_able_while_no_replica_runs_that_has_started_or_without_the_database() -> None:
    spells = [Spell(0, 2.0, to=5.0), Spell(1, 4.0, to=6.0), Spell(0, 9.0)]
    found = nobody_able(spells, [(3.0, 4.5), (5.5, 7.0)], since=1.0, until=10.0)
    assert found == [(1.0, 2.0), (3.0, 4.0), (4.0, 4.5), (5.5, 6.0), (6.0, 7.0), (7.0, 9.0)]
    assert nobody_able(spells[2:], [], since=9.0, until=10.0) == []


@pytest.mark.parametrize(("last_at", "complains"), [(10.0, False), (21.0, True)])
def test_what_was_answered_for_long_must_have_been_reported(last_at: float, *, complains: bool) -> None:
    world = World(Clock())
    world.add(Lifecycle("e", (StatusPhase("running", 0.0),)), pipeline=pipeline_named("p"))
    simulator = Simulator(world)
    simulator.request_log = log_of((0.0, 0), (last_at, 1))
    assert bool(checks.of_lasting_answers([], simulator, lasting_s=20.0)) is complains
