"""What pages and API read of a store: each list in its order, every row once, whatever is written meanwhile."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest
from contract.conftest import on_both
from postgres import PostgresServer
from sqlalchemy import Connection, Engine, event, insert, select, update
from stores import (
    PIPELINE,
    SECOND_US,
    START_US,
    SetClock,
    StoreRig,
    change,
    claim,
    closed,
    due,
    execution_id,
    from_us,
    opened,
    overdue,
    settle,
    source_change,
    stream_of,
)

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import Event, EventKey, EventType, OutboxEntry
from watcher.domain.execution import ExecutionRecord, LostReason
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.timestamps import Micros
from watcher.store.changes import ExecutionChange, Lease, SourceChange
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore, open_store
from watcher.store.tables import incident, problem, source
from watcher.web import listing
from watcher.web.deliveries import load_deliveries
from watcher.web.events import EventFilter, load_events, load_newest_events, load_recorded_at
from watcher.web.executions import ExecutionRow, load_execution, load_executions
from watcher.web.listing import Position
from watcher.web.overview import load_overview
from watcher.web.problems import ProblemRow, load_problem, load_problems, load_problems_by_id

OTHER = "77aa0000-0000-4000-8000-000000000000"
PAGE = 3
T = TypeVar("T")
Executions = tuple[Sequence[ExecutionRow], Position | None]


def executed(
    lease: Lease, number: int, *, pipeline: str = PIPELINE, sequence: int = 1, type_: str = "", **known: Any
) -> ExecutionChange:
    """Return the next change of an execution in one of two pipelines, with an event of labels and pipeline."""
    values: dict[str, Any] = {"status": "running", "since_at": START_US + number * SECOND_US, "polled_at": START_US}
    values |= known
    values.setdefault("ended_at", values.get("end_seen_at"))
    name = execution_id(number)
    record = ExecutionRecord(name, pipeline, sequence=sequence, **values)
    told = Event(
        UUID(int=(number << 8) + sequence),
        EventType(type_ or f"execution.{values['status']}"),
        stream_of(name),
        sequence,
        b'{"id":"%s-%d"}' % (name.encode(), sequence),
        stream_of(name),
        account=lease.name,
        pipeline=pipeline,
        labels={"team": "sales" if pipeline == PIPELINE else "ops"},
    )
    return ExecutionChange(lease, sequence - 1 or None, record, (OutboxEntry(told, ("ops",)),))


async def walk(ask: Callable[[Position | None], Awaitable[tuple[Sequence[T], Position | None]]]) -> list[list[T]]:
    """Return all pages of a list."""
    pages: list[list[T]] = []
    after = None
    while True:
        rows, after = await ask(after)
        pages.append(list(rows))
        if after is None:
            return pages


def executions_in(pages: list[list[ExecutionRow]]) -> list[int]:
    return [UUID(bytes=row.key).int & 0xFFFF for page in pages for row in page]


def problems_in(rows: Iterable[ProblemRow]) -> list[int]:
    return [row.problem.id.int for row in rows]


async def listed(store: SqlStore, **how: Any) -> list[int]:
    """Return the numbers of executions, page by page."""
    pages = await walk(lambda after: load_executions(store, after=after, limit=PAGE, **how))
    assert all(len(page) == PAGE for page in pages[:-1])
    return executions_in(pages)


async def fill(store: SqlStore, account: Lease) -> None:
    """Record eight executions: four are open, the even ones of them in another pipeline; of the ended two failed.

    Those that ended last were seen first.
    """
    for number in range(1, 9):
        pipeline = PIPELINE if number % 2 else OTHER
        known: dict[str, Any] = {}
        if number > 4:
            status = "failed" if number > 6 else "success"
            at = START_US + 20 * SECOND_US
            end_seen_at, ended_at = at + number * SECOND_US, at - number * SECOND_US
            known = {"status": status, "end_seen_at": end_seen_at, "ended_at": ended_at}
        if number == 4:
            known = {"status": "paused", "lost": LostReason.NOT_FOUND, "lost_at": START_US}
        await store.record(executed(account, number, pipeline=pipeline, **known))


EXECUTIONS: Sequence[tuple[dict[str, Any], list[int]]] = (
    ({}, [4, 3, 2, 1, 5, 6, 7, 8]),
    ({"is_of_pipeline": lambda name: name == f"default/{OTHER}"}, [4, 2, 6, 8]),
    ({"is_of_pipeline": lambda _: False}, []),
    ({"statuses": ["failed", "paused"]}, [4, 7, 8]),
    ({"statuses": ["failed"]}, [7, 8]),
    ({"statuses": ["running"]}, [3, 2, 1]),
    ({"statuses": ["lost"]}, [4]),
    ({"ended_since": START_US + 14 * SECOND_US}, [4, 3, 2, 1, 5, 6]),
    ({"id_beginning": "7"}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ({"id_beginning": "70000000000000000000000000000003"}, [3]),
    ({"id_beginning": "8"}, []),
)


async def test_open_executions_come_first_and_filters_leave_some_out(rig: StoreRig, store: SqlStore) -> None:
    await fill(rig.store, rig.account)
    for how, found in EXECUTIONS:
        assert await listed(store, **how) == found, how


@contextmanager
def walks() -> Iterator[list[str]]:
    """Note the statements that walk along open executions meanwhile."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: object) -> None:
        if "SELECT execution.since_at AS at" in statement:
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


