"""How long API and pages take to answer over a store with very much in it, on both databases.

100,000 executions are open, 400,000 have ended, of 20, 100 or 1,000 pipelines; each has two events, and each event a
delivery to two sinks. A few wait, a few are dead, 250 of 100,000 problems are open. 1,000 pipelines have 90 days of
history. Nothing is recorded while it is measured.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from hashlib import blake2b
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import psycopg
from aiohttp import ClientSession
from console_rig import StandInOperator, unserved
from postgres import postgres_server
from sample_events import PIPELINE as FIRST
from sample_metrics import busy_pipeline
from sqlalchemy import create_engine, text

from bench.figures import Figure, at_most, shown
from bench.workspaces import fill
from watcher.config.models import Settings
from watcher.domain.event import EventType
from watcher.domain.history import DAY_US, HOUR_US
from watcher.domain.snapshots import ENDS_COUNT, AccountSnapshot, PipelineSnapshot, SinkSnapshot
from watcher.domain.timestamps import Micros
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import AccountMetrics, Metrics
from watcher.runtime.units import Address
from watcher.store.sql_store import open_store
from watcher.web.access import access
from watcher.web.health import Checks, health_routes
from watcher.web.pages import page_routes
from watcher.web.routes import API, api_routes
from watcher.web.server import HttpServer

PIPELINES_COUNTS = (20, 100, 1_000)
EVENT_PIPELINES_COUNT = 20
HISTORY_PIPELINES_COUNT, HISTORY_DAYS, KINDS_COUNT = 1_000, 90, 5
OPEN_COUNT, EXECUTIONS_COUNT = 100_000, 500_000
PROBLEMS_COUNT, OPEN_PROBLEMS_COUNT = 100_000, 250
WAITING_COUNT, DEAD_COUNT = 200, 5_000
SECOND_US = 1_000_000
COLUMNS: Mapping[str, str] = {
    "source": "id kind name state",
    "execution": (
        "account_id execution pipeline_id status since_at looked_at sequence counts ended_at was_paused stream found_at"
        " finished_at"
    ),
    "event": (
        "id event_id stream sequence type source_id pipeline_id execution recorded_at account pipeline labels"
        " problem_id closes body"
    ),
    "delivery": "number sink_id lane state recorded_at due_at attempts settled_at answer tried",
    "scan": "account_id pipeline_id since_at complete_at found dated known_from",
    "pipeline_hour": "pipeline_id from_at started success failed unrecognized tokens durations",
    "pipeline_day": "pipeline_id from_at started success failed unrecognized tokens durations",
    "error_kind": "pipeline_id from_at fingerprint failed_count node text first_at last_at",
    "problem": "id kind source_id pipeline_id execution opened_at closed_at stream sequence",
}
Row = tuple[Any, ...]


def _key(*words: object) -> bytes:
    return blake2b("/".join(map(str, words)).encode(), digest_size=16).digest()


def pipeline_id(nth: int) -> str:
    return FIRST if nth == 0 else str(UUID(bytes=_key("pipeline", nth)))


def _labels(nth: int) -> dict[str, str]:
    return {"team": f"team-{nth % 4}"}


def _id_of(number: int) -> str:
    return str(UUID(bytes=_key("execution", number)))


def _body(type_: str, number: int, pipeline: str, nth: int) -> bytes:
    data = {
        "account": "default",
        "labels": _labels(nth),
        "pipeline": {"id": pipeline, "name": f"Agent {nth}"},
        "execution": {
            "id": _id_of(number),
            "status": type_.partition(".")[2],
            "startedAt": "2026-11-24T10:00:00.000Z",
            "finishedAt": "2026-11-24T10:02:31.000Z",
            "failedNodes": [{"name": "Greeting", "error": "upstream timeout after 30 s " * 4}],
            "goals": ["Booked appointment"] * 5,
        },
        "observed": {"at": "2026-11-24T10:02:31.000Z", "notBefore": "2026-11-24T10:02:21.000Z", "delaySeconds": 0.8},
    }
    envelope = {"id": str(UUID(bytes=_key(type_, number))), "type": type_, "time": "2026-11-24T10:02:31.000Z"}
    envelope |= {"specversion": "1.0", "source": f"/accounts/default/pipelines/{pipeline}", "sequence": "0000000002"}
    return json.dumps(envelope | {"data": data}).encode()


def _sources(pipelines_count: int) -> Iterator[Row]:
    yield from ((1, "account", "default", None), (2, "sink", "console", None), (3, "sink", "ops", None))
    for nth in range(pipelines_count):
        yield 10 + nth, "pipeline", f"default/{pipeline_id(nth)}", None


def _status(number: int) -> str:
    if number > EXECUTIONS_COUNT - OPEN_COUNT:
        return "paused" if number % 10 == 0 else "running"
    return "failed" if number % 33 == 0 else "success"


def _since(number: int, now: int) -> int:
    return now - (EXECUTIONS_COUNT - number + 20) * SECOND_US


def _executions(now: int) -> Iterator[Row]:
    for number in range(1, EXECUTIONS_COUNT + 1):
        at = _since(number, now)
        key, status = _key("execution", number), _status(number)
        ended_at = at if number <= EXECUTIONS_COUNT - OPEN_COUNT else None
        about = (status, at, at, 2, "{}", ended_at, False, _key("stream", key), 0, ended_at)
        yield 1, key, 10, *about


def _events(now: int) -> Iterator[Row]:
    for number in range(1, EXECUTIONS_COUNT + 1):
        at = _since(number, now)
        key, nth = _key("execution", number), number % EVENT_PIPELINES_COUNT
        labels = json.dumps(_labels(nth))
        for sequence, status in enumerate(("new", _status(number)), 1):
            id_, type_ = 2 * number - 2 + sequence, f"execution.{status}"
            pipeline = pipeline_id(nth)
            about = (1, 10 + nth, key, at + sequence, "default", pipeline, labels, None, False)
            body = _body(type_, number, pipeline, nth)
            yield id_, _key(id_), _key("stream", key), sequence, type_, *about, body


def _deliveries(now: int) -> Iterator[Row]:
    last = 2 * EXECUTIONS_COUNT
    for number in range(1, last + 1):
        at = now - (last - number + 40) * SECOND_US // 2
        lane = _key("lane", number)
        yield number, 2, lane, "delivered", at, at, 1, at, "", True
        state, answer = "delivered", "200"
        settled_at: int | None = at
        if number % (last // DEAD_COUNT) == 0:
            state, answer = "dead", "503"
        elif number % (last // WAITING_COUNT) == 1:
            state, settled_at, answer = "waiting", None, "503"
        yield number, 3, lane, state, at, at, 3, settled_at, answer, True


def _problems(now: int) -> Iterator[Row]:
    for nth in range(PROBLEMS_COUNT):
        number = EXECUTIONS_COUNT - nth * 5
        key = _key("execution", number)
        closed_at = None if nth % 2 and nth < 2 * OPEN_PROBLEMS_COUNT else now
        about = (1, 10, key, now - nth * SECOND_US, closed_at)
        yield _key("problem", nth), EventType.EXECUTION_OVERDUE.value, *about, _key("stream", key), 2


def _scans(now: int) -> Iterator[Row]:
    for nth in range(HISTORY_PIPELINES_COUNT):
        yield 1, 10 + nth, now, now, True, False, now - HISTORY_DAYS * DAY_US


def _hours(now: int) -> Iterator[Row]:
    return _periods(now // HOUR_US * HOUR_US, HOUR_US, HISTORY_DAYS * 24, 1)


def _days(now: int) -> Iterator[Row]:
    return _periods(now // DAY_US * DAY_US, DAY_US, HISTORY_DAYS + 1, 24)


def _periods(last_at: int, length_us: int, count: int, factor: int) -> Iterator[Row]:
    durations = json.dumps({str(bucket): factor * (1 + bucket % 3) for bucket in range(5, 35)})
    for nth in range(HISTORY_PIPELINES_COUNT):
        counts = (62 * factor, 60 * factor, nth % 3 * factor, 0, 9_000 * factor, durations)
        yield from ((10 + nth, last_at - ago * length_us, *counts) for ago in range(count))


def _error_kinds(now: int) -> Iterator[Row]:
    for nth in range(HISTORY_PIPELINES_COUNT):
        for day in range(HISTORY_DAYS):
            at = now // DAY_US * DAY_US - day * DAY_US
            for kind in range(KINDS_COUNT):
                yield 10 + nth, at, _key("kind", kind), 3 + kind, "Greeting", "upstream timeout after 30 s " * 4, at, at


FILL: Mapping[str, Callable[[int], Iterator[Row]]] = {
    "source": lambda _: _sources(HISTORY_PIPELINES_COUNT),
    "execution": _executions,
    "event": _events,
    "delivery": _deliveries,
    "problem": _problems,
    "scan": _scans,
    "pipeline_hour": _hours,
    "pipeline_day": _days,
    "error_kind": _error_kinds,
}


def fill_sqlite(path: Path, now: int) -> None:
    with closing(sqlite3.connect(path)) as database:
        for table, rows in FILL.items():
            names = COLUMNS[table].split()
            places = ", ".join("?" * len(names))
            database.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", rows(now))
        database.commit()


def fill_postgresql(url: str, now: int) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for table, rows in FILL.items():
            with cursor.copy(f"COPY {table} ({', '.join(COLUMNS[table].split())}) FROM STDIN".encode()) as copy:
                for row in rows(now):
                    copy.write_row(row)


def _snapshots(now: int, pipelines_count: int) -> Iterator[dict[str, Any]]:
    """Yield the row of the account and of each sink: half of the pipelines have something open for a day."""
    at = Micros(now - 86_400 * SECOND_US)
    ends = "sssssf" * (ENDS_COUNT // 6)
    stands = {
        pipeline_id(nth): PipelineSnapshot(
            {"running": 9 * (nth % 2), "paused": nth % 2}, {"running": at} if nth % 2 else {}, ends, at, at, at, at
        )
        for nth in range(pipelines_count)
    }
    for number, stood in (
        (1, AccountSnapshot(3.6, 3.4, 61.0, stands)),
        (2, SinkSnapshot("")),
        (3, SinkSnapshot("503")),
    ):
        yield {"id": number, "at": now + 3_600 * SECOND_US, "body": json.dumps(asdict(stood)).encode()}


ADD_SOURCE = "INSERT INTO source (id, kind, name) VALUES (:id, :kind, :name) ON CONFLICT DO NOTHING"
SPREAD = (
    "UPDATE execution SET pipeline_id = 10 + since_at / 1000000 % :count",
    "UPDATE problem SET pipeline_id = 10 + opened_at / 1000000 % :count",
)


def spread(url: str, now: int, pipelines_count: int) -> None:
    """Have executions and problems be of so many pipelines, no fewer than before, and write how these stand."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        sources = [{"id": id_, "kind": kind, "name": name} for id_, kind, name, _ in _sources(pipelines_count)]
        connection.execute(text(ADD_SOURCE), sources)
        for statement in SPREAD:
            connection.execute(text(statement), {"count": pipelines_count})
        connection.execute(text("DELETE FROM snapshot"))
        rows = list(_snapshots(now, pipelines_count))
        connection.execute(text("INSERT INTO snapshot (source_id, written_at, body) VALUES (:id, :at, :body)"), rows)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM" if engine.dialect.name == "sqlite" else "VACUUM (FULL, ANALYZE)"))
    engine.dispose()


