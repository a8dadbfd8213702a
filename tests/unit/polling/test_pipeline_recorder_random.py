"""Rules over restarts, kills, downtimes, reloads, takeovers and faults: who reads stdout finds the same."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from pathlib import Path
from random import Random

import insight_model
import pytest
from list_model import ModelApi, newest
from parameters import seeds
from rules_model import Pipeline, expected, expected_silence, jumps_of, lives_of, read, rule_of
from stores import open_soon
from virtual import FakeClock

from watcher.store.sql_store import SqlStore

BY_SEED = pytest.mark.parametrize("seed", seeds(ci=1, soak=int(os.environ.get("RULES_SEEDS", "60"))))
OFFSETS_S = (-1200.0, 0.0, 30.0)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.ci)])
def place(request: pytest.FixtureRequest, path: Path) -> Iterator[Path | str]:
    with nullcontext(path) if request.param == "sqlite" else request.getfixturevalue("postgres").database() as place:
        yield place


@pytest.fixture
async def either(place: Path | str, clock: FakeClock) -> AsyncIterator[SqlStore]:
    """Open a store of either database."""
    store = await open_soon(place, clock=clock)
    yield store
    await store.close()


@BY_SEED
async def test_problems_open_and_close_as_stdout_says_each_once(either: SqlStore, clock: FakeClock, seed: int) -> None:
    draw, until_s = Random(seed), 1250.0 if seed else 1060.0
    lives = lives_of(draw, until_s=2400.0)
    api = ModelApi(clock, lives=lives, orders=((0.0, newest),), offset_s=OFFSETS_S[seed % 3])
    api.clock_set = jumps_of(Random(f"{seed}/clock"))
    pipeline = Pipeline(either, clock, draw, api, rule_of(draw))
    await pipeline.start()
    while clock.monotonic() < until_s:
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
    lines = await read(either, api)
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


@BY_SEED
async def test_what_is_slow_expensive_or_a_new_error_is_reported_once(
    either: SqlStore, clock: FakeClock, seed: int
) -> None:
    draw, until_s = Random(seed), insight_model.MIDNIGHT_S + (300.0 if seed else 15.0)
    clock.advance(insight_model.BEGUN_S - clock.monotonic())
    api = insight_model.api_of(draw, clock, offset_s=OFFSETS_S[seed % 3])
    watched = insight_model.Watched(either, clock, draw, api, draw.choice([2_000, 20_000, 60_000, 200_000]))
    await watched.start()
    while clock.monotonic() < until_s:
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
    await watched.run_for(max(30.0, until_s + 45.0 - clock.monotonic()))
    await insight_model.check(watched)
