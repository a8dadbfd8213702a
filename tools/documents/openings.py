"""The table of docs/inside/rules.md: how often `failing` opens a problem, simulated with the rule itself."""

from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from statistics import fmean
from uuid import UUID

from watcher.domain.event import EventKey, EventType
from watcher.domain.history import EndedExecution
from watcher.domain.problems import Problem
from watcher.domain.rule import News
from watcher.domain.timestamps import Micros
from watcher.rules.failing import Failing, FailingSettings, FailingState

SECOND = 1_000_000
ENDS_COUNT = 817
"""Ends of one history: 34 days where one comes each hour."""

HISTORIES_COUNT = 5
SHARES = (0.05, 0.2, 0.5, 0.7, 0.9)
EVERY_S = {"second": 1, "minute": 60, "hour": 3600}

PROBLEM = Problem(UUID(int=0), EventType.PIPELINE_FAILING, datetime.now(UTC), EventKey(b"", 1))


def _failing(**settings: object) -> Failing:
    return Failing(FailingSettings.model_validate(settings))


AT_ONCE = _failing(consecutive=3, recover_after=1, quiet_for="1s")
COLUMNS = (
    ("`consecutive: 3, recover_after: 1, quiet_for: 1s`", AT_ONCE, 60),
    *((f"`consecutive: 3`, an end each {name}", _failing(consecutive=3), every) for name, every in EVERY_S.items()),
    ("`rate: 20%`", _failing(rate="20%"), 60),
)


def history(seed: int, *, share: float, every_s: float, count: int = ENDS_COUNT) -> Iterator[EndedExecution]:
    """Yield ends of which that share failed, at random distances that are as long as that on average."""
    draw, at_s = Random(seed), 0.0
    for _ in range(count):
        at_s += draw.expovariate(1 / every_s)
        at = Micros(round(at_s * SECOND))
        yield EndedExecution(at, at, "failed" if draw.random() < share else "success")


def openings(rule: Failing, *, share: float, every_s: float, seed: int) -> int:
    """Return how many problems a rule opens in one history, each end judged when it comes."""
    state, problem, found = FailingState(), None, 0
    for end in history(seed, share=share, every_s=every_s):
        judged = rule.judge(state, News(end.ended_at, [end]), problem)
        state = judged.state
        for told in judged.events:
            problem = PROBLEM if told.type is rule.opens else None
            found += problem is not None
    return found


def table() -> str:
    """Return the table, on average over some histories."""
    lines = [f"| of which fail | {' | '.join(name for name, _, _ in COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for share in SHARES:
        means = [
            fmean(openings(rule, share=share, every_s=every_s, seed=seed) for seed in range(HISTORIES_COUNT))
            for _, rule, every_s in COLUMNS
        ]
        lines.append(f"| {share:.0%} | {' | '.join(f'{mean:.0f}' for mean in means)} |".replace("%", " %", 1))
    return "\n".join(lines)