def settings(pipelines_count: int) -> Settings:
    watch = [
        {"pipeline": pipeline_id(nth), "account": "default", "name": f"Agent {nth}", "labels": _labels(nth)}
        for nth in range(pipelines_count)
    ]
    sinks = {"console": {"type": "stdout"}, "ops": {"type": "webhook", "url": "https://hooks.example.com/x"}}
    return Settings.model_validate({"accounts": {"default": {"api_key": "k"}}, "watch": watch, "sinks": sinks})


ENDED = EXECUTIONS_COUNT - OPEN_COUNT - 12
MIDDLE = EXECUTIONS_COUNT - OPEN_COUNT // 2
SEVERAL_COUNT = 24
METRICS = "/metrics"
REPORT_BOUNDS_MS = {"24h": 1_000, "30d": 1_000, "90d": 3_000}
HELD_MS = 50


def requests(now: int, pipelines_count: int) -> Mapping[str, str]:
    """Return the paths that are asked for, by what they show."""
    several = ",".join(map(pipeline_id, range(min(SEVERAL_COUNT, pipelines_count))))
    later = f"o.{_since(MIDDLE, now)}.{_key('execution', MIDDLE).hex()}"
    ended = f"default/{pipeline_id(_since(ENDED, now) // SECOND_US % pipelines_count)}/{_id_of(ENDED)}"
    of_problem = UUID(bytes=_key("problem", 1))
    answers = {
        "status": "/status",
        "executions": "/executions",
        "executions, 200": "/executions?limit=200",
        "executions, 200 in the middle": f"/executions?limit=200&after={later}",
        "executions, paused": "/executions?status=paused&limit=200",
        "executions, failed": "/executions?status=failed&limit=200",
        "executions, unrecognized (none)": "/executions?status=odd",
        "executions of a pipeline": f"/executions?pipeline={FIRST}&limit=200",
        f"executions of {SEVERAL_COUNT} pipelines": f"/executions?pipeline={several}&limit=200",
        f"executions of {SEVERAL_COUNT} pipelines, paused": f"/executions?pipeline={several}&limit=200&status=paused",
        "executions, a label, 200": "/executions?label=team:team-1&limit=200",
        "executions, a label, since 2 h": "/executions?label=team:team-1&since=2h",
        "executions, an id": f"/executions?q={_id_of(ENDED)}",
        "executions, a name": "/executions?q=agent%2011",
        "one execution": f"/executions/{ended}",
        "events from the first": "/events?limit=200",
        "events since 10 min": "/events?since=10m&limit=200",
        "events, failed": "/events?type=execution.failed&limit=200",
        "events, of a type there is none of": "/events?type=pipeline.gap",
        "events of an execution": f"/events?execution={_id_of(ENDED)}",
        "deliveries, 200": "/deliveries?limit=200",
        "deliveries, waiting": "/deliveries?state=waiting&limit=200",
        "deliveries, dead": "/deliveries?state=dead&limit=200",
        "deliveries, silenced (none)": "/deliveries?state=silenced",
        "deliveries, failed": "/deliveries?type=execution.failed&limit=200",
        "deliveries, waiting, of a type there is none of": "/deliveries?state=waiting&type=pipeline.gap",
        "problems": "/problems?limit=200",
        "problems, closed": "/problems?state=closed&limit=200",
        "problems, of a kind there is none of": "/problems?state=all&kind=pipeline.silent",
        "problems, open, of a kind there is none of": "/problems?kind=pipeline.silent",
        "problems, a label, since 2 h": "/problems?state=all&label=team:team-1&since=2h&limit=200",
        "one problem": f"/problems/{of_problem}",
        "history": f"/pipelines/default/{FIRST}/history",
        "history, 30 d": f"/pipelines/default/{FIRST}/history?span=30d",
        "silences": "/silences",
        **{f"report, {span}": f"/report?last={span}" for span in REPORT_BOUNDS_MS},
    }
    pages = {
        "page /": "/",
        "page / sorted by name": "/?sort=name",
        "page /executions": "/executions",
        "page /executions, 200": "/executions?limit=200",
        "page /executions, 200 in the middle": f"/executions?limit=200&after={later}",
        "page /executions, failed": "/executions?status=failed&limit=200",
        "page /executions, a label": "/executions?label=team:team-1",
        "page of an execution": f"/executions/{ended}",
        "page of a pipeline": f"/pipelines/default/{FIRST}",
        "page of a pipeline, 7 d": f"/pipelines/default/{FIRST}?span=7d",
        "page of a pipeline, 30 d": f"/pipelines/default/{FIRST}?span=30d",
        "page /problems": "/problems",
        "page /problems, of a pipeline, 200": f"/problems?pipeline={FIRST}&limit=200",
        "page /problems, open, 200": "/problems?state=open&limit=200",
        "page of a problem": f"/problems/{of_problem}",
        "page /events": "/events",
        "page /events, 200 in the middle": f"/events?limit=200&after={EXECUTIONS_COUNT}",
        "page /events, all since 10 min, 200": "/events?type=*&since=10m&limit=200",
        "page /events, of a type there is none of": "/events?type=pipeline.gap",
        "page /events, a label, 200": "/events?label=team:team-1&limit=200",
        "page /events of an execution": f"/events?execution={_id_of(ENDED)}",
        "page /deliveries": "/deliveries",
        "page /deliveries, 200": "/deliveries?limit=200",
        "page /silences": "/silences",
    }
    return {**{name: f"{API}{path}" for name, path in answers.items()}, **pages, METRICS: METRICS}


