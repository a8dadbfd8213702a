"""How long API and pages take to answer over a store with very much in it, on both databases.

100,000 executions are open, 400,000 have ended, of 20, 100 or 1,000 pipelines; each has two events, and each event a
delivery to two sinks. A few wait, a few are dead, 250 of 100,000 problems are open. 1,000 pipelines have 90 days of
history. Nothing is recorded while it is measured.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from hashlib import md5
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import psycopg
from aiohttp import ClientSession
from console_rig import StandInOperator, unserved
from postgres import postgres_server
from sample_metrics import busy_pipeline
from sqlalchemy import create_engine, text

from bench.figures import Figure, at_most, shown
from bench.processes import fill
from watcher.config.models import Settings
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
SINCE = f"$now - ({EXECUTIONS_COUNT} - n + 20) * {SECOND_US}"
ENDED = f"n <= {EXECUTIONS_COUNT - OPEN_COUNT}"
STATUS = (
    f"CASE WHEN {ENDED} THEN CASE WHEN n % 33 = 0 THEN 'failed' ELSE 'success' END "
    "WHEN n % 10 = 0 THEN 'paused' ELSE 'running' END"
)
TEXT = "upstream timeout after 30 s " * 4
BODY = json.dumps(
    {
        "specversion": "1.0",
        "id": "$id",
        "type": "$type",
        "source": "/accounts/default/pipelines/$pipeline",
        "sequence": "0000000002",
        "time": "2026-11-24T10:02:31.000Z",
        "data": {
            "account": "default",
            "labels": {"team": "team-$team"},
            "pipeline": {"id": "$pipeline", "name": "Agent"},
            "execution": {
                "id": "$execution",
                "status": "$status",
                "failedNodes": [{"name": "Greeting", "error": TEXT}],
            },
            "observed": {"at": "2026-11-24T10:02:31.000Z", "delaySeconds": 0.8},
        },
    }
)
DURATIONS, DAY_DURATIONS = (
    json.dumps({str(bucket): factor * (1 + bucket % 3) for bucket in range(5, 35)}) for factor in (1, 24)
)
FILL = f"""
CREATE TEMPORARY TABLE number AS
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {EXECUTIONS_COUNT})
    SELECT n, {SINCE} AS at, {STATUS} AS status, CASE WHEN {ENDED} THEN {SINCE} END AS ended_at FROM number;
CREATE TEMPORARY TABLE twice AS
    SELECT number.*, s, 2 * n - 2 + s AS id, 'execution.' || CASE WHEN s = 1 THEN 'new' ELSE status END AS type,
        uuid_of('pipeline/' || (n % {EVENT_PIPELINES_COUNT})) AS pipeline
    FROM number CROSS JOIN (SELECT 1 AS s UNION ALL SELECT 2) AS two;
INSERT INTO source (id, kind, name) OVERRIDING SYSTEM VALUE
    VALUES (1, 'account', 'default'), (2, 'sink', 'console'), (3, 'sink', 'ops');
INSERT INTO source (id, kind, name) OVERRIDING SYSTEM VALUE
    SELECT 9 + n, 'pipeline', 'default/' || uuid_of('pipeline/' || (n - 1)) FROM number
    WHERE n <= {HISTORY_PIPELINES_COUNT};
INSERT INTO execution (account_id, execution, pipeline_id, status, since_at, looked_at, sequence, counts, ended_at,
        was_paused, stream, found_at, finished_at)
    SELECT 1, key_of('execution/' || n), 10, status, at, at, 2, '{{}}', ended_at, false, key_of('stream/' || n), 0,
        ended_at
    FROM number;
INSERT INTO event (id, event_id, stream, sequence, type, source_id, pipeline_id, execution, recorded_at, account,
        pipeline, labels, closes, body) OVERRIDING SYSTEM VALUE
    SELECT id, key_of('event/' || id), key_of('stream/' || n), s, type, 1, 10 + n % {EVENT_PIPELINES_COUNT},
        key_of('execution/' || n), at + s, 'default', pipeline, '{{"team": "team-' || (n % 4) || '"}}', false,
        bytes_of(replace(replace(replace(replace(replace(replace('{BODY}', '$id', uuid_of('event/' || id)), '$type',
        type), '$pipeline', pipeline), '$team', '' || (n % 4)), '$execution', uuid_of('execution/' || n)), '$status',
        status))
    FROM twice;
INSERT INTO delivery (number, sink_id, ordering_key, state, recorded_at, due_at, attempts, settled_at, answer, tried)
    SELECT id, 2, key_of('lane/' || id), 'delivered', at, at, 1, at, '', true FROM twice;
