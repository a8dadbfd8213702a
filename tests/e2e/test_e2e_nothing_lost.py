"""Whatever ends, hangs or fills up, nothing is lost, nothing is out of order, and repetitions are the same bytes."""

import asyncio
import json
import resource
import socket
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from copies import engine_of
from e2e import checks
from e2e.endpoint import Attempt, refusing_some, take
from e2e.programme import PATIENCE_S, Life, outcome_of, page, ready
from e2e.stage import ENDS, Document, Stage, all_have_ended, document_of, grouped, webhook, world_of
from postgres import PostgresServer
from sqlalchemy import text

from watcher.runtime.clock import Clock
from watcher.simulator.faults import Faults
from watcher.simulator.scenarios import CALM, HARSH, pipeline_named
from watcher.simulator.server import Simulator
from watcher.simulator.world import BRISK, World, make_lifecycle

LONGEST_LIFE_S = 3.0
RATE = 20
"""Low enough that a pause of a busy machine, after which requests come together, stays within the margin."""


def printed(lives: Sequence[Life]) -> list[bytes]:
    return list(dict.fromkeys(line for life in lives for line in life.emitted))


def events_of(lives: Sequence[Life]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed(lives)]


@pytest.mark.parametrize(
    ("stage", "rounds", "count"),
    [
        pytest.param("sqlite", 2, 30, marks=pytest.mark.ci),
        pytest.param("postgres", 3, 40, marks=pytest.mark.ci),
        pytest.param("sqlite", 20, 200, marks=pytest.mark.soak),
        pytest.param("postgres", 50, 200, marks=pytest.mark.soak),
    ],
    indirect=["stage"],
)
async def test_a_kill_at_any_moment_loses_nothing_in_a_group_neither(
    stage: Stage, rounds: int, count: int, request: pytest.FixtureRequest
) -> None:
    is_shared = stage.store_url.startswith("postgresql")
    postgres = request.getfixturevalue("postgres") if is_shared else None
    simulator = await stage.simulator(world_of(count, ends_after_s=2.0, ends_within_s=rounds * LONGEST_LIFE_S))
    receiver, of_groups = [await stage.receiver(refusing_some(stage.dice, taken=4)) for _ in range(2)]
    sinks = {"ops": webhook(receiver), "groups": grouped(of_groups, wait_s=0.3, most=20)}
    document = document_of({"default": simulator}, sinks, rate_limit=f"{RATE}/s")

    for _ in range(rounds):
        life = await stage.start(document)
        await asyncio.sleep(stage.dice.uniform(0, LONGEST_LIFE_S))
        await life.kill()
        if postgres is not None:  # else most lives would do nothing but wait until the leases have run out
            await asyncio.to_thread(postgres.run, "UPDATE lease SET until = 0", stage.store_url)
    of_groups.choose = take
    last = await stage.start(document)

    def everywhere() -> list[list[dict[str, Any]]]:
        return [receiver.events(), of_groups.events(), events_of(stage.lives)]

    await last.until(
        lambda: all(all_have_ended(events, simulator.world) for events in everywhere()),
        within_s=rounds * LONGEST_LIFE_S + 60,
        what="every end was reported",
    )
    assert await last.stop() == 0

    assert checks.of_all(simulator, [line for life in stage.lives for line in life.emitted], receiver) == []
    assert (_of_groups(of_groups.attempts), of_groups.forgeries) == ([], [])
    of_executions = {event["id"] for event in events_of(stage.lives) if event["type"].startswith("execution.")}
    assert of_executions <= {event["id"] for event in of_groups.events()}
    assert stage.within_pace(simulator.request_log, rate=RATE)


def _of_groups(attempts: Sequence[Attempt]) -> list[str]:
    """Return what is wrong: a batch that came again with other bytes, or a stream out of order."""
    bodies = {(attempt.headers["webhook-id"], attempt.body) for attempt in attempts}
    twice = [id_ for id_, count in Counter(id_ for id_, _ in bodies).items() if count > 1]
    numbers = defaultdict[tuple[str, str | None], list[int]](list)
    for event in (event for attempt in attempts if attempt.kept for event in attempt.events):
        numbers[event["source"], event.get("subject")].append(int(event["sequence"]))
    firsts = {stream: list(dict.fromkeys(found)) for stream, found in numbers.items()}
    return [*twice, *(str(stream) for stream, found in firsts.items() if found != sorted(found))]


# A whole pipeline: every execution is reported once, however short

TINY = (60, 3, 3.0)
SMALL = (150, 5, 9.0)
LARGE = (2000, 20, 90.0)
"""Executions, pipelines, and the seconds over which they begin."""

MIN_INTERVAL_S = 0.5

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


def of_pipelines(simulator: Simulator, sinks: Document, **polling: object) -> Document:
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


