"""Who waits for whom in an account, in virtual time: crowds, storms and downtimes, with everything booked."""

import json
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from statistics import fmean

import pytest
from bench.population import Crowd, Population, end_s
from bench.virtual_time import ACCOUNT, Stage, enter_stage

from watcher.domain.execution import Status
from watcher.domain.watch import Watch
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import SimExecution, SimPipeline, make_lifecycle

BUSY, QUIET, NAMED = (pipeline_named(name, seed=1) for name in ("Busy", "Quiet", "Named"))
LASTING_S = 1e6


class Cast(Population):
    """A world whose executions are added one by one, each from a seed of its own."""

    def __init__(self) -> None:
        """Begin with nobody."""
        super().__init__(Crowd(), until_s=0.0)
        self._count = 0
        self.draw = Random(1)

    def _fill(self, *, until_s: float) -> None:
        pass

    def add(self, pipeline: SimPipeline, *, begins_s: float, length_s: float, fails: bool = False) -> SimExecution:
        """Let an execution begin then and end so much later."""
        while True:
            self._count += 1
            lifecycle = make_lifecycle(1, index=self._count)
            if (lifecycle.phases[-1].status == Status.FAILED) is fails:
                break
        lifecycle = lifecycle.stretched(length_s / lifecycle.length_s())
        return self.world.add(lifecycle, pipeline=pipeline, begins_s=begins_s)

    def arrive(
        self, pipeline: SimPipeline, *, per_s: float, from_s: float, until_s: float, fails: bool = False
    ) -> None:
        """Let short executions begin at random."""
        at_s = from_s + self.draw.expovariate(per_s)
        while at_s < until_s:
            self.add(pipeline, begins_s=at_s, length_s=self.draw.uniform(0.5, 3.0), fails=fails)
            at_s += self.draw.expovariate(per_s)

    def of(self, pipeline: SimPipeline) -> Iterable[SimExecution]:
        """Return the executions of a pipeline."""
        return (each for each in self.world.executions() if each.pipeline is pipeline)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def begin(
    stack: AsyncExitStack, cast: Cast, *, rate_per_s: float, named: Collection[str] = (), directory: Path | None = None
) -> Stage:
    stage = await enter_stage(stack, cast, rate_per_s=rate_per_s, directory=directory)
    watches = [Watch(ACCOUNT, pipeline.id, (), name="A") for pipeline in (BUSY, QUIET)]
    await stage.account.watcher.watch([*watches, Watch(ACCOUNT, NAMED.id, tuple(named))] if named else watches)
    return stage


def delays_s(stage: Stage, executions: Iterable[SimExecution], *, from_s: float, until_s: float) -> list[float]:
    """Return how long after their ends within [from, until) these were reported."""
    ended = [each for each in executions if from_s <= end_s(each) < until_s]
    assert ended
    return [stage.notes.emitted[each.id] - end_s(each) for each in ended]


@pytest.mark.ci
async def test_a_crowd_of_named_executions_starves_no_list(stack: AsyncExitStack) -> None:
    cast = Cast()
    named = [cast.add(NAMED, begins_s=-1.0, length_s=LASTING_S).id for _ in range(200)]
    for _ in range(250):
        cast.add(BUSY, begins_s=cast.draw.uniform(-1000, -100), length_s=LASTING_S)
    cast.arrive(BUSY, per_s=3.0, from_s=0.0, until_s=400.0)
    cast.arrive(QUIET, per_s=0.05, from_s=0.0, until_s=400.0)
    stage = await begin(stack, cast, rate_per_s=5.0, named=named)
    await stage.run_until(200.0)
    stage.notes.counting = True
    await stage.run_until(400.0)
    stage.notes.stop(400.0)
    await stage.run_until(460.0)
    quiet = delays_s(stage, cast.of(QUIET), from_s=100.0, until_s=400.0)
    busy = delays_s(stage, cast.of(BUSY), from_s=100.0, until_s=400.0)
    assert max(quiet) < 30  # 128 s where what is named goes first
    assert fmean(busy) < 10
    assert stage.notes.longest_wait_s < 75  # max_interval is 60 s, and could be held


@pytest.mark.ci
async def test_a_storm_of_failures_delays_the_failure_of_no_other_pipeline(stack: AsyncExitStack) -> None:
    cast = Cast()
    cast.arrive(BUSY, per_s=10.0, from_s=5.0, until_s=200.0, fails=True)
    cast.arrive(QUIET, per_s=0.05, from_s=5.0, until_s=200.0, fails=True)
    stage = await begin(stack, cast, rate_per_s=5.0)
    await stage.run_until(260.0)
    quiet = delays_s(stage, cast.of(QUIET), from_s=50.0, until_s=200.0)
    busy = delays_s(stage, cast.of(BUSY), from_s=50.0, until_s=200.0)
    assert fmean(quiet) < 5  # 30 s where the oldest pending confirmation goes first
    assert fmean(busy) < 15
    assert max(busy) < 40


@pytest.mark.parametrize(
    ("until_s", "is_gap"),
    [pytest.param(520.0, False, marks=pytest.mark.soak), pytest.param(1100.0, True, marks=pytest.mark.ci)],
)
async def test_a_storm_that_outruns_two_scans_in_a_row_is_a_gap_that_says_how_many_at_most(
    stack: AsyncExitStack, until_s: float, *, is_gap: bool
) -> None:
    cast = Cast()
    cast.arrive(BUSY, per_s=0.5, from_s=-100.0, until_s=0.0)
    cast.arrive(BUSY, per_s=20.0, from_s=20.0, until_s=until_s)
    stage = await begin(stack, cast, rate_per_s=0.25)
    await stage.run_until(6000.0)
    gaps = [json.loads(body)["data"] for body in stage.notes.gaps]
    missing = [each for each in cast.of(BUSY) if end_s(each) >= 20.0 and each.id not in stage.notes.emitted]
    assert [gap["reason"] for gap in gaps] == ["outrun"] * is_gap
    assert len(missing) <= sum(gap["atMost"] for gap in gaps)  # none: `total` shows that rows below were not found