INSERT INTO delivery (number, sink_id, ordering_key, state, recorded_at, due_at, attempts, settled_at, answer, tried)
    SELECT id, 3, key_of('lane/' || id),
        CASE WHEN id % {2 * EXECUTIONS_COUNT // DEAD_COUNT} = 0 THEN 'dead'
            WHEN id % {2 * EXECUTIONS_COUNT // WAITING_COUNT} = 1 THEN 'waiting' ELSE 'delivered' END,
        at, at, 3, CASE WHEN id % {2 * EXECUTIONS_COUNT // WAITING_COUNT} <> 1 THEN at END, '503', true
    FROM twice;
INSERT INTO problem (id, kind, source_id, pipeline_id, execution, opened_at, closed_at, stream, sequence)
    SELECT key_of('problem/' || n), 'execution.overdue', 1, 10, key_of('execution/' || ({EXECUTIONS_COUNT} - 5 * n)),
        $now - n * {SECOND_US}, CASE WHEN n % 2 = 0 OR n > {2 * OPEN_PROBLEMS_COUNT} THEN $now END,
        key_of('stream/' || ({EXECUTIONS_COUNT} - 5 * n)), 2
    FROM number WHERE n < {PROBLEMS_COUNT};
INSERT INTO scan (account_id, pipeline_id, since_at, complete_at, found, dated, known_from)
    SELECT 1, 9 + n, $now, $now, true, false, $now - {HISTORY_DAYS * DAY_US} FROM number
    WHERE n <= {HISTORY_PIPELINES_COUNT};
INSERT INTO pipeline_hour (pipeline_id, from_at, started, success, failed, unrecognized, tokens, durations)
    SELECT 9 + agent.n, ($now / {HOUR_US} + 1 - ago.n) * {HOUR_US}, 62, 60, agent.n % 3, 0, 9000, '{DURATIONS}'
    FROM number AS agent CROSS JOIN number AS ago
    WHERE agent.n <= {HISTORY_PIPELINES_COUNT} AND ago.n <= {24 * HISTORY_DAYS};
INSERT INTO pipeline_day (pipeline_id, from_at, started, success, failed, unrecognized, tokens, durations)
    SELECT 9 + agent.n, ($now / {DAY_US} + 1 - ago.n) * {DAY_US}, 1488, 1440, 24 * (agent.n % 3), 0, 216000,
        '{DAY_DURATIONS}'
    FROM number AS agent CROSS JOIN number AS ago
    WHERE agent.n <= {HISTORY_PIPELINES_COUNT} AND ago.n <= {HISTORY_DAYS + 1};
INSERT INTO error_kind (pipeline_id, from_at, fingerprint, failed_count, node, text, first_at, last_at)
    SELECT 9 + agent.n, day.at, key_of('kind/' || kind.n), 2 + kind.n, 'Greeting', '{TEXT}', day.at, day.at
    FROM number AS agent CROSS JOIN number AS kind CROSS JOIN
        (SELECT ($now / {DAY_US} + 1 - n) * {DAY_US} AS at FROM number WHERE n <= {HISTORY_DAYS}) AS day
    WHERE agent.n <= {HISTORY_PIPELINES_COUNT} AND kind.n <= {KINDS_COUNT};
DROP TABLE twice;
DROP TABLE number;
"""
"""Both databases take these statements, given the three functions."""

FUNCTIONS = """
CREATE FUNCTION pg_temp.key_of(text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$SELECT decode(md5($1), 'hex')$$;
CREATE FUNCTION pg_temp.uuid_of(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT md5($1)::uuid::text$$;
CREATE FUNCTION pg_temp.bytes_of(text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$SELECT convert_to($1, 'UTF8')$$;
"""


def _key(text: str) -> bytes:
    return md5(text.encode(), usedforsecurity=False).digest()


def _uuid(text: str) -> str:
    return str(UUID(bytes=_key(text)))


def pipeline_id(nth: int) -> str:
    return _uuid(f"pipeline/{nth}")


FIRST = pipeline_id(0)


def _labels(nth: int) -> dict[str, str]:
    return {"team": f"team-{nth % 4}"}


def _since(number: int, now: int) -> int:
    return now - (EXECUTIONS_COUNT - number + 20) * SECOND_US


def fill_sqlite(path: Path, now: int) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.create_function("key_of", 1, _key, deterministic=True)
        database.create_function("uuid_of", 1, _uuid, deterministic=True)
        database.create_function("bytes_of", 1, str.encode, deterministic=True)
        database.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000; PRAGMA temp_store = MEMORY")
        database.executescript(f"BEGIN; {FILL.replace('OVERRIDING SYSTEM VALUE', '')} COMMIT".replace("$now", str(now)))


def fill_postgresql(url: str, now: int) -> None:
    statements = FILL.replace("$now", f"{now}::bigint")
    for name in ("key_of", "uuid_of", "bytes_of"):
        statements = statements.replace(f"{name}(", f"pg_temp.{name}(")
    with psycopg.connect(url) as connection:
        connection.execute(f"{FUNCTIONS}{statements}".encode())


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


SPREAD = (
    "UPDATE execution SET pipeline_id = 10 + since_at / 1000000 % :count",
    "UPDATE problem SET pipeline_id = 10 + opened_at / 1000000 % :count",
)


def spread(url: str, now: int, pipelines_count: int) -> None:
    """Have executions and problems be of so many pipelines, no fewer than before, and write how these stand."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
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


METRICS = "/metrics"
REPORT_BOUNDS_MS = {"24h": 1_000, "30d": 1_000, "90d": 3_000}
HELD_MS = 50


def requests(now: int, pipelines_count: int) -> Sequence[str]:
    """Return the paths that are asked for: the dearest of each kind."""
    several = ",".join(map(pipeline_id, range(min(24, pipelines_count))))
    ended, middle = EXECUTIONS_COUNT - OPEN_COUNT - 12, EXECUTIONS_COUNT - OPEN_COUNT // 2
    later = f"o.{_since(middle, now)}.{_key(f'execution/{middle}').hex()}"
    of_ended = f"{pipeline_id(_since(ended, now) // SECOND_US % pipelines_count)}/{_uuid(f'execution/{ended}')}"
    of_problem = _uuid("problem/1")
    answers = (
        "/status",
        f"/executions?limit=200&after={later}",
        "/executions?status=paused&limit=200",
        "/executions?status=odd",
        f"/executions?pipeline={several}&limit=200&status=paused",
        "/executions?label=team:team-1&since=2h",
        f"/executions?q={_uuid(f'execution/{ended}')}",
        f"/executions/default/{of_ended}",
        "/events?type=execution.failed&limit=200",
        "/events?type=pipeline.gap",
        f"/events?execution={_uuid(f'execution/{ended}')}",
        "/deliveries?limit=200",
        "/deliveries?state=waiting&type=pipeline.gap",
        "/problems?state=all&kind=pipeline.silent",
        "/problems?state=all&label=team:team-1&since=2h&limit=200",
        f"/problems/{of_problem}",
        f"/pipelines/default/{FIRST}/history?span=30d",
        *(f"/report?last={span}" for span in REPORT_BOUNDS_MS),
    )
    pages = (
        "/",
        f"/executions?limit=200&after={later}",
        "/executions?label=team:team-1",
        f"/executions/default/{of_ended}",
        f"/pipelines/default/{FIRST}?span=30d",
        f"/problems?pipeline={FIRST}&limit=200",
        f"/problems/{of_problem}",
        f"/events?limit=200&after={EXECUTIONS_COUNT}",
        "/events?type=*&since=10m&limit=200",
        "/deliveries?limit=200",
        METRICS,
    )
    return [*(f"{API}{path}" for path in answers), *pages]


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
    took: dict[str, list[float]] = {path: [] for path in requests(now, pipelines_count)}
    cpu_ms: list[float] = []
    held_ms: list[float] = []
    of_scrapes: list[float] = []
    noting = asyncio.create_task(_note_held(held_ms))
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        for _ in range(repetitions):
            for path, took_ms in took.items():
                console.__post_init__()  # else the status may be the last one's
                await asyncio.sleep(0.01)
                held_ms.clear()
                began_at, cpu_at = time.perf_counter(), time.process_time()
                async with session.get(path) as response:
                    body = await response.read()
                    if response.status != 200:
                        raise RuntimeError(f"{path}: {body.decode()}")
                took_ms.append(1000 * (time.perf_counter() - began_at))
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
        file = Path(stack.enter_context(TemporaryDirectory(prefix="bench-console-"))) / "console.db"
        sqlite = f"sqlite:///{file}"
        asyncio.run(fill(sqlite, ()))
        fill_sqlite(file, now)
        server = stack.enter_context(postgres_server(shared_buffers="256MB"))
        postgresql = stack.enter_context(server.database())
        fill_postgresql(postgresql, now)
        for pipelines_count in PIPELINES_COUNTS:
            for database, url in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
                spread(url, now, pipelines_count)
                took, cpu_ms, held_ms = asyncio.run(ask(url, now, pipelines_count, repetitions))
                others = [path for path in took if "/report" not in path and path != METRICS]
                slowest = max(others, key=lambda path: median(took[path]))
                title = f"slowest answer with {pipelines_count:,} pipelines on {database}, ms: {slowest}"
                yield at_most(100, title, took[slowest])
                for span, bound in REPORT_BOUNDS_MS.items():
                    yield at_most(bound, f"a report over {span}, ms", took[f"{API}/report?last={span}"])
                yield at_most(HELD_MS, "the event loop is held by a scrape, at most, ms", held_ms)
                yield shown("  CPU of an answer here, ms", cpu_ms)
                for path, values in took.items():
                    yield shown(f"  {path[:60]}", values)
