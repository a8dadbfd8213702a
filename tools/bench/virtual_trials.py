"""Two ways to spend requests on the same crowd, in virtual time: whole pipelines, or GETs alone by a fixed interval.

What is measured is how long after its end an execution is reported as ended: changes within a life may come and go
between two polls.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from statistics import fmean

from bench.population import Crowd, Population, end_s
from bench.virtual_time import ACCOUNT, Stage, enter_stage
from watcher.domain.watch import Watch
from watcher.simulator.world import SimExecution

UNPACED_PER_S = 10_000.0
PATIENCE_S = 3600.0
_STEP_S = 60.0

RunUntil = Callable[[float], Awaitable[None]]
"""Lets everything happen until that second of the world."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A crowd, how many requests a second it is worth, and for how long it is watched, after how long."""

    crowd: Crowd
    rate_per_s: float
    seconds: float = 1200.0
    warm_up_s: float = 600.0

    @property
    def until_s(self) -> float:
        """Return the second of the world at which the watching is over."""
        return self.warm_up_s + self.seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a trial: how long after its end an execution is reported as ended, and how many are open.

    Both on average; `rate_per_s` is how many requests were made a second, a wait is the time between two polls.
    """

    delay_s: float
    rate_per_s: float
    open_count: float
    longest_wait_s: float

    @property
    def turn_s(self) -> float:
        """Return how long everyone waits if each request is a poll of one execution and all take turns: a fair share.

        GETs alone report an end after half of it on average, and cannot do better.
        """
        return self.open_count / self.rate_per_s


def watch_whole(trial: Trial) -> Measured:
    """Watch the pipelines."""
    return asyncio.run(_watch_whole(trial))


def watch_by_name(trial: Trial) -> Measured:
    """Watch each execution by name at a fixed interval, the shortest for which these requests suffice.

    That favours it: each is known from its beginning on, for nothing, and has its first poll at random within the first
    interval, so that an end waits half of one on average.
    """
    return asyncio.run(_watch_by_name(trial))


async def _watch_whole(trial: Trial) -> Measured:
    async with AsyncExitStack() as stack:
        stage = await enter_stage(stack, _crowd(trial), rate_per_s=trial.rate_per_s)
        await stage.account.watcher.watch([Watch(ACCOUNT, each.id, ()) for each in stage.population.pipelines])
        return await _measure(trial, stage, stage.run_until)


async def _watch_by_name(trial: Trial) -> Measured:
    crowd = _crowd(trial)
    interval_s = crowd.interval_s(trial.rate_per_s, trial.warm_up_s, trial.until_s)
    async with AsyncExitStack() as stack:
        stage = await enter_stage(stack, crowd, rate_per_s=UNPACED_PER_S, interval_s=interval_s)
        return await _measure(trial, stage, _Names(stage, interval_s=interval_s).run_until)


def _crowd(trial: Trial) -> Population:
    return Population(trial.crowd, until_s=trial.until_s + PATIENCE_S)


class _Names:
    """Whose names come to be known, and when."""

    def __init__(self, stage: Stage, *, interval_s: float) -> None:
        self._stage = stage
        rng = Random(f"{stage.population.crowd.seed}/turns")
        going = (each for each in stage.population.world.executions() if end_s(each) > 0)
        turns = ((max(0.0, each.begins_s) + rng.uniform(0.0, interval_s), each) for each in going)
        self._turns = deque(sorted(turns, key=lambda turn: turn[0]))
        self._named: list[SimExecution] = []

    async def run_until(self, until_s: float) -> None:
        """Watch each from its turn on."""
        while self._turns and self._turns[0][0] <= until_s:
            at_s, execution = self._turns.popleft()
            await self._stage.run_until(at_s)
            await self._name(execution)
        await self._stage.run_until(until_s)

    async def _name(self, execution: SimExecution) -> None:
        emitted = self._stage.notes.emitted
        self._named = [*(each for each in self._named if each.id not in emitted), execution]
        names: dict[str, list[str]] = {}
        for each in self._named:
            names.setdefault(each.pipeline.id, []).append(each.id)
        await self._stage.account.watcher.watch([Watch(ACCOUNT, key, tuple(ids)) for key, ids in names.items()])


async def _measure(trial: Trial, stage: Stage, run_until: RunUntil) -> Measured:
    notes, population = stage.notes, stage.population
    await run_until(trial.warm_up_s)
    notes.counting = True
    await run_until(trial.until_s)
    notes.stop(trial.until_s)
    ended = population.ended_within(trial.warm_up_s, trial.until_s)
    await _wait_for(ended, stage, run_until)
    return Measured(
        delay_s=fmean(notes.emitted[each.id] - end_s(each) for each in ended),
        rate_per_s=notes.requests.total() / trial.seconds,
        open_count=population.mean_open_count(trial.warm_up_s, trial.until_s),
        longest_wait_s=notes.longest_wait_s,
    )


async def _wait_for(ended: Iterable[SimExecution], stage: Stage, run_until: RunUntil) -> None:
    """Let it go on until each of these ends is reported. Raises `TimeoutError` if one never is."""
    world, give_up_s = stage.population.world, stage.population.world.now_s() + PATIENCE_S
    while not all(each.id in stage.notes.emitted for each in ended):
        if world.now_s() >= give_up_s:
            raise TimeoutError
        await run_until(world.now_s() + _STEP_S)