def _metrics(pipelines_count: int) -> Metrics:
    metrics = Metrics()
    AccountMetrics(metrics, "default")
    metrics.pipelines["default"] = {pipeline_id(nth): busy_pipeline() for nth in range(pipelines_count)}
    return metrics


async def _note_held(held_ms: list[float]) -> None:
    """Note for how long the event loop did not come to this task, again and again."""
    while True:
        began_at = time.perf_counter()
        await asyncio.sleep(0.001)
        held_ms.append(1000 * (time.perf_counter() - began_at) - 1)


async def ask(
    url: str, now: int, pipelines_count: int, repetitions: int
) -> tuple[Mapping[str, Sequence[float]], Sequence[float], Sequence[float]]:
    """Return how long each answer took, the CPU of each, and for how long a scrape held the event loop.

    The CPU is that of the one who asks and the one who answers.
    """
    clock = Clock()
    store = await open_store(url, clock=clock)
    given = settings(pipelines_count)
    console = unserved(store, lambda: given, clock=clock, operator=StandInOperator(store))

    async def ready() -> Sequence[str]:
        return ()

    checks = Checks(tuple, ready, partial(asyncio.sleep, 0))
    routes = [
        *health_routes(lambda: checks, _metrics(pipelines_count).text, clock=clock),
        *api_routes(lambda: console),
        *page_routes(lambda: console, lambda: given, clock),
    ]
    allowed = access(lambda: given, listen="127.0.0.1:0", clock=clock)
    server = HttpServer(routes, clock=clock, access=[allowed])
    port = await server.listen(Address("127.0.0.1", 0))
    paths = requests(now, pipelines_count)
    took: dict[str, list[float]] = {name: [] for name in paths}
    cpu_ms: list[float] = []
    held_ms: list[float] = []
    of_scrapes: list[float] = []
    noting = asyncio.create_task(_note_held(held_ms))
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        for _ in range(repetitions):
            for name, path in paths.items():
                console.__post_init__()  # else the status may be the last one's
                await asyncio.sleep(0.01)
                held_ms.clear()
                began_at, cpu_at = time.perf_counter(), time.process_time()
                async with session.get(path) as response:
                    body = await response.read()
                    if response.status != 200:
                        raise RuntimeError(f"{path}: {body.decode()}")
                took[name].append(1000 * (time.perf_counter() - began_at))
                cpu_ms.append(1000 * (time.process_time() - cpu_at))
                await asyncio.sleep(0.002)
                of_scrapes += [max(held_ms)] if path == METRICS else []
    noting.cancel()
    await server.close()
    await store.close()
    return took, cpu_ms, of_scrapes


