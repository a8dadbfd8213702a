"""The rules `slow`, `tokens` and `new_error` over kills, takeovers, reloads and faults of the store."""

import os
from collections.abc import AsyncIterator
from random import Random

import pytest
from insight_model import BEGUN_S, MIDNIGHT_S, Watched, api_of, check
from parameters import seeds
from postgres import PostgresServer
from stores import open_soon
from virtual import FakeClock

from watcher.store.sql_store import SqlStore

pytestmark = pytest.mark.ci  # each takes over a second
BY_SEED = pytest.mark.parametrize("seed", seeds(ci=5, soak=int(os.environ.get("RULES_SEEDS", "60"))))


@BY_SEED
async def test_whatever_happens_each_is_reported_once_and_is_right(
    store: SqlStore, clock: FakeClock, seed: int
) -> None:
    await _check(store, clock, seed=seed)


@pytest.fixture
async def postgres_store(postgres: PostgresServer, clock: FakeClock) -> AsyncIterator[SqlStore]:
    with postgres.database() as url:
        store = await open_soon(url, clock=clock)
        yield store
        await store.close()


@BY_SEED
async def test_each_is_reported_once_and_is_right_on_postgresql(
    postgres_store: SqlStore, clock: FakeClock, seed: int
) -> None:
    await _check(postgres_store, clock, seed=seed)


async def _check(store: SqlStore, clock: FakeClock, *, seed: int) -> None:
    draw = Random(seed)
    clock.advance(BEGUN_S - clock.monotonic())
    api = api_of(draw, clock, offset_s=(-1200.0, 0.0, 30.0)[seed % 3])
    watched = Watched(store, clock, draw, api, draw.choice([2_000, 20_000, 60_000, 200_000]))
    await watched.start()
    while clock.monotonic() < MIDNIGHT_S + 300.0:
        await watched.run_for(draw.uniform(3, 40))
        match draw.choice(["kill", "downtime", "reload", "takeover", "faults", "nothing"]):
            case "kill":
                watched.faulty.dies_in, watched.faulty.writes_last = draw.randrange(12), draw.random() < 0.5
            case "downtime":
                await watched.stop()
                clock.stop_for(draw.choice([1, 20, 150]))
                await watched.start()
            case "reload":
                await watched.reload()
            case "takeover":
                await watched.be_overtaken()
            case "faults":
                watched.faulty.fails = 0.3
                await watched.run_for(draw.uniform(3, 20))
                watched.faulty.fails = 0.0
    watched.faulty.dies_in = None
    await watched.run_for(max(30.0, MIDNIGHT_S + 560.0 - clock.monotonic()))
    await check(watched)
