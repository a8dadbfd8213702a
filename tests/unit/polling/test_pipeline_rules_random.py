"""Rules over restarts, kills, downtimes and reloads, in virtual time: a reference that reads stdout finds the same."""

import os
from collections.abc import AsyncIterator
from random import Random

import pytest
from list_model import ModelApi, newest
from parameters import seeds
from postgres import PostgresServer
from rules_model import Pipeline, expected, expected_silence, jumps_of, lives_of, read, rule_of
from stores import open_soon
from virtual import FakeClock

from watcher.store.sql_store import SqlStore

BY_SEED = pytest.mark.parametrize("seed", seeds(ci=5, soak=int(os.environ.get("RULES_SEEDS", "60"))))


@BY_SEED
async def test_whatever_happens_problems_open_and_close_as_stdout_says_each_once(
    store: SqlStore, clock: FakeClock, seed: int
) -> None:
    await _check_problems(store, clock, seed=seed)


@pytest.fixture
async def postgres_store(postgres: PostgresServer, clock: FakeClock) -> AsyncIterator[SqlStore]:
    with postgres.database() as url:
        store = await open_soon(url, clock=clock)
        yield store
        await store.close()


@pytest.mark.ci
@BY_SEED
async def test_problems_open_and_close_as_stdout_says_on_postgresql(
    postgres_store: SqlStore, clock: FakeClock, seed: int
) -> None:
    await _check_problems(postgres_store, clock, seed=seed)


async def _check_problems(store: SqlStore, clock: FakeClock, *, seed: int) -> None:
    draw = Random(seed)
    lives = lives_of(draw, until_s=2400.0)
    api = ModelApi(clock, lives=lives, orders=((0.0, newest),), offset_s=(-1200.0, 0.0, 30.0)[seed % 3])
    api.clock_set = jumps_of(Random(f"{seed}/clock"))
    pipeline = Pipeline(store, clock, draw, api, rule_of(draw))
    await pipeline.start()
    while clock.monotonic() < 1250.0:
        await pipeline.run_for(draw.uniform(3, 40))
        match draw.choice(["kill", "downtime", "reload", "nothing"]):
            case "kill":
                pipeline.mortal.dies_in, pipeline.mortal.writes_last = draw.randrange(12), draw.random() < 0.5
            case "downtime":
                await pipeline.stop()
                clock.stop_for(draw.choice([1, 20, 150]))
                await pipeline.start()
            case "reload":
                await pipeline.reload()
    pipeline.mortal.dies_in = None
    await pipeline.run_for(30)
    lines = await read(store, api)
    opening, closing = "pipeline.failing", "pipeline.recovered"
    edges = [line for line in lines if line.type in {opening, closing}]
    wanted = expected(lines, pipeline.history)
    assert [(line.type, line.data["problem"]["count"]) for line in edges] == [(each[0], each[2]) for each in wanted]
    opened = [line.data["execution"]["id"] for line in edges if line.type == opening]
    assert opened == [id_ for type_, id_, _ in wanted if type_ == opening]
    ids = [line.data["problem"]["id"] for line in edges]
    assert ids[1::2] == ids[::2][: len(ids[1::2])]
    assert len(set(ids)) == len(opened)
    silence = [line.type for line in lines if line.type in {"pipeline.silent", "pipeline.active"}]
    assert silence == expected_silence(lines, pipeline.history, lives, api)
    ended = [line.data["execution"]["id"] for line in lines if line.type in {"execution.success", "execution.failed"}]
    assert len(ended) == len(set(ended)) > 0
