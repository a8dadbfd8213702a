"""The figures and the recipe of docs/alerts.md, simulated with the rules themselves."""

import re
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean

import pytest
from documents import DOCS, slow_openings
from documents.openings import SECOND, history, table
from virtual import PIPELINE, Start, said

from watcher.config.loader import load_config
from watcher.daemon.from_settings import routes_of, watches_of
from watcher.domain.event import EventType
from watcher.domain.rules import End, FailingRule, News, Rules, RuleState, UnjudgedEnd, judge
from watcher.domain.timestamps import Micros
from watcher.sinks.alert import Alert

PAGE = (DOCS / "alerts.md").read_text(encoding="utf-8")
RUN = "9a1b0000-0000-4000-8000-000000000001"
MINUTE_S = 60
PHASES = ((0.75, 20 * MINUTE_S), (0.02, 20 * MINUTE_S), (1.0, MINUTE_S))
"""How many fail, and for how long: an outage, a repaired pipeline, the next outage."""


@pytest.mark.ci
def test_the_page_says_how_often_each_rule_opens_a_problem() -> None:
    assert table() in PAGE


@pytest.mark.ci
def test_the_page_says_how_often_slow_is_wrong() -> None:
    assert slow_openings.table() in PAGE


@pytest.mark.parametrize("past_count", [20, 200])
@pytest.mark.parametrize(("sigma", "most"), [(0.3, 0), (0.5, 1)])
def test_slow_is_wrong_at_most_once_in_ten_thousand_executions_on_average(
    sigma: float, most: float, past_count: int
) -> None:
    draw = slow_openings.spread(sigma)
    counts = [slow_openings.openings(draw, seed=seed, past_count=past_count)[0] for seed in range(20)]
    assert fmean(counts) <= most


def test_the_simulated_rule_is_the_one_that_check_counts_with() -> None:
    (rule, *_), draw = slow_openings.COLUMNS.values(), slow_openings.heavy_tail(1.5)
    random = Random(7)
    durations = [round(draw(random, max(0, nth)) * SECOND) for nth in range(-20, slow_openings.ENDS_COUNT)]
    assert slow_openings.openings(draw, seed=7, past_count=20)[0] == rule.count_slow(durations) > 0


async def test_an_execution_that_waits_for_a_person_is_told_once_and_when_it_goes_on(
    start: Start, tmp_path: Path
) -> None:
    _, example = re.findall(r"## An execution waits for a person(.*?)```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    file = tmp_path / "watcher.yaml"
    file.write_text(f"accounts: {{default: {{api_key: k}}}}\n{example}")
    settings = load_config(file, environ={"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/x"})
    (watch,) = watches_of(settings)
    named = replace(watch, pipeline=PIPELINE, executions=(RUN,))
    account = await start(RUN, watches=[named], route=routes_of(settings)["waiting"])

    async def told(status: str, *, for_s: float) -> list[str]:
        account.api.script[RUN] = said(RUN, status)
        await account.run_for(for_s)
        return [Alert.of(event).headline for event in await account.events()]

    assert await told("running", for_s=3600) == []
    assert await told("paused", for_s=590) == []
    (overdue,) = await told("paused", for_s=3600)
    assert overdue.startswith("! Sales agent has been paused for 10 m")
    assert await told("running", for_s=61) == ["✓ Sales agent is running, no longer overdue"]
    assert len(await told("paused", for_s=3600)) == 1
    assert await told("success", for_s=61) == ["✓ Sales agent succeeded, no longer overdue"]


def edges_of(
    rule: FailingRule, *, every_s: float, seed: int, phases: tuple[tuple[float, float], ...] = PHASES
) -> list[list[tuple[float, bool]]]:
    """Return for each phase when problems open and close, in seconds since it began."""
    state, counts, found, now = RuleState(), dict[EventType, int](), [], 0
    for share, span_s in phases:
        edges, since = list[tuple[float, bool]](), now
        for ended_at, failed in history(seed, share=share, every_s=every_s, count=round(span_s / every_s)):
            now = since + ended_at
            news = News(Micros(now), [UnjudgedEnd(str(now), End(now, failed))])
            verdict = judge(Rules(rule), state, counts, news)
            state, counts = verdict.state, dict(verdict.failed_counts)
            edges += [(ended_at / SECOND, edge.opens) for edge in verdict.edges]
        found.append(edges)
    return found


@pytest.mark.parametrize("every_s", [1, 5])
def test_a_repaired_pipeline_closes_after_five_minutes_though_a_twentieth_fails(every_s: float) -> None:
    phases = ((0.75, 10 * MINUTE_S), (0.05, 20 * MINUTE_S))
    for seed in range(5):
        outage, repaired = edges_of(FailingRule(consecutive=3), every_s=every_s, seed=seed, phases=phases)
        assert [opens for _, opens in outage] == [True]
        assert [opens for _, opens in repaired] == [False]
        assert 4 * MINUTE_S <= repaired[0][0] <= 8 * MINUTE_S


@pytest.mark.parametrize("every_s", [2, 5])
def test_an_outage_of_ten_pipelines_is_few_problems_which_close_soon_after_it_and_the_next_is_one_each(
    every_s: float,
) -> None:
    rule, opened_count = FailingRule(consecutive=3, quiet_for_us=30 * SECOND), 0
    for seed in range(10):
        outage, repaired, again = edges_of(rule, every_s=every_s, seed=seed)
        opened_count += sum(opens for _, opens in outage)
        is_open = outage[-1][1]
        assert [opens for _, opens in repaired] == [False] * is_open
        assert all(at_s <= 2 * MINUTE_S for at_s, _ in repaired)
        assert [opens for _, opens in again] == [True]
    assert opened_count <= 20
