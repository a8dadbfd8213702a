"""The API at its worst: nothing is told that is not so, and what compares this finds each thing it is to find."""

import asyncio
import json
import signal
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import Any

import pytest
from e2e import checks
from e2e.endpoint import Answer, Attempt
from e2e.replicas import Loss, not_asked_again, overlapping
from e2e.stage import POLLING, Document, Stage, document_of, webhook, world_of

from watcher.runtime.clock import Clock
from watcher.simulator.faults import Dice, Fault, Faults, Window
from watcher.simulator.scenarios import CALM, HARSH, pipeline_named, populate
from watcher.simulator.server import LoggedRequest, RequestLog, Simulator
from watcher.simulator.world import Lifecycle, StatusPhase, World, make_lifecycle

PAUSING = {Fault.UNAVAILABLE, Fault.RATE_LIMITED, Fault.RATE_LIMITED_SECONDS, Fault.RATE_LIMITED_DATE}
AT_RANDOM = Faults(odds={fault: odds for fault, odds in HARSH.odds.items() if fault not in PAUSING}, slow_s=0.5)
"""Nothing that makes the whole account wait."""

SHORT = replace(HARSH, windows=(Window(Fault.UNAVAILABLE, 1.5, 9.5),), retry_after_s=1, slow_s=1.0)
LASTING_COUNT = 12
REFUSED_AT_MOST = 2
FINISHED = {"execution.success", "execution.failed", "execution.lost"}


REFUSALS = {Fault.NOT_FOUND, Fault.FORBIDDEN, Fault.BAD_REQUEST}


class SparingDice(Dice):
    """Throws two refusals in a row of what is there, and never a third: `lost_after` of them mean that it is lost."""

    def __init__(self, faults: Faults, *, world: World) -> None:
        super().__init__(replace(faults, windows=()), seed=0)
        self._windows = faults.windows
        self._world = world
        self._refused: Counter[str] = Counter()

    def begin(self) -> None:
        """Count the windows' seconds from now on."""
        now_s = self._world.now_s()
        windows = (replace(each, from_s=now_s + each.from_s, until_s=now_s + each.until_s) for each in self._windows)
        self.faults = replace(self.faults, windows=tuple(windows))

    def throw(self, now_s: float, *, execution: str | None) -> Fault | None:
        fault = super().throw(now_s, execution=execution)
        found = None if execution is None else self._world.find(execution)
        if execution is None or found is None:
            return fault
        if fault in REFUSALS and self._refused[execution] == REFUSED_AT_MOST:
            fault = None
        if fault in REFUSALS or not found.is_visible(now_s):
            self._refused[execution] = min(REFUSED_AT_MOST, self._refused[execution] + 1)
        elif fault is None:
            self._refused[execution] = 0
        return fault


@pytest.mark.parametrize(
    ("faults", "length_s", "polling"),
    [
        (AT_RANDOM, 5.0, {"lost_grace": "6s", "degraded_after": "6s"}),
        pytest.param(SHORT, 30.0, {"lost_grace": "9s", "degraded_after": "6s"}, marks=pytest.mark.ci),
        pytest.param(HARSH, 600.0, {"lost_grace": "9s", "degraded_after": "10s"}, marks=pytest.mark.soak),
    ],
)
async def test_the_harshest_api_causes_no_false_alarm(
    stage: Stage, faults: Faults, length_s: float, polling: Document
) -> None:
    simulator = await stage.simulator(_odd_world(length_s), faults=faults)
    simulator.dice = dice = SparingDice(faults, world=simulator.world)
    receiver = await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver)}, rate_limit="100/s")
    document["polling"] = POLLING | polling

    life = await stage.start(document)
    await life.started()
    dice.begin()
    await asyncio.sleep(length_s - simulator.world.now_s())
    finite_count = sum(1 for _ in simulator.world.executions()) - LASTING_COUNT
    await life.until(
        lambda: (
            len({event["subject"] for event in receiver.events() if event["type"] in FINISHED}) == finite_count
            and len(receiver.events("account.recovered")) == len(receiver.events("account.degraded"))
            and checks.of_completeness([*receiver.kept(), *life.emitted], simulator) == []
        ),
        within_s=80,
        what="every end, every loss and what lasts was reported, and the account was well",
    )
    assert await life.stop() == 0

    bodies = [*receiver.kept(), *life.emitted]
    assert checks.of_truth(bodies, simulator) == []
    assert checks.of_completeness(bodies, simulator) == []
    assert checks.of_everything_answered(bodies, simulator) == []
    assert bool(receiver.events("account.degraded")) is bool(faults.windows)
    assert checks.of_alternation(bodies, troubles_count=len(faults.windows)) == []
    assert checks.of_sequences(bodies) == []
    assert checks.of_order(receiver.attempts) == []
    assert {entry.endpoint for entry in simulator.request_log.entries} == {"get"}  # nobody followed a redirect


