"""The figures of virtual time: how long after its end an execution of a whole pipeline is reported as ended.

Changes within a life may come and go between two polls.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import fmean

from bench.figures import Figure, at_most, shown
from bench.population import Crowd, Population, end_s
from bench.virtual_time import ACCOUNT, Stage, enter_stage
from watcher.domain.watch import Watch

PLENTY_PER_S, SCARCE_PER_S = 10.0, 2.0
WORTH = 0.15
"""The share of the requests that is to be enough for the delay of GETs alone."""

OTHER_PIPELINES = (1, 5, 200)
PATIENCE_S = 3600.0
_STEP_S = 60.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A crowd, how many requests a second it is worth, and for how long it is watched, after how long."""

    crowd: Crowd
    rate_per_s: float
    seconds: float = 1200.0
    warm_up_s: float = 600.0


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

    @property
    def share(self) -> float:
        """Return the delay over that of GETs alone."""
        return self.delay_s / (self.turn_s / 2)


def measure_pipelines(seeds: Sequence[int]) -> Iterator[Figure]:
    """Watch 1,000 open executions in 20 pipelines with 10 and 2 requests a second, then in more and fewer pipelines."""
    plenty = [watch_whole(Trial(Crowd(seed=seed), PLENTY_PER_S)) for seed in seeds]
    yield at_most(0.15, "delay at 10/s over that of GETs alone", [each.share for each in plenty])
    yield shown("  delay, s", [each.delay_s for each in plenty])
    worth = [watch_whole(Trial(Crowd(seed=seed), WORTH * PLENTY_PER_S)) for seed in seeds]
    against = [few.delay_s / (each.turn_s / 2) for few, each in zip(worth, plenty, strict=True)]
    yield at_most(1.0, f"  with {WORTH} of its requests", against)
    scarce = [watch_whole(Trial(Crowd(seed=seed), SCARCE_PER_S)) for seed in seeds]
    yield at_most(0.25, "delay at 2/s over that of GETs alone", [each.share for each in scarce])
    yield shown("  delay, s", [each.delay_s for each in scarce])
    yield at_most(3.6, "  longest wait over the fair share", [each.longest_wait_s / each.turn_s for each in scarce])
    for count in OTHER_PIPELINES:
        others = [watch_whole(Trial(Crowd(pipelines_count=count, seed=seed), PLENTY_PER_S)) for seed in seeds]
        yield shown(f"delay at 10/s in {count} over that of GETs alone", [each.share for each in others])


def watch_whole(trial: Trial) -> Measured:
    """Watch the pipelines."""
    return asyncio.run(_watch_whole(trial))


async def _watch_whole(trial: Trial) -> Measured:
    from_s, until_s = trial.warm_up_s, trial.warm_up_s + trial.seconds
    population = Population(trial.crowd, until_s=until_s + PATIENCE_S)
    async with AsyncExitStack() as stack:
        stage = await enter_stage(stack, population, rate_per_s=trial.rate_per_s)
        notes = stage.notes
        await stage.account.watcher.watch([Watch(ACCOUNT, each.id, ()) for each in population.pipelines])
        await stage.run_until(from_s)
        notes.counting = True
        await stage.run_until(until_s)
        notes.stop(until_s)
        ended = population.ended_within(from_s, until_s)
        await _wait_for([each.id for each in ended], stage)
        return Measured(
            delay_s=fmean(notes.emitted[each.id] - end_s(each) for each in ended),
            rate_per_s=notes.requests.total() / trial.seconds,
            open_count=population.mean_open_count(from_s, until_s),
            longest_wait_s=notes.longest_wait_s,
        )


async def _wait_for(ended: Sequence[str], stage: Stage) -> None:
    """Let it go on until each of these ends is reported. Raises `TimeoutError` if one never is."""
    world = stage.population.world
    give_up_s = world.now_s() + PATIENCE_S
    while not stage.notes.emitted.keys() >= {*ended}:
        if world.now_s() >= give_up_s:
            raise TimeoutError
        await stage.run_until(world.now_s() + _STEP_S)
