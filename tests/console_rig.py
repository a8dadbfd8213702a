"""API and pages over a real socket, a store with something of everything, and the rest of a daemon stood in for.

Two executions run, one of them too long, others are paused, lost or have ended; an account is degraded, a sink disabled
and has a dead letter, a scan missed something, somebody took a problem.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from aiohttp import ClientSession
from sample_events import PIPELINE, data_of, execution_id, problem_block
from sqlalchemy import insert, update
from stores import DAY_US, START_US, SetClock, claim, due, from_us, open_soon, settle

from watcher.config.models import Settings
from watcher.daemon.from_settings import routes_of, silences_of
from watcher.domain.delivery import DeliveryState
from watcher.domain.envelope import NAMESPACE, event_of
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import ExecutionRecord, LostReason
from watcher.domain.history import HOUR_US, EndedExecution, error_kind_of
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.routing import Route, Router, Silences
from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot, SinkSnapshot
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.runtime.clock import Clock
from watcher.runtime.units import Address
from watcher.store.changes import ExecutionChange, Lease, SourceChange
from watcher.store.history import count_ends
from watcher.store.operator_store import ActionKind, OperatorStore
from watcher.store.sink_store import SinkStore
from watcher.store.sources import Source
from watcher.store.sql_store import SqlStore
from watcher.store.tables import problem, scan, snapshot, source
from watcher.web.access import access
from watcher.web.console import Console
from watcher.web.models import TestResult
from watcher.web.overview import Need
from watcher.web.pages import page_routes
from watcher.web.routes import api_routes
from watcher.web.server import HttpServer
from watcher.web.status import find_status

NAMED = "77aa0000-0000-4000-8000-000000000000"
"""A pipeline of which only some executions are watched."""

SETTINGS = {
    "accounts": {"default": {"api_key": "secret-key"}},
    "watch": [
        {"pipeline": PIPELINE, "account": "default", "name": "Sales agent", "labels": {"team": "sales"}},
        {"pipeline": NAMED, "account": "default", "executions": [execution_id(30)], "labels": {"team": "ops"}},
    ],
    "sinks": {
        "console": {"type": "stdout"},
        "ops": {"type": "webhook", "url": "https://hooks.example.com/secret-path"},
        "chat": {"type": "webhook", "url": "https://chat.example.com/secret-path"},
    },
    "silences": [
        {
            "match": {"labels": {"team": "sales"}},
            "from": "2026-11-23T00:00:00Z",
            "until": "2026-11-25T00:00:00Z",
            "comment": "shop closed",
        }
    ],
}
DEGRADED, OVERDUE = UUID(int=1), UUID(int=2)
"""The problems that are open."""


class StandInOperator(OperatorStore):
    """Notes in memory what owners are to do, and acknowledges without an event, whose id would differ each time."""

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store, EventFactory(Router({})))
        self.actions: list[tuple[ActionKind, str]] = []
        self.is_slow = False

    async def acknowledge(
        self, *ids: UUID, by: str | None, comment: str | None, until: datetime | None, event_count: int | None = None
    ) -> Sequence[UUID]:
        values = {"acked_at": START_US, "acked_by": by, "acked_comment": comment}
        return [id_ for id_ in ids if await self._take(id_, **values)]

    async def unacknowledge(self, id_: UUID, *, event_count: int | None = None) -> bool:
        return await self._take(id_, acked_at=None)

    async def _take(self, id_: UUID, **values: Any) -> bool:
        taken = update(problem).where(problem.c.id == id_.bytes, problem.c.closed_at.is_(None)).values(**values)
        return bool(await self._store.write(lambda connection: connection.execute(taken).rowcount))

    async def request_action(self, kind: ActionKind, name: str) -> None:
        self.actions.append((kind, name))

    async def load_actions(self) -> Sequence[tuple[ActionKind, str]]:
        return self.actions if self.is_slow else ()


@dataclass
class Desk:
    """A console that is served: who asks it, and what it did."""

    session: ClientSession
    console: Console
    operator: StandInOperator
    store: SqlStore
    clock: SetClock
    settings: Settings
    open_connections: Callable[[], int]
    troubles: list[Need] = field(default_factory=list)
    changed_count: int = 0
    is_open: bool = True

    async def ask(self, path: str, method: str = "GET", **how: Any) -> tuple[int, Any]:
        """Return the status and what the body is."""
        if method != "GET" and "data" not in how:
            how.setdefault("json", {})
        async with self.session.request(method, f"/api/v1{path}", **how) as response:
            body = await response.read()
            return response.status, json.loads(body) if body else None

    async def found(self, path: str) -> Any:
        """Return what is answered to a request that is right."""
        status, body = await self.ask(path)
        assert status == 200, body
        return body


def unserved(
    store: SqlStore,
    settings: Callable[[], Settings],
    *,
    clock: Clock,
    operator: OperatorStore,
    troubles: Callable[[], Sequence[Need]] = tuple,
    changed: Callable[[], None] = lambda: None,
) -> Console:
    """Return a console over a store."""

    async def send_test(_name: str) -> TestResult:
        return TestResult(delivered=False, answer="404", took_ms=84.0, remedy="make a new webhook")

    def routes() -> Mapping[str, Route]:
        return routes_of(settings())

    return Console(settings, store, operator, clock, routes, Silences(), find_status, troubles, send_test, changed)


@asynccontextmanager
async def a_desk(folder: Path, *, is_filled: bool = True, **settings: Any) -> AsyncIterator[Desk]:
    """Serve API and pages, as on loopback, over a store with something of everything."""
    clock = SetClock()
    store = await open_soon(folder / "watcher.db", clock=clock)
    if is_filled:
        await fill(store, clock)
    operator = StandInOperator(store)

    def changed() -> None:
        desk.changed_count += 1

    console = unserved(
        store, lambda: desk.settings, clock=clock, operator=operator, troubles=lambda: desk.troubles, changed=changed
    )

    def now_open() -> Console | None:
        return console if desk.is_open else None

    routes = [*api_routes(now_open), *page_routes(now_open, lambda: desk.settings, clock)]
    allowed = access(lambda: desk.settings, listen="127.0.0.1:0", clock=clock)
    server = HttpServer(routes, clock=clock, access=[allowed])
    port = await server.listen(Address("127.0.0.1", 0))
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        serving = server._runner.server
        assert serving is not None
        given = Settings.model_validate(SETTINGS | settings)
        console.silences.all = silences_of(given)
        desk = Desk(session, console, operator, store, clock, given, lambda: len(serving.connections))
        yield desk
    await server.close()
    await store.close()


def entry(
    type_: EventType,
    *,
    number: int = 1,
    sequence: int = 1,
    data: dict[str, Any] | None = None,
    source: str = f"/accounts/default/pipelines/{PIPELINE}",
    sinks: tuple[str, ...] = ("ops",),
) -> OutboxEntry:
    """Return an event as the factory makes it, on its way to these sinks."""
    subject = execution_id(number) if type_.startswith("execution.") else None
    more = data_of(type_, number) | (data or {})
    id_ = uuid5(NAMESPACE, f"{type_} {number} {sequence}")
    made = event_of(type_, source, from_us(START_US), sequence=sequence, data=more, subject=subject, id_=id_)
    return OutboxEntry(made, sinks)


def executed(
    lease: Lease, type_: str, *, number: int = 1, sequence: int = 1, data: dict[str, Any] | None = None, **known: Any
) -> ExecutionChange:
    """Return the next change of an execution."""
    status = type_.partition(".")[2]
    values: dict[str, Any] = {"status": status, "since_at": START_US, "polled_at": START_US} | known
    values.setdefault("ended_at", values.get("end_seen_at"))
    problems: tuple[ProblemChange, ...] = ()
    emitted = entry(EventType(type_), number=number, sequence=sequence, data=data)
    if type_ == EventType.EXECUTION_OVERDUE:
        opening = EventKey(emitted.event.stream, sequence)
        opened = Problem(OVERDUE, EventType(type_), from_us(START_US), opening)
        problems = (ProblemChange(opened, is_new=True),)
    record = ExecutionRecord(execution_id(number), PIPELINE, sequence=sequence, **values)
    return ExecutionChange(lease, sequence - 1 or None, record, (emitted,), problems)


async def fill(store: SqlStore, clock: SetClock) -> None:
    """Record something of everything."""
    account, ops = await claim(store, "account", "default"), SinkStore(store, await claim(store, "sink", "ops"))
    await claim(store, "sink", "chat")
    ended: dict[str, Any] = {"end_seen_at": START_US, "ended_at": START_US - 240_000_000, "status": "success"}
    executions: Sequence[tuple[int, str, dict[str, Any]]] = (
        (1, "execution.running", {}),
        (2, "execution.running", {}),
        (3, "execution.success", ended),
        (4, "execution.failed", ended | {"status": "failed"}),
        (5, "execution.lost", {"status": "running", "lost": LostReason.NOT_FOUND, "lost_at": START_US}),
    )
    for number, type_, known in executions:
        clock.us += 1_000_000
        await store.record(executed(account, type_, number=number, **{"since_at": clock.us} | known))
    await store.record(executed(account, "execution.paused", number=2, sequence=2, since_at=clock.us))
    overdue = {"problem": problem_block(EventType.EXECUTION_OVERDUE) | {"id": str(OVERDUE)}}
    record = {"status": "running", "overdue_sequence": 2, "overdue_at": START_US}
    await store.record(executed(account, "execution.overdue", number=1, sequence=2, data=overdue, **record))
    gap = entry(EventType.PIPELINE_GAP, data={"reason": "outrun", "atMost": 12})
    cursor = Cursor(START_US, START_US, name="What the API says")
    await store.record(SourceChange(account, 0, 1, None, (gap,), pipeline=PIPELINE, cursor=cursor))
    degraded = entry(
        EventType.ACCOUNT_DEGRADED,
        source="/accounts/default",
        data={"problem": problem_block(EventType.ACCOUNT_DEGRADED) | {"id": str(DEGRADED)}},
    )
    opening = EventKey(degraded.event.stream, 1)
    open_ = Problem(DEGRADED, EventType.ACCOUNT_DEGRADED, from_us(clock.us), opening)
    await store.record(SourceChange(account, 0, 1, "unreachable", (degraded,), (ProblemChange(open_, is_new=True),)))
    await store.record(SourceChange(ops.lease, 0, 1, "disabled", ()))
    waiting = await due(ops)
    await settle(ops, waiting[0], state=DeliveryState.DEAD, answer="503")
    await settle(ops, waiting[1])
    now, rows = clock.steady_us(), []
    pipeline = PipelineSnapshot({"running": 2, "paused": 1}, {"running": START_US}, "ssfsu", START_US, now)
    snapshots: dict[Source, AccountSnapshot | SinkSnapshot] = {
        Source("account", "default"): AccountSnapshot(
            3.6, 3.4, 61.0, {PIPELINE: pipeline, NAMED: PipelineSnapshot(name="Support triage")}
        ),
        Source("sink", "ops"): SinkSnapshot("410", START_US, None),
    }
    for owner, body in snapshots.items():
        written = json.dumps(asdict(body)).encode()
        rows.append({"source_id": await store.number_of(owner), "written_at": clock.us, "body": written})
    await store.write(lambda connection: connection.execute(insert(snapshot), rows))


def in_hours(desk: Desk, hours: float) -> str:
    return (desk.clock.now() + timedelta(hours=hours)).isoformat()


async def write(desk: Desk, statement: Any, rows: Any = None) -> None:
    await desk.store.write(lambda connection: connection.execute(statement, rows))


# the history of a pipeline over some weeks, as it is counted


MINUTE_US = 60_000_000
PATH = f"/pipelines/default/{PIPELINE}"
NOW = START_US + 9 * HOUR_US + 25 * MINUTE_US
TIMEOUT, NO_ANSWER = "timeout after 30 s", "the model returned no answer"


async def know_from(desk: Desk, at: int | None) -> None:
    """Let the history be known from that moment on."""
    await write(desk, update(scan).values(known_from=at))


async def with_history(desk: Desk) -> Desk:
    """Let it be `NOW` on a desk, all be well, and the history be known for 29 days."""
    desk.clock.us = NOW
    await be_well(desk)
    await know_from(desk, NOW - 29 * DAY_US)
    return desk


async def be_well(desk: Desk) -> None:
    """Let it be known how the pipeline is."""
    await write(desk, update(source).where(source.c.kind == "account").values(state=None))
    await write(desk, update(snapshot).values(written_at=desk.clock.us))


def ended(
    at: int, status: str = "success", *, duration_s: float = 12.0, tokens: int = 0, error: str = TIMEOUT
) -> EndedExecution:
    """Return an execution that ended then, and started as long before as it ran."""
    began = Micros(at - round(duration_s * 1e6))
    if status == "failed":
        return EndedExecution(began, Micros(at), status, tokens, error=error_kind_of("Greeting", error))
    return EndedExecution(began, Micros(at), status, tokens, duration_s if status == "success" else None)


async def count(desk: Desk, *ends: EndedExecution, name: str = f"default/{PIPELINE}") -> None:
    """Count ends of a pipeline."""
    number = await desk.store.number_of(Source("pipeline", name))
    await desk.store.write(lambda connection: count_ends(connection, ((number, each) for each in ends)))


async def open_problem(desk: Desk, number: int, *, opened_at: int, closed_at: int | None = None) -> None:
    """Record that the pipeline kept failing."""
    row = {
        "id": bytes([number] * 16),
        "kind": EventType.PIPELINE_FAILING,
        "pipeline_id": await desk.store.number_of(Source("pipeline", f"default/{PIPELINE}")),
        "source_id": await desk.store.number_of(Source("account", "default")),
        "opened_at": opened_at,
        "closed_at": closed_at,
        "stream": b"none",  # so that there is no event of it
        "sequence": number,
    }
    await write(desk, insert(problem), row)


async def a_night(desk: Desk, *, days: int = 1) -> None:
    """Count these days: ends each hour, more by day; in the last night most fail for a while, and a problem is open."""
    now, ends = desk.clock.us, []
    for hour in range(24 * days):
        begins = now - now % HOUR_US - hour * HOUR_US
        for index in range(3 + 9 * (hour % 24 > 9)):
            is_failed = (hour in (8, 9) and index % 4 > 0) or (hour, index) == (17, 0)
            text = NO_ANSWER if index == 2 else TIMEOUT
            ends.append(
                ended(
                    begins + index,
                    "failed" if is_failed else "success",
                    duration_s=8.0 + (7 * hour + 5 * index) % 23,
                    tokens=400 + 31 * index,
                    error=text,
                )
            )
    await count(desk, *ends)
    opened_at = now - 9 * HOUR_US + 10 * MINUTE_US
    await open_problem(desk, 77, opened_at=opened_at, closed_at=opened_at + 95 * MINUTE_US)
