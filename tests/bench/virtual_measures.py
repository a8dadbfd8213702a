"""The figures of virtual time: whole pipelines against GETs alone, for the same crowd and with as many requests."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import nan
from statistics import fmean, quantiles

from bench.figures import Figure, at_most, shown
from bench.population import Crowd
from bench.virtual_api import GET
from bench.virtual_trials import End, Measured, Trial, watch_by_name, watch_whole

PLENTY_PER_S = 10.0
SCARCE_PER_S = 2.0
WORTH = 0.15
"""The share of the requests that is to be enough for the delay of GETs alone."""

OTHER_PIPELINES = (1, 5, 200)
REQUEST_KINDS: dict[str, Callable[[int], bool]] = {
    "first pages": lambda page: page == 1,
    "deeper pages": lambda page: page > 1,
    "GETs": lambda page: page == GET,
}


@dataclass(frozen=True, slots=True)
class Duel:
    """What came of the same crowd, watched in whole pipelines and with GETs alone."""

    whole: Measured
    gets: Measured

    @property
    def ratio(self) -> float:
        """Return the delay with whole pipelines over that with GETs alone."""
        return self.whole.delay_s / self.gets.delay_s


def measure_pipelines(seeds: Sequence[int]) -> Iterator[Figure]:
    """Watch 1,000 open executions in 20 pipelines with 10 and 2 requests a second, then in more and fewer pipelines."""
    plenty = [_fight(Trial(Crowd(seed=seed), PLENTY_PER_S)) for seed in seeds]
    yield at_most(0.15, "delay at 10/s over that of GETs alone", [each.ratio for each in plenty])
    yield from _explain(plenty)
    worth = [watch_whole(Trial(Crowd(seed=seed), WORTH * PLENTY_PER_S)) for seed in seeds]
    against = zip(worth, plenty, strict=True)
    yield at_most(1.0, f"  with {WORTH} of its requests", [few.delay_s / duel.gets.delay_s for few, duel in against])
    scarce = [_fight(Trial(Crowd(seed=seed), SCARCE_PER_S)) for seed in seeds]
    yield at_most(0.25, "delay at 2/s over that of GETs alone", [each.ratio for each in scarce])
    yield from _explain(scarce)
    yield at_most(3.6, "  longest wait over the fair share", [each.whole.unfairness for each in scarce])
    for count in OTHER_PIPELINES:
        others = [watch_whole(Trial(Crowd(pipelines_count=count, seed=seed), PLENTY_PER_S)) for seed in seeds]
        yield shown(f"delay at 10/s in {count} over half a turn", [each.delay_s / (each.turn_s / 2) for each in others])


def _fight(trial: Trial) -> Duel:
    whole = watch_whole(trial)
    return Duel(whole, watch_by_name(replace(trial, rate_per_s=whole.rate_per_s)))


def _explain(duels: Sequence[Duel]) -> Iterator[Figure]:
    """Say where the delay comes from."""
    wholes = [each.whole for each in duels]
    yield shown("  over half a turn of GETs", [each.delay_s / (each.turn_s / 2) for each in wholes])
    yield shown("  of GETs alone, s", [each.gets.delay_s for each in duels])
    yield shown("  delay, s", [each.delay_s for each in wholes])
    yield shown("    p99, s", [quantiles([end.emitted_after_s for end in each.ends], n=100)[98] for each in wholes])
    yield shown("    from shown to reported, s", [each.delay_s - _mean_shown_s(each.ends) for each in wholes])
    yield shown("    until an execution is found, s", [each.found_after_s for each in wholes])
    for kind, holds in REQUEST_KINDS.items():
        yield from _explain_kind(kind, holds, wholes)


def _explain_kind(kind: str, holds: Callable[[int], bool], wholes: Sequence[Measured]) -> Iterator[Figure]:
    seen = [[end for end in each.ends if holds(end.page)] for each in wholes]
    requests = [sum(rate for page, rate in each.requests_per_s.items() if holds(page)) for each in wholes]
    yield shown(f"  {kind} a second", requests)
    yield shown("    share of the ends", [len(ends) / len(each.ends) for ends, each in zip(seen, wholes, strict=True)])
    yield shown("    until shown, s", [_mean_shown_s(ends) for ends in seen])


def _mean_shown_s(ends: Sequence[End]) -> float:
    return fmean(end.shown_after_s for end in ends) if ends else nan