def measure_console(repetitions: int) -> Iterator[Figure]:
    """Measure each request on both databases, with few pipelines and with many."""
    now = Clock().steady_us()
    with ExitStack() as stack:
        path = Path(stack.enter_context(TemporaryDirectory(prefix="bench-console-"))) / "console.db"
        sqlite = f"sqlite:///{path}"
        asyncio.run(fill(sqlite, ()))
        fill_sqlite(path, now)
        server = stack.enter_context(postgres_server(shared_buffers="256MB"))
        postgresql = stack.enter_context(server.database())
        fill_postgresql(postgresql, now)
        for pipelines_count in PIPELINES_COUNTS:
            for database, url in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
                spread(url, now, pipelines_count)
                took, cpu_ms, held_ms = asyncio.run(ask(url, now, pipelines_count, repetitions))
                others = [name for name in took if not name.startswith("report") and name != METRICS]
                slowest = max(others, key=lambda name: median(took[name]))
                title = f"slowest answer with {pipelines_count:,} pipelines on {database}, ms: {slowest}"
                yield at_most(100, title, took[slowest])
                for span, bound in REPORT_BOUNDS_MS.items():
                    yield at_most(bound, f"a report over {span}, ms", took[f"report, {span}"])
                yield at_most(HELD_MS, "the event loop is held by a scrape, at most, ms", held_ms)
                yield shown("  CPU of an answer here, ms", cpu_ms)
                for name, values in took.items():
                    yield shown(f"  {name}", values)
