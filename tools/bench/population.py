"""A world in a steady state: executions come and go, as many as come, and everybody's age is what it always was.

Nothing has to run for days first: what is open at the beginning began as long before it as the longest life lasts.
"""

from dataclasses import dataclass
from itertools import count
from random import Random
from statistics import fmean

from virtual import FakeClock

from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import REAL, Kind, SimExecution, World, make_lifecycle

_SAMPLE_COUNT = 1600
"""So many lives are lived to learn how long one is; the stories go on after them."""

LONGEST_S = REAL.new_s[1] + 4 * REAL.running_s[Kind.LONG][1] + 3 * REAL.paused_s[Kind.LONG][1]
"""No story of the simulator is longer: four times running, three pauses."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who is watched: about `open_count` at any time in so many pipelines, from a seed."""

    open_count: int = 1000
    pipelines_count: int = 20
    seed: int = 1


class Population:
    """The world of a crowd and what is true of it. Seconds are the world's: 0 is its beginning."""

    def __init__(self, crowd: Crowd, *, until_s: float) -> None:
        """Let executions begin at random, evenly, until then; the lists hold nothing older than the longest life."""
        self.crowd = crowd
        self.clock = FakeClock()
        self.world = World(self.clock)
        self.pipelines = [pipeline_named(f"Agent {nth}", seed=crowd.seed) for nth in range(crowd.pipelines_count)]
        self.arrivals_per_s = crowd.open_count / _mean_life_s(crowd.seed)
        self._fill(until_s=until_s)

    def ended_within(self, from_s: float, until_s: float) -> list[SimExecution]:
        """Return those whose last stay begins within [from, until)."""
        return [each for each in self.world.executions() if from_s <= end_s(each) < until_s]

    def mean_open_count(self, from_s: float, until_s: float) -> float:
        """Return how many were open on average."""
        spans = (min(until_s, end_s(each)) - max(from_s, each.begins_s) for each in self.world.executions())
        return sum(span for span in spans if span > 0) / (until_s - from_s)

    def _fill(self, *, until_s: float) -> None:
        seed = self.crowd.seed
        rng = Random(f"{seed}/arrivals")
        begins_s = -LONGEST_S
        for index in count(_SAMPLE_COUNT):
            begins_s += rng.expovariate(self.arrivals_per_s)
            if begins_s >= until_s:
                return
            self.world.add(make_lifecycle(seed, index=index), pipeline=rng.choice(self.pipelines), begins_s=begins_s)


def end_s(execution: SimExecution) -> float:
    """Return when an execution ends, in seconds of the world."""
    return execution.begins_s + execution.lifecycle.length_s()


def _mean_life_s(seed: int) -> float:
    return fmean(make_lifecycle(seed, index=index).length_s() for index in range(_SAMPLE_COUNT))
