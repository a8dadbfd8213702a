"""The figures of virtual time: whole pipelines against GETs alone, for the same crowd and with as many requests."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.figures import Figure, at_most, shown
from bench.population import Crowd
from bench.virtual_trials import Measured, Trial, watch_by_name, watch_whole

PLENTY_PER_S = 10.0
SCARCE_PER_S = 2.0
WORTH = 0.15
"""The share of the requests that is to be enough for the delay of GETs alone."""

OTHER_PIPELINES = (1, 5, 200)


def measure_pipelines(seeds: Sequence[int]) -> Iterator[Figure]:
    """Watch 1,000 open executions in 20 pipelines with 10 and 2 requests a second, then in more and fewer pipelines."""
    plenty = [_fight(Trial(Crowd(seed=seed), PLENTY_PER_S)) for seed in seeds]
    yield at_most(
        0.15, "delay at 10/s over that of GETs alone", [whole.delay_s / gets.delay_s for whole, gets in plenty]
    )
    yield shown("  delay, s", [whole.delay_s for whole, _ in plenty])
    worth = [watch_whole(Trial(Crowd(seed=seed), WORTH * PLENTY_PER_S)) for seed in seeds]
    against = zip(worth, plenty, strict=True)
    yield at_most(1.0, f"  with {WORTH} of its requests", [few.delay_s / gets.delay_s for few, (_, gets) in against])
    scarce = [_fight(Trial(Crowd(seed=seed), SCARCE_PER_S)) for seed in seeds]
    yield at_most(
        0.25, "delay at 2/s over that of GETs alone", [whole.delay_s / gets.delay_s for whole, gets in scarce]
    )
    yield shown("  delay, s", [whole.delay_s for whole, _ in scarce])
    yield at_most(
        3.6, "  longest wait over the fair share", [whole.longest_wait_s / whole.turn_s for whole, _ in scarce]
    )
    for count in OTHER_PIPELINES:
        others = [watch_whole(Trial(Crowd(pipelines_count=count, seed=seed), PLENTY_PER_S)) for seed in seeds]
        yield shown(f"delay at 10/s in {count} over half a turn", [each.delay_s / (each.turn_s / 2) for each in others])


def _fight(trial: Trial) -> tuple[Measured, Measured]:
    """Return what came of the same crowd, watched in whole pipelines and with GETs alone."""
    whole = watch_whole(trial)
    return whole, watch_by_name(replace(trial, rate_per_s=whole.rate_per_s))
