"""What a watcher counts in the history of a pipeline, in virtual time, against the list that it reads."""

import asyncio
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from copies import copy
from list_model import HOUR_S, Fault, Life, Lists, ModelApi, lives
from postgres import PostgresServer
from stores import claim, open_soon, pipeline_change, release
from virtual import DAY_US, EPOCH, PIPELINE, WHOLE, FakeClock, Start, name_of, pages_of, said

from watcher.domain.event import GapReason
from watcher.domain.execution import ExecutionSnapshot, FailedNode, Outcome
from watcher.domain.history import HOUR_US, Totals
from watcher.domain.timestamps import Micros, to_us
from watcher.domain.watch import Cursor
from watcher.store.sql_store import SqlStore
from watcher.web.history import PipelineHistory, load_history

BEGIN = EPOCH + timedelta(seconds=1000)
NAME = f"default/{PIPELINE}"


async def history_of(store: SqlStore) -> PipelineHistory:
    return await load_history(store, NAME, since=Micros(0))


def ended(execution: str, status: str, *, hours_ago: float, ran_s: float = 8.0, **more: object) -> ExecutionSnapshot:
    finished_at = BEGIN - timedelta(hours=hours_ago)
    dates = {"started_at": finished_at - timedelta(seconds=ran_s), "finished_at": finished_at}
    return said(execution, status, **dates, **more)


async def test_the_history_that_a_first_scan_finds_counts_when_it_was_and_is_known_for_lookback(start: Start) -> None:
    account = await start(watches=[WHOLE])
    rows = [
        ended(name_of(2), "failed", hours_ago=0.1, error="boom"),
        ended(name_of(1), "success", hours_ago=30, ai_tokens_used=7.0),
        ended(name_of(3), "success", hours_ago=8 * 24),  # before `lookback`: others of that time are on no page
    ]
    account.api.pages = pages_of(*rows)
    assert await account.events(after_s=5) == []
    found = await history_of(account.store)
    (at, old), (_, new) = sorted(found.hours.items())
    assert at == (to_us(BEGIN) - 30 * HOUR_US) // HOUR_US * HOUR_US
    assert (old.success, old.started, old.tokens, new.failed) == (1, 1, 7, 1)
    assert old.quantile(0.5) == pytest.approx(8.0, rel=0.05)
    assert [(each.node, each.text) for each, _ in found.errors] == [(None, "boom")]
    assert found.known_from == pytest.approx(to_us(BEGIN) - 7 * DAY_US, abs=1_000_000)
    account = await start(watches=[WHOLE], api=account.api)  # a restart counts nothing again
    await account.run_for(5)
    assert (await history_of(account.store)) == found


async def test_a_failure_counts_with_the_node_that_a_get_names(start: Start) -> None:
    account = await start(watches=[WHOLE])
    account.api.pages = pages_of(said(name_of(1), "running"))
    await account.run_for(5)
    node = FailedNode("n", "Greeting", "no answer")
    account.api.script[name_of(1)] = ended(name_of(1), "failed", hours_ago=-0.001, failed_nodes=(node,))
    account.api.pages = pages_of(ended(name_of(1), "failed", hours_ago=-0.001))
    await account.run_for(15)
    found = await history_of(account.store)
    assert [(each.node, each.text, each.failed_count) for each, _ in found.errors] == [("Greeting", "no answer", 1)]
    assert sum(hour.failed for hour in found.hours.values()) == 1


async def test_what_is_given_up_as_lost_counts_as_started_and_not_as_an_end(start: Start) -> None:
    account = await start(name_of(1), name_of(2))
    await account.run_for(5)
    account.api.script[name_of(1)] = Outcome.NOT_FOUND
    await account.run_for(25 * HOUR_S)
    totals = Totals()
    for hour in (await history_of(account.store)).hours.values():
        totals.add(hour)
    assert (totals.started, totals.ended) == (2, 0)