def _odd_world(length_s: float) -> World:
    """Return a world with every oddity, begun within 4 s; others that end in time; and a dozen that outlive the test.

    For while nothing of an account answers, none of it can be reported as lost, and few make for chance silences.
    """
    world = world_of(20, ends_after_s=2.0, ends_within_s=length_s)
    populate(world, seed=3, pipelines_count=3, executions_count=10, fit_s=min(8.0, length_s), odd_share=0.6)
    lasting = (StatusPhase("new", 0.0), StatusPhase("running", 1.0), StatusPhase("success", 10_000.0))
    for index in range(LASTING_COUNT):
        world.add(
            Lifecycle(execution=make_lifecycle(4, index=index).execution, phases=lasting),
            pipeline=next(iter(world.pipelines.values())),
        )
    return world


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
    bodies = [
        {"id": letter, "type": f"account.{words[letter]}", "source": "/accounts/a", "sequence": f"{number:010d}"}
        for number, letter in enumerate(types, start=1)
    ]
    assert (checks.of_alternation(written(simulator, *bodies), troubles_count=1) == []) is well


# Who asked although another replica had the account

PLACES = 3


def log_of(*asked: tuple[float, int]) -> RequestLog:
    """Return a log in which replicas, by their places, asked for an account at these moments."""
    log = RequestLog()
    for at, place in asked:
        log.open(LoggedRequest(at, place, "get", execution="e", code=200, answered="running"))
    return log


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


@pytest.mark.parametrize(("asks_at", "count"), [((1, 12), 0), ((1,), 1), ((1, 3, 15), 0)])
def test_an_account_that_lost_its_replica_is_asked_for_again(asks_at: tuple[float, ...], count: int) -> None:
    killed = Loss(2.5, place=0, accounts=frozenset({0}), is_stop=False)
    log = log_of(*((at, 0) for at in asks_at))
    assert len(not_asked_again(log, [killed], places_count=PLACES)) == count
    stopped = not_asked_again(log, [replace(killed, is_stop=True)], places_count=PLACES)
    assert bool(stopped) is (len(asks_at) < 3)  # it was about to send one


@pytest.mark.parametrize(("last_at", "complains"), [(10.0, False), (21.0, True)])
def test_what_was_answered_for_long_must_have_been_reported(last_at: float, *, complains: bool) -> None:
    world = World(Clock())
    world.add(Lifecycle("e", (StatusPhase("running", 0.0),)), pipeline=pipeline_named("p"))
    simulator = Simulator(world)
    simulator.request_log = log_of((0.0, 0), (last_at, 1))
    assert bool(checks.of_lasting_answers([], simulator, lasting_s=20.0)) is complains


@pytest.mark.ci
async def test_a_stop_right_after_a_failure_is_reported_as_no_trouble(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(5, ends_after_s=60.0, ends_within_s=90.0))
    receiver = await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver)})
    document["polling"] = POLLING | {"degraded_after": "2500ms"}
    life = await stage.start(document)
    await life.until(lambda: len(receiver.events()) >= 5, what="every execution was reported")

    asked_count = len(simulator.request_log.entries)
    simulator.dice.faults = Faults(odds={Fault.SERVER_ERROR: 1.0})
    await life.until(lambda: codes(simulator, since=asked_count).count(500) > 7, what="polls had failed")
    life.send(signal.SIGSTOP)
    await asyncio.sleep(4.0)  # it is stopped for longer than `degraded_after`
    simulator.dice.faults, asked_count = CALM, len(simulator.request_log.entries)
    life.send(signal.SIGCONT)
    await life.until(lambda: codes(simulator, since=asked_count).count(200) > 10, what="it looked again")
    assert await life.stop() == 0
    assert (life.events("account.degraded"), life.logged("account.degraded")) == ([], [])


def codes(simulator: Simulator, *, since: int) -> list[int | None]:
    """Return what was answered to the requests from that one on."""
    return [entry.code for entry in islice(simulator.request_log.entries, since, None)]