@pytest.mark.parametrize(
    ("stage", "newest_first", "faults", "size"),
    [
        pytest.param("sqlite", True, CALM, TINY, id="newest-calm-tiny"),
        pytest.param("postgres", False, HARSH, SMALL, id="oldest-harsh-postgres", marks=pytest.mark.ci),
        pytest.param("sqlite", True, CALM, LARGE, id="newest-calm-large", marks=pytest.mark.soak),
        pytest.param("postgres", True, HARSH, LARGE, id="newest-harsh-large-postgres", marks=pytest.mark.soak),
        pytest.param("sqlite", False, HARSH, LARGE, id="oldest-harsh-large", marks=pytest.mark.soak),
    ],
    indirect=["stage"],
)
async def test_every_execution_is_reported_once_over_kills(
    stage: Stage, size: tuple[int, int, float], faults: Faults, *, newest_first: bool
) -> None:
    count, pipelines_count, span_s = size
    world = world_with(count, pipelines_count, span_s, newest_first=newest_first, seed=stage.dice.randrange(1000))
    simulator, receiver = await stage.simulator(world, faults=faults), await stage.receiver()
    settings = of_pipelines(simulator, {"ops": webhook(receiver)})
    for _ in range(3):
        life = await stage.start(settings)
        await asyncio.sleep(span_s / 4 + stage.dice.uniform(0, 1))
        await life.kill()
    last = await stage.start(settings)
    await last.until(
        lambda: all(all_have_ended(events, world) for events in (receiver.events(), events_of(stage.lives))),
        within_s=EMITTED_WITHIN_S,
        what="every end was reported",
    )
    assert await last.stop() == 0

    assert checks.of_all(simulator, printed(stage.lives), receiver) == []
    emitted = Counter(event["subject"] for event in receiver.events() if event["type"] in ENDS)
    assert set(emitted.values()) == {1}
    assert receiver.events("pipeline.gap") == []
    assert stage.within_pace(simulator.request_log, rate=RATE)
    assert await asyncio.to_thread(counted_in, stage) == true_counts(world)


Counts = dict[str, list[int]]
"""Executions that started, succeeded and failed, by pipeline. In which hour is not judged: one may begin
meanwhile, and an API's `Date` says to a second which of its dates are before it."""

COUNTED = text(
    "SELECT name, sum(started), sum(success), sum(failed) FROM pipeline_hour JOIN source ON source.id = pipeline_id"
    " GROUP BY name"
)


def counted_in(stage: Stage) -> Counts:
    """Return what the store has counted."""
    engine = engine_of(stage.store_url.replace("sqlite:///", f"sqlite:///{stage.folder}/"))
    with engine.connect() as connection:
        found = connection.execute(COUNTED).all()
    engine.dispose()
    return {row.name.partition("/")[2]: list(map(int, row[1:])) for row in found}


def true_counts(world: World) -> Counts:
    """Return what a list of the API shows."""
    counts = defaultdict[str, list[int]](lambda: [0, 0, 0])
    for each in world.executions():
        counts[each.pipeline.id][0] += 1
        counts[each.pipeline.id][2 if each.phase_at(world.now_s()).status == "failed" else 1] += 1
    return dict(counts)


# A store that has no room, or is not there, and a reader that leaves


@pytest.mark.ci
async def test_a_store_without_room_loses_nothing_nor_does_a_second_daemon_until_it_is_deleted(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(20, ends_after_s=8.0, ends_within_s=25.0))
    receiver = await stage.receiver()
    document = document_of({"default": simulator}, {"ops": webhook(receiver)}, rate_limit=f"{RATE}/s")
    life = await stage.start(document)
    pages = await life.started()
    await life.until(lambda: len(receiver.events()) >= 20, what="every execution was reported")

    no_limit = resource.prlimit(life.pid, resource.RLIMIT_FSIZE)
    room = (stage.folder / "watcher.db-wal").stat().st_size
    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (room, no_limit[1]))
    await life.until(lambda: life.logged("store.failed"), what="the store had no room")
    emitted_count = len(receiver.events())
    async with asyncio.timeout(PATIENCE_S):  # a small write may still find room, and maintenance not have run
        while "not ok: the store cannot be written\n" not in (await page(f"{pages}/readyz?verbose"))[1]:
            await asyncio.sleep(0.05)
    assert await page(f"{pages}/livez") == (200, "ok\n")
    async with asyncio.timeout(PATIENCE_S):
        while "\nwatcher_store_up 0.0\n" not in (await page(f"{pages}/metrics"))[1]:
            await asyncio.sleep(0.05)
    resource.prlimit(life.pid, resource.RLIMIT_FSIZE, no_limit)
    await ready(pages)
    assert "\nwatcher_store_up 1.0\n" in (await page(f"{pages}/metrics"))[1]

    second = await outcome_of("run", "--config", str(stage.write(document)), folder=stage.folder)
    assert (second.code, second.stdout) == (1, "")
    assert f"in use by pid {life.pid} on {socket.gethostname()}" in second.stderr
    await life.until(lambda: all_have_ended(receiver.events(), simulator.world), what="all was reported")
    await life.until(lambda: all_have_ended(life.events(), simulator.world), what="all was printed")
    assert emitted_count < len(receiver.events())
    assert checks.of_all(simulator, life.emitted, receiver) == []
    (stage.folder / "watcher.db").unlink()
    assert await life.end() == 2
    assert "watcher.db was deleted or moved while it was in use" in life.stderr.lines.everything().decode()


OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"


@pytest.mark.ci
async def test_a_server_that_restarts_and_ends_connections_loses_nothing(
    postgres_stage: Stage, postgres: PostgresServer
) -> None:
    stage = postgres_stage
    simulator = await stage.simulator(world_of(60, ends_within_s=8.0))
    receiver = await stage.receiver()
    life = await stage.start(document_of({"default": simulator}, {"ops": webhook(receiver)}))
    await life.started()
    database = stage.store_url.partition("@/")[2].partition("?")[0]
    for count in (20, 60):
        await life.until(lambda count=count: len(receiver.events()) >= count, what=f"{count} arrived")  # type: ignore[misc]
        await asyncio.to_thread(postgres.run, OTHERS.format(database))
        await asyncio.to_thread(postgres.stop)
        await life.until(lambda: life.logged("store.failed"), what="it missed the server")
        await asyncio.to_thread(postgres.start)
    await life.until(
        lambda: all(all_have_ended(events, simulator.world) for events in (receiver.events(), life.events())),
        what="all was reported",
    )
    assert await life.stop() == 0
    assert checks.of_all(simulator, life.emitted, receiver) == []
