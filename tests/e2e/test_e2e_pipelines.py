"""Whole pipelines: every execution is reported once, however short, over faults, restarts and `kill -9`."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from copies import engine_of
from e2e import checks
from e2e.programme import PATIENCE_S, Life, page
from e2e.stage import ENDS, FAILING, Document, Stage, document_of, webhook
from sqlalchemy import text

from watcher.runtime.clock import Clock
from watcher.simulator.faults import Faults
from watcher.simulator.scenarios import CALM, HARSH, pipeline_named
from watcher.simulator.server import Simulator
from watcher.simulator.world import BRISK, Kind, World, make_lifecycle

TINY = (60, 3, 3.0)
SMALL = (300, 6, 15.0)
LARGE = (2000, 20, 90.0)
"""Executions, pipelines, and the seconds over which they begin."""

MIN_INTERVAL_S = 0.5
RATE = 20
"""Low enough that a pause of a busy machine, after which requests come together, stays within the margin."""

EMITTED_WITHIN_S = 360.0
"""After the last start, which in a large world falls into the 15 s in which `HARSH` refuses the key.

So the next request is a minute later, and another for each try that fails for another reason (one in four). Of
the time that is left, 503 for everything takes 20 s, and 10 s more for each try after it that fails.
"""


def world_with(count: int, pipelines_count: int, span_s: float, *, newest_first: bool, seed: int) -> World:
    """Return a world in which executions begin over a span; half of them are over before a list is read again."""
    world, dice = World(Clock(), newest_first=newest_first), Random(f"{seed}/pipelines")
    pipelines = [pipeline_named(f"Pipeline {number}", seed=seed) for number in range(pipelines_count)]
    for index in range(count):
        lifecycle = make_lifecycle(seed, index=index, pace=BRISK)
        length_s = dice.uniform(0.05, MIN_INTERVAL_S) if index % 2 else dice.uniform(1.0, 10.0)
        lifecycle = lifecycle.stretched(length_s / lifecycle.length_s())
        world.add(lifecycle, pipeline=pipelines[index % pipelines_count], begins_s=dice.uniform(0.0, span_s))
    return world


def document(simulator: Simulator, sinks: Document, **polling: object) -> Document:
    watched = [{"pipeline": pipeline.id, "account": "default"} for pipeline in simulator.world.pipelines.values()]
    whole = document_of({"default": simulator}, sinks, rate_limit=f"{RATE}/s") | {"watch": watched}
    whole["polling"] = {
        "min_interval": f"{MIN_INTERVAL_S * 1000:g}ms",
        "max_interval": "5s",
        "lost_grace": "2s",
        "degraded_after": "5s",
        "first_sight": "notify",
    } | polling
    return whole


def ended_count(events: Sequence[dict[str, Any]]) -> int:
    return len({event["subject"] for event in events if event["type"] in ENDS})


def printed(lives: Sequence[Life]) -> list[bytes]:
    return list(dict.fromkeys(line for life in lives for line in life.emitted))


@pytest.mark.parametrize(
    ("stage", "newest_first", "faults", "size"),
    [
        pytest.param("sqlite", True, CALM, TINY, id="newest-calm-tiny"),
        pytest.param("sqlite", True, CALM, SMALL, id="newest-calm", marks=pytest.mark.ci),
        pytest.param("sqlite", False, HARSH, SMALL, id="oldest-harsh", marks=pytest.mark.ci),
        pytest.param("postgres", False, HARSH, SMALL, id="oldest-harsh-postgres", marks=pytest.mark.ci),
        pytest.param("sqlite", True, CALM, LARGE, id="newest-calm-large", marks=pytest.mark.soak),
        pytest.param("sqlite", True, HARSH, LARGE, id="newest-harsh-large", marks=pytest.mark.soak),
        pytest.param("postgres", True, HARSH, LARGE, id="newest-harsh-large-postgres", marks=pytest.mark.soak),
        pytest.param("sqlite", False, CALM, LARGE, id="oldest-calm-large", marks=pytest.mark.soak),
        pytest.param("sqlite", False, HARSH, LARGE, id="oldest-harsh-large", marks=pytest.mark.soak),
    ],
    indirect=["stage"],
)
async def test_every_execution_is_reported_once_over_kills(
    stage: Stage, size: tuple[int, int, float], faults: Faults, *, newest_first: bool
) -> None:
    count, pipelines_count, span_s = size
    simulator = await stage.simulator(
        world_with(count, pipelines_count, span_s, newest_first=newest_first, seed=stage.dice.randrange(1000)),
        faults=faults,
    )
    receiver = await stage.receiver()
    settings = document(simulator, {"ops": webhook(receiver)})
    for _ in range(3):
        life = await stage.start(settings)
        await asyncio.sleep(span_s / 4 + stage.dice.uniform(0, 1))
        await life.kill()
    last = await stage.start(settings)
    await last.until(
        lambda: ended_count(receiver.events()) == ended_count([e for x in stage.lives for e in x.events()]) == count,
        within_s=EMITTED_WITHIN_S,
        what="every end was reported",
    )
    assert await last.stop() == 0

    assert checks.of_all(simulator, printed(stage.lives), receiver) == []
    emitted = Counter(event["subject"] for event in receiver.events() if event["type"] in ENDS)
    assert set(emitted.values()) == {1}
    assert receiver.events("pipeline.gap") == []
    assert stage.within_pace(simulator, rate=RATE)
    assert await asyncio.to_thread(counted_in, stage) == true_counts(simulator.world)


Counts = dict[str, list[int]]
"""Executions that started, succeeded and failed, by pipeline. In which hour is not judged: one may begin
meanwhile, and an API's `Date` says to a second which of its dates are before it."""


