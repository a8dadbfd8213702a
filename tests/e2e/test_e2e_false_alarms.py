"""The API at its worst: nothing is reported that is not so, and the account's trouble once per trouble."""

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import groupby

import pytest
from e2e import checks
from e2e.stage import POLLING, Document, Stage, document_of, webhook, world_of

from watcher.simulator.faults import Dice, Fault, Faults, Window
from watcher.simulator.scenarios import HARSH, populate
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


def test_what_is_there_is_never_refused_three_times_in_a_row() -> None:
    world = world_of(1, ends_after_s=1.0, ends_within_s=1.0)
    (execution,) = [each.id for each in world.executions()]
    dice = SparingDice(Faults(odds={Fault.NOT_FOUND: 0.9}), world=world)
    thrown = [dice.throw(10.0, execution=execution) for _ in range(1000)]
    rows = [len(list(row)) for fault, row in groupby(thrown) if fault is Fault.NOT_FOUND]
    assert set(rows) == {1, 2}


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
