"""The table of docs/alerts.md that says how often each rule opens a problem: simulated with the rules themselves."""

from collections.abc import Iterator
from random import Random
from statistics import fmean

from watcher.domain.event import EventType
from watcher.domain.rules import End, FailingRule, News, Rules, RuleState, UnjudgedEnd, judge
from watcher.domain.timestamps import Micros

SECOND = 1_000_000
ENDS_COUNT = 817
"""Ends of one history: 34 days where one comes each hour."""

HISTORIES_COUNT = 5
SHARES = (0.05, 0.2, 0.5, 0.7, 0.9)
EVERY_S = {"second": 1, "minute": 60, "hour": 3600}

AT_ONCE = FailingRule(consecutive=3, recover_after=1, quiet_for_us=SECOND)
COLUMNS = (
    ("`consecutive: 3, recover_after: 1, quiet_for: 1s`", AT_ONCE, 60),
    *((f"`consecutive: 3`, an end each {name}", FailingRule(consecutive=3), every) for name, every in EVERY_S.items()),
    ("`rate: 20%`", FailingRule(rate=0.2), 60),
)


def history(seed: int, *, share: float, every_s: float, count: int = ENDS_COUNT) -> Iterator[End]:
    """Yield ends of which that share failed, at random distances that are as long as that on average."""
    draw, at_s = Random(seed), 0.0
    for _ in range(count):
        at_s += draw.expovariate(1 / every_s)
        yield End(round(at_s * SECOND), draw.random() < share)


def openings(rule: FailingRule, *, share: float, every_s: float, seed: int) -> int:
    """Return how many problems a rule opens in one history, each end judged when it comes."""
    state, counts, found = RuleState(), dict[EventType, int](), 0
    for nth, end in enumerate(history(seed, share=share, every_s=every_s)):
        verdict = judge(Rules(rule), state, counts, News(Micros(end.ended_at), [UnjudgedEnd(str(nth), end)]))
        state, counts = verdict.state, dict(verdict.failed_counts)
        found += sum(edge.opens for edge in verdict.edges)
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