def counted_in(stage: Stage) -> Counts:
    """Return what the store has counted."""
    url = stage.store_url.replace("sqlite:///", f"sqlite:///{stage.folder}/")
    engine = engine_of(url)
    with engine.connect() as connection:
        found = connection.execute(COUNTED).all()
    engine.dispose()
    return {row.name.partition("/")[2]: list(map(int, row[1:])) for row in found}


COUNTED = text(
    "SELECT name, sum(started), sum(success), sum(failed) FROM pipeline_hour JOIN source ON source.id = pipeline_id"
    " GROUP BY name"
)


def true_counts(world: World) -> Counts:
    """Return what a list of the API shows."""
    counts = defaultdict[str, list[int]](lambda: [0, 0, 0])
    for each in world.executions():
        counts[each.pipeline.id][0] += 1
        counts[each.pipeline.id][2 if each.phase_at(world.now_s()).status == "failed" else 1] += 1
    return dict(counts)


async def status_of(life: Life) -> tuple[str, str]:
    """Return the last ends of the only pipeline, and when its owner last wrote them down."""
    _, text = await page(f"{await life.started()}/api/v1/status")
    status = json.loads(text)
    return "".join(end[0] for end in status["pipelines"][0]["ends"]), status["accounts"][0].get("asOf", "")


async def strip_of(life: Life, *, count: int, since: str = "") -> tuple[str, str]:
    """Return the same once so many ends were written down, by this process."""
    async with asyncio.timeout(PATIENCE_S):
        while len((found := await status_of(life))[0]) < count or found[1] <= since:
            await asyncio.sleep(0.05)
    return found


@pytest.mark.ci
@pytest.mark.parametrize("stage", ["sqlite", "postgres"], indirect=True)
async def test_the_last_ends_are_shown_by_end_time_after_a_kill_too(stage: Stage) -> None:
    truth, world = "fss" * 10, World(Clock())
    for index, end in enumerate(truth):
        kind = Kind.FAILING if end == "f" else Kind.QUICK
        lifecycle = make_lifecycle(1, index=index, kind=kind, pace=BRISK)
        world.add(lifecycle.stretched(0.5 / lifecycle.length_s()), pipeline=FAILING, begins_s=index - 60.0)
    settings = document(await stage.simulator(world), {}, details="failed")
    first = await stage.start(settings)
    ends, written_at = await strip_of(first, count=len(truth))
    assert ends == truth
    assert [event["type"][10] for event in first.events()] != list(truth), "they were recorded in another order"
    await first.kill()
    second = await stage.start(settings)
    assert (await strip_of(second, count=len(truth), since=written_at))[0] == truth
    assert await second.stop() == 0