async def test_after_a_downtime_beyond_lookback_history_begins_there(start: Start, clock: FakeClock) -> None:
    account = await start(watches=[WHOLE])
    account.api.pages = pages_of(ended(name_of(1), "success", hours_ago=1))
    await account.run_for(5)
    clock.advance(9 * 24 * HOUR_S)
    account = await start(watches=[WHOLE], api=account.api)
    rows = [ended(name_of(number), "success", hours_ago=-24 * number) for number in range(8, 0, -1)]
    account.api.pages = pages_of(*rows)
    (gap,) = [each for each in await account.events(after_s=20) if each["type"] == "pipeline.gap"]
    assert gap["data"]["reason"] == GapReason.LOOKBACK
    known_from = (await history_of(account.store)).known_from
    assert known_from == pytest.approx(clock.steady_us() - 7 * DAY_US, abs=60_000_000)


async def test_the_history_of_an_upgraded_pipeline_begins_then(start: Start, store: SqlStore, clock: FakeClock) -> None:
    account = await claim(store, "account", "default")
    an_hour_ago = Micros(clock.steady_us() - HOUR_US)
    await store.record(pipeline_change(account, cursor=Cursor(an_hour_ago, an_hour_ago, ahead_us=0)))
    watcher = await start(watches=[WHOLE])
    await watcher.run_for(5)
    assert (await history_of(store)).known_from == pytest.approx(clock.steady_us(), abs=10_000_000)


def truth(several: list[Life]) -> dict[int, tuple[int, int, int]]:
    """Return how many started, succeeded and failed in each hour."""

    def hour(at_s: float) -> int:
        return (to_us(EPOCH) + round(at_s * 1e6)) // HOUR_US * HOUR_US

    started = Counter(hour(each.begins_s) for each in several)
    success, failed = (Counter(hour(each.ends_s) for each in several if each.fails is fails) for fails in (False, True))
    return {at: (started[at], success[at], failed[at]) for at in started | success | failed}


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(("sqlite", "postgresql"), marks=pytest.mark.ci),
        pytest.param(("postgresql", "sqlite"), marks=pytest.mark.soak),
    ],
)
async def test_after_half_an_hour_of_faults_and_kills_and_a_move_to_the_other_database_the_hours_are_those_of_the_list(
    kinds: tuple[str, str], tmp_path: Path, postgres: PostgresServer
) -> None:
    clock, random = FakeClock(), Random(kinds[0])
    several = lives(150, from_s=-3 * HOUR_S, until_s=990.0, length_s=300.0, fails=False)
    several += lives(350, from_s=1000.0, until_s=1000.0 + 0.5 * HOUR_S, length_s=40.0)
    several = [replace(each, fails=random.random() < 0.3) for each in several]
    api = ModelApi(clock, lives=several)
    api.fault = lambda _count, _page: random.choice([Fault.NONE] * 40 + [Fault.STALE, Fault.CUT, Fault.EMPTY])
    with ExitStack() as stack:
        postgresql = stack.enter_context(postgres.database())
        urls = [f"sqlite:///{tmp_path}/w.db" if kind == "sqlite" else postgresql for kind in kinds]
        for url in urls:
            if url is urls[1]:
                copy(urls[0], urls[1])
            store = await open_soon(url, clock=clock)
            for _ in range(4):
                account = await Lists(store, clock).watch(api)  # it takes the account over from the one before
                await account.run_for(random.uniform(60, 240))
                api.default = random.choice([Outcome.TIMEOUT, Outcome.SERVER_ERROR, Outcome.RATE_LIMITED])
                await account.run_for(random.uniform(5, 60))
                api.default = None
                await account.watcher.tick()  # it is killed while requests are on their way
                killed = set(account.watcher._tasks)
                for task in killed:
                    task.cancel()
                await asyncio.gather(*killed, return_exceptions=True)
            if url is urls[1]:
                account = await Lists(store, clock).watch(api)
                await account.run_for(1000.0 + 0.6 * HOUR_S - clock.elapsed_s)
                found = await history_of(store)
                counted = {at: (each.started, each.success, each.failed) for at, each in found.hours.items()}
                assert counted == truth(several)
                assert found.known_from is not None
                assert sum(each.failed_count for each, _ in found.errors) == sum(each.fails for each in several)
            await release(store)
            await store.close()