async def test_the_open_executions_of_many_pipelines_are_one_walk(rig: StoreRig, store: SqlStore) -> None:
    pipelines = [execution_id(0xA000 + number) for number in range(12)]
    for number in range(1, 37):
        await rig.store.record(executed(rig.account, number, pipeline=pipelines[number % 12]))
    await rig.store.record(executed(rig.account, 40))
    asked: Sequence[dict[str, Any]] = (
        {"limit": 2},
        {"limit": 2, "statuses": ["running"]},
        {"limit": 500, "is_of_pipeline": lambda name: name != f"default/{PIPELINE}"},
        {"limit": 2, "is_of_pipeline": lambda name: name == f"default/{PIPELINE}"},
    )
    for how in asked:
        with walks() as found:
            assert (await load_executions(store, **how))[0]
        assert len(found) == 1


@pytest.mark.parametrize("few", [3, 100])
async def test_open_executions_of_some_pipelines_are_in_one_order_however_they_are_looked_at(
    rig: StoreRig, store: SqlStore, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    pipelines = [execution_id(0xA000 + number) for number in range(5)]
    for number in range(1, 31):
        status = "paused" if number % 3 else "running"
        await rig.store.record(executed(rig.account, number, pipeline=pipelines[number % 5], status=status))
    monkeypatch.setattr(listing, "EXAMINED_COUNT", few)
    wanted = {f"default/{name}" for name in pipelines[1:4]}

    async def ask(how: dict[str, Any], after: Position | None) -> Executions:
        return await load_executions(store, after=after, **how)

    for statuses in ((), ("paused",)):
        how = {"is_of_pipeline": wanted.__contains__, "statuses": statuses, "limit": 4}
        found = executions_in(await walk(partial(ask, how)))
        assert found == [each for each in range(30, 0, -1) if each % 5 in {1, 2, 3} and (each % 3 or not statuses)]


async def test_executions_of_two_accounts_are_found_by_their_id(rig: StoreRig, store: SqlStore) -> None:
    other = await claim(rig.store, "account", "other")
    for number in range(1, 5):
        await rig.store.record(executed(rig.account, number))
        await rig.store.record(executed(other, number + 4, pipeline=OTHER))
    assert sorted(await listed(store, id_beginning="7000")) == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_a_list_that_changes_shows_what_stays_once(rig: StoreRig, store: SqlStore) -> None:
    for number in range(1, 13):
        ended: dict[str, Any] = {"status": "success", "end_seen_at": START_US + number * SECOND_US}
        known = {} if number < 8 else ended
        await rig.store.record(executed(rig.account, number, **known))
    changes = iter(
        [
            executed(rig.account, 20),
            executed(rig.account, 7, sequence=2, status="success", end_seen_at=START_US + 60 * SECOND_US),
            executed(rig.account, 21, status="success", end_seen_at=START_US + 61 * SECOND_US),
            executed(rig.account, 22),
        ]
    )

    async def ask(after: Position | None) -> Executions:
        page = await load_executions(store, after=after, limit=PAGE)
        if (following := next(changes, None)) is not None:
            await rig.store.record(following)
        return page

    found = executions_in(await walk(ask))
    stay = {*range(1, 7), *range(8, 13)}
    assert sorted(number for number in found if number in stay) == sorted(stay)


async def test_a_short_page_has_a_next(rig: StoreRig, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "EXAMINED_COUNT", 5)
    for number in range(1, 13):
        await rig.store.record(executed(rig.account, number, status="paused" if number == 1 else "running"))
    pages = await walk(lambda after: load_executions(store, statuses=["paused"], after=after, limit=2))
    assert [len(page) for page in pages] == [0, 0, 1]
    bodies: list[bytes] = []
    numbers = [0]
    for _ in range(3):
        found, last = await load_events(
            store, EventFilter(types={EventType.EXECUTION_PAUSED}), after=numbers[-1], limit=5
        )
        bodies += found
        numbers.append(last)
    assert (len(bodies), numbers) == (1, [0, 5, 10, 12])


async def test_an_execution_is_shown_with_its_events_and_deliveries(rig: StoreRig, store: SqlStore) -> None:
    await rig.store.record(executed(rig.account, 1))
    await rig.store.record(executed(rig.account, 1, sequence=2, status="paused"))
    await rig.store.record(executed(rig.account, 2))
    found = await load_execution(store, f"default/{PIPELINE}", execution_id(1))
    assert found is not None
    row, (bodies, deliveries) = found
    assert row.status == "paused"
    assert [body[-4:-2] for body in bodies] == [b"-1", b"-2"]
    shown = [(each.sink, each.state, each.earlier is not None) for each in deliveries]
    assert shown == [("ops", "waiting", False), ("ops", "waiting", True)]
    assert await load_execution(store, f"default/{OTHER}", execution_id(1)) is None
    assert await load_execution(store, f"default/{PIPELINE}", execution_id(3)) is None


EVENTS: Sequence[tuple[dict[str, Any], list[int]]] = (
    ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ({"types": {EventType.EXECUTION_FAILED, EventType.EXECUTION_PAUSED}}, [4, 7, 8]),
    ({"pipelines": [OTHER]}, [2, 4, 6, 8]),
    ({"labels": [("team", "sales", True)]}, [1, 3, 5, 7]),
    ({"labels": [("team", "ops", False), ("team", "Sales", False)]}, [1, 3, 5, 7]),
    ({"execution": execution_id(3)}, [3]),
    ({"execution": execution_id(30)}, []),
)


async def test_events_come_oldest_or_newest_first_and_filtered(rig: StoreRig, store: SqlStore) -> None:
    await fill(rig.store, rig.account)
    rig.clock.us += 60 * SECOND_US
    ends: list[int | None] = []
    for how, found in EVENTS:
        after: int | None = None
        seen: list[int] = []
        for _ in range(4):
            bodies, after = await load_events(store, EventFilter(**how), after=after, limit=PAGE)
            seen += [int(body[-5:-4]) for body in bodies]
        assert seen == found, how
        ends.append(after)
        pages: list[list[int]] = []
        newest_after: int | None = None
        while not pages or newest_after is not None:
            bodies, newest_after = await load_newest_events(store, EventFilter(**how), after=newest_after, limit=PAGE)
            pages.append([int(body[-5:-4]) for body in bodies])
        assert [number for page in pages for number in page] == found[::-1], how
        assert all(len(page) == PAGE for page in pages[:-1])
    await rig.store.record(executed(rig.account, 9))
    rig.clock.us += 60 * SECOND_US
    asked = zip(EVENTS, ends, strict=True)
    news = [await load_events(store, EventFilter(**how), after=after, limit=PAGE) for (how, _), after in asked]
    assert [len(bodies) for bodies, _ in news] == [1, 0, 0, 1, 1, 0, 0]


async def test_events_are_found_since_a_moment(rig: StoreRig, store: SqlStore) -> None:
    for number in range(1, 21):
        await rig.store.record(executed(rig.account, number))
        rig.clock.us += 60 * SECOND_US
    bodies, _ = await load_events(store, EventFilter(since=Micros(rig.clock.us - 150 * SECOND_US)), limit=50)
    assert len(bodies) == 2
    bodies, _ = await load_events(store, EventFilter(since=Micros(START_US)), limit=50)
    assert len(bodies) == 20
    assert await load_events(store, EventFilter(since=Micros(rig.clock.us)), limit=50) == ([], 20)


async def test_the_events_of_an_execution_are_found_among_very_many_without_looking_at_those(
    rig: StoreRig, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "EXAMINED_COUNT", 2)
    for number in range(1, 9):
        await rig.store.record(executed(rig.account, number))
    await rig.store.record(executed(rig.account, 1, sequence=2, status="paused"))
    for _ in range(2):
        after: int | None = None
        found: list[bytes] = []
        while not found or after is not None:
            bodies, after = await load_newest_events(
                store, EventFilter(execution=execution_id(1)), after=after, limit=1
            )
            found += bodies
        assert [body[-4:-2] for body in found] == [b"-2", b"-1"]
        monkeypatch.setattr(listing, "FEW_COUNT", 0)  # as if an execution had very many


async def test_the_newest_events_end_at_a_moment_and_a_page_of_them_where_it_looked_at_so_many(
    rig: StoreRig, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 13):
        await rig.store.record(executed(rig.account, number, status="paused" if number == 1 else "running"))
        rig.clock.us += 60 * SECOND_US
    monkeypatch.setattr(listing, "EXAMINED_COUNT", 5)
    since = Micros(rig.clock.us - 150 * SECOND_US)
    found, after = await load_newest_events(store, EventFilter(since=since), limit=50)
    assert ([int(body[-6:-4], 16) for body in found], after) == ([12, 11], None)
    numbers: list[int | None] = [None]
    bodies: list[bytes] = []
    for _ in range(3):
        paused = EventFilter(types={EventType.EXECUTION_PAUSED})
        found, after = await load_newest_events(store, paused, after=numbers[-1], limit=5)
        bodies += found
        numbers.append(after)
    assert (len(bodies), numbers) == (1, [None, 8, 3, None])


INSERT = (
    "INSERT INTO event (event_id, stream, sequence, type, source_id, recorded_at, closes, body)"
    " VALUES (%s, %s, 1, 'execution.new', 1, %s, false, %s)"
)


async def test_on_postgresql_a_late_commit_is_waited_for(postgres: PostgresServer, clock: SetClock) -> None:
    with postgres.database() as url:
        store = await open_store(url, clock=clock)
        account = await claim(store, "account", "default")
        await store.record(executed(account, 1))

        def body(name: str) -> tuple[bytes, bytes, int, bytes]:
            return name.encode(), name.encode(), clock.us, name.encode()

        with psycopg.connect(url) as late, psycopg.connect(url, autocommit=True) as early:
            late.execute(INSERT, body("late"))
            early.execute(INSERT, body("early"))
            bodies, after = await load_events(store, EventFilter(), limit=50)
            assert len(bodies) == 1
            of_type, _ = await load_events(store, EventFilter(types={EventType.EXECUTION_NEW}), limit=50)
            assert of_type == []
            late.commit()
            bodies, after = await load_events(store, EventFilter(), after=after, limit=50)
            assert bodies == [b"late", b"early"]
            late.execute(INSERT, body("lost"))
            late.rollback()
            early.execute(INSERT, body("last"))
            assert (await load_events(store, EventFilter(), after=after, limit=50))[0] == []
            clock.us += 10 * SECOND_US
            assert (await load_events(store, EventFilter(), after=after, limit=50))[0] == [b"last"]
        await store.close()


async def states_of(store: SqlStore, **how: Any) -> list[tuple[int, str, str]]:
    pages = await walk(lambda after: load_deliveries(store, after=after, limit=PAGE, **how))
    assert all(len(page) == PAGE for page in pages[:-1])
    return [(row.number, row.sink, row.state) for page in pages for row in page]


async def test_deliveries_are_listed(rig: StoreRig, store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = await claim(rig.store, "sink", "chat")
    for number in range(1, 5):
        await rig.record(number, sinks=("ops", "chat"))
    waiting = await due(rig.ops)
    await settle(rig.ops, waiting[0])
    await settle(rig.ops, waiting[1], state=DeliveryState.DEAD, answer="503")
    await settle(SinkStore(rig.store, chat), (await due(SinkStore(rig.store, chat)))[3], state=DeliveryState.SILENCED)

    async def check() -> None:
        everything = await states_of(store)
        assert [number for number, _, _ in everything] == [4, 4, 3, 3, 2, 2, 1, 1]
        assert await states_of(store, state="dead") == [(2, "ops", "dead")]
        assert await states_of(store, state="silenced") == [(4, "chat", "silenced")]
        assert await states_of(store, state="delivered", sink="chat") == []
        assert [n for n, *_ in await states_of(store, sink="ops")] == [4, 3, 2, 1]
        assert [n for n, *_ in await states_of(store, state="waiting", sink="chat")] == [3, 2, 1]
        assert [n for n, *_ in await states_of(store, state="waiting")] == [4, 3, 3, 2, 1]
        assert await states_of(store, state="waiting", types={EventType.EXECUTION_FAILED}) == []
        assert await states_of(store, state="dead", types={EventType.EXECUTION_RUNNING}) == [(2, "ops", "dead")]

    await check()
    monkeypatch.setattr(listing, "FEW_COUNT", 0)  # as where very many wait
    await check()


async def ask_problems(
    store: SqlStore, how: dict[str, Any], after: Position | None
) -> tuple[Sequence[ProblemRow], Position | None]:
    return await load_problems(store, after=after, **how)


async def open_problems(store: SqlStore, account: Lease, clock: SetClock) -> Sequence[Problem]:
    """Open three problems of executions and one of the account; close the second."""
    found = []
    for number in range(1, 4):
        each = overdue(number)
        each = Problem(each.id, each.kind, from_us(clock.us + number), EventKey(stream_of(execution_id(number)), 1))
        found.append(each)
        await store.record(change(account, number, problems=(ProblemChange(each, is_new=True),)))
    await store.record(change(account, 2, sequence=2, problems=closed(found[1])))
    opening = EventKey(stream_of("accounts/default"), 1)
    degraded = Problem(UUID(int=9), EventType.ACCOUNT_DEGRADED, from_us(clock.us), opening)
    await store.record(source_change(account, problems=opened(degraded)))
    return [*found, degraded]


PROBLEMS: Sequence[tuple[dict[str, Any], list[int]]] = (
    ({"is_open": None}, [3, 1, 9, 2]),
    ({"is_open": True}, [3, 1, 9]),
    ({"is_open": False}, [2]),
    ({"kinds": ["account.degraded"]}, [9]),
    ({"kinds": ["account.degraded", "execution.overdue"]}, [3, 1, 9, 2]),
    ({"kinds": ["sink.failing"]}, []),
    ({"accounts": ["default"]}, [3, 1, 9, 2]),
    ({"accounts": ["other"]}, []),
    ({"is_of_pipeline": lambda name: name == f"default/{PIPELINE}"}, [3, 1, 2]),
    ({"is_of_pipeline": lambda _: False}, []),
    ({"since": Micros(START_US + 2)}, [3, 2]),
    ({"is_open": True, "kinds": ["execution.overdue"], "since": Micros(START_US + 2)}, [3]),
    ({"is_open": False, "accounts": ["default"]}, [2]),
)


@pytest.mark.parametrize("few", [listing.FEW_COUNT, 0])  # as where very many are open
async def test_problems_are_listed_by_state_kind_account_pipeline_and_opening(
    rig: StoreRig, store: SqlStore, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(listing, "FEW_COUNT", few)
    await open_problems(rig.store, rig.account, rig.clock)
    for how, found in PROBLEMS:
        pages = await walk(partial(ask_problems, store, {"limit": 2, **how}))
        assert problems_in(row for page in pages for row in page) == found, how


@pytest.mark.parametrize("is_open", [True, False])
async def test_an_open_slow_problem_has_its_oldest_start(rig: StoreRig, store: SqlStore, is_open: bool) -> None:
    slow = Problem(UUID(int=5), EventType.PIPELINE_SLOW, from_us(START_US), EventKey(b"\7" * 16, 1))
    for problems in (opened(slow), () if is_open else closed(slow)):
        await rig.store.record(SourceChange(rig.account, 0, 0, problems=problems, pipeline=PIPELINE))
    open_from = {1: 40, 2: 30, 3: 20, 4: 10}
    for number, second in open_from.items():
        known: dict[str, Any] = {"started_at": START_US + second * SECOND_US, "was_paused": number == 3}
        pipeline = OTHER if number == 4 else PIPELINE
        await rig.store.record(executed(rig.account, number, pipeline=pipeline, **known))
    ended: dict[str, Any] = {"started_at": START_US, "end_seen_at": START_US + SECOND_US, "status": "success"}
    await rig.store.record(executed(rig.account, 6, **ended))
    (row,) = (await load_problems(store, limit=5))[0]
    assert row.slowest_from == (START_US + 30 * SECOND_US if is_open else None)


async def test_unacknowledged_problems_come_first_and_closed_ones_last(rig: StoreRig, store: SqlStore) -> None:
    await open_problems(rig.store, rig.account, rig.clock)

    def acknowledge(connection: Connection) -> None:
        for number, until in ((3, None), (9, START_US - 1)):  # the acknowledgement of 9 is over
            values = {"acked_at": START_US - 2, "acked_until": until}
            connection.execute(update(problem).where(problem.c.id == UUID(int=number).bytes).values(**values))

    await rig.store.write(acknowledge)
    for limit in (1, 2, 3, 5):
        pages = await walk(partial(ask_problems, store, {"limit": limit}))
        assert problems_in(row for page in pages for row in page) == [1, 9, 3, 2]
        assert all(len(page) == limit for page in pages[:-1])


async def test_the_problems_of_one_incident_are_listed(rig: StoreRig, store: SqlStore) -> None:
    await open_problems(rig.store, rig.account, rig.clock)

    def join(connection: Connection) -> None:
        sink_id = connection.scalar(select(source.c.id).where(source.c.kind == "sink"))
        for number, key in ((3, 50), (2, 50), (1, 51)):
            row = {"problem_id": UUID(int=number).bytes, "sink_id": sink_id, "key": UUID(int=key).bytes}
            connection.execute(insert(incident).values(**row, nth=1, begun_at=START_US))

    await rig.store.write(join)
    for is_open, found in ((None, [3, 2]), (True, [3]), (False, [2])):
        how = {"incident_key": UUID(int=50), "is_open": is_open, "limit": 1}
        pages = await walk(partial(ask_problems, store, how))
        assert problems_in(row for page in pages for row in page) == found
    assert await load_problems(store, incident_key=UUID(int=52), limit=1) == ([], None)


async def test_the_time_of_a_place_is_that_of_its_event_or_the_next(rig: StoreRig, store: SqlStore) -> None:
    await rig.store.record(executed(rig.account, 1))
    assert await load_recorded_at(store, 0) == await load_recorded_at(store, 1) == rig.clock.steady_us()
    assert await load_recorded_at(store, 2) is None


async def test_a_problem_is_shown_with_all_that_was_told_of_it(rig: StoreRig, store: SqlStore) -> None:
    problems = await open_problems(rig.store, rig.account, rig.clock)
    key, type_ = stream_of("sinks/ops"), EventType.PROBLEM_REMINDER
    reminder = Event(UUID(int=50), type_, key, 1, b"reminder", stream_of("x"), problem=problems[1].id)
    await rig.store.record(SourceChange(rig.ops.lease, 0, 1, None, (OutboxEntry(reminder, ("ops",)),)))
    found = await load_problem(store, problems[1].id)
    assert found is not None
    row, (bodies, deliveries) = found
    assert row.closed_at is not None
    assert [body[-4:-2] for body in bodies[:2]] == [b"-1", b"-2"]
    assert bodies[2:] == [b"reminder"]
    assert len(deliveries) == 3
    assert await load_problem(store, UUID(int=77)) is None


@on_both
async def test_the_overview_has_what_needs_somebody(rig: StoreRig, store: SqlStore) -> None:
    await open_problems(rig.store, rig.account, rig.clock)
    gap = Event(UUID(int=60), EventType.PIPELINE_GAP, stream_of("gap"), 1, b"gap", stream_of("gap"))
    await rig.store.record(SourceChange(rig.ops.lease, 0, 1, "failing", (OutboxEntry(gap, ()),)))
    for each in (await due(rig.ops))[:2]:
        await settle(rig.ops, each, state=DeliveryState.DEAD)
    found = await load_overview(store, since=Micros(START_US - 1))
    assert [UUID(bytes=row.id).int for row in found.others] == [9]
    bodies = await load_problems_by_id(store, [UUID(int=number).bytes for number in (3, 77, 9)])
    assert problems_in(bodies) == [3, 9]
    assert sorted(UUID(bytes=row.id).int for row in found.overdue) == [1, 3]
    assert [row.body for row in found.gaps] == [b"gap"]
    assert (found.dead["ops"].all_count, found.dead["ops"].late_count) == (2, 2)
    assert {(row.kind, row.name): row.state for row in found.sources}["sink", "ops"] == "failing"
    later = await load_overview(store, since=Micros(START_US + SECOND_US))
    assert (later.gaps, later.dead["ops"].all_count, later.dead["ops"].late_count) == ([], 2, 0)
