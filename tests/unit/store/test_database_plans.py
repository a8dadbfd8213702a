"""How a database carries out what is asked often: a dead sink with very much that waits must cost no other."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from plans import UNCHECKED
from postgres import PostgresServer
from sqlalchemy import ClauseElement, Connection, Engine, create_engine, event
from sqlalchemy.dialects.postgresql.asyncpg import dialect as numbering_dialect
from sqlalchemy.dialects.sqlite import dialect
from stores import START_US, SetClock, open_soon

from watcher.store import (
    account_store,
    deliveries,
    incidents,
    leases,
    maintenance_store,
    operator_store,
    problems,
    recording,
    sink_store,
)
from watcher.store.database import HotStatement
from watcher.store.postgresql import PostgresDatabase
from watcher.store.tables import metadata
from watcher.web.problems import load_problems

Statement = ClauseElement | HotStatement

OF_DELIVERIES: list[Statement] = [
    deliveries._WRITE_ATTEMPT,
    deliveries._POSTPONE_BLOCKED,
    deliveries.UNBLOCK,
    deliveries.CALL_FORWARD,
    deliveries.HEADS,
    deliveries._NEVER_TRIED,
    deliveries._OPENING,
    recording._CALL_OPENING_FORWARD,
    recording._DELIVERY,
    recording._SINKS_OF,
    sink_store._NOTE_FIRST_DUE,
    sink_store._TOO_OLD,
    sink_store._MAKE_DEAD,
    sink_store._RELEASE_OPENING,
    sink_store._RELEASE_ACKNOWLEDGEMENTS,
    operator_store._REPLAY,
    maintenance_store._DELETE_STREAM_DELIVERIES,
    maintenance_store._DELETE_STREAM_EVENTS,
    maintenance_store._DELETE_EVENT_DELIVERIES,
    maintenance_store._DELETE_EVENT,
    maintenance_store._EXPIRE,
]
OTHERS: list[Statement] = [
    incidents._MEMBER,
    incidents._LAST_NTH,
    incidents._UNRESOLVED,
    incidents._OPEN,
    incidents._RESOLVED,
    deliveries._WAITING_OF_INCIDENT,
    deliveries._INCIDENTS_WITH_NEWS,
    deliveries._NEXT_DUE,
    problems.MESSAGE_OF_PROBLEM,
    problems.MESSAGE_OF_FAILING,
    recording._WRITE_SOURCE,
    recording._WRITE_BACKOFF,
    recording._WRITE_EXECUTION,
    recording.FORGET_SCAN,
    recording.MARK_SOURCE,
    account_store._SAVE_POLL_TIMES,
    account_store._CURSOR,
    account_store._OPEN,
    account_store._ENDS,
    maintenance_store._ENDED,
    maintenance_store._NOTE_EMPTY,
    maintenance_store._DELETE_EMPTY,
    maintenance_store._OLD_EVENTS,
]

COUNT = 50_000
"""Pending deliveries of one sink, each with its own ordering key, half of them tried; another sink took as many."""

FILL = (
    "INSERT INTO source (id, kind, name) VALUES (1, 'account', 'a'), (2, 'sink', 'dead'), (3, 'sink', 'alive')",
    """
    INSERT INTO event (id, event_id, stream, sequence, type, source_id, recorded_at, closes, body)
    SELECT n, {bytes}, {bytes}, 1, 'execution.new', 1, n, false, {bytes} FROM {numbers} AS numbers
    """,
    """
    INSERT INTO delivery (number, sink_id, ordering_key, group_key, state, recorded_at, due_at, tried)
    SELECT n, 2, {bytes}, {group}, 'waiting', n, n, n % 2 = 0 FROM {numbers} AS numbers
    """,
    """
    INSERT INTO delivery (number, sink_id, ordering_key, state, recorded_at, due_at, tried)
    SELECT n, 3, {bytes}, 'delivered', n, n, true FROM {numbers} AS numbers
    """,
)


def plain(statement: Statement) -> ClauseElement:
    return statement.statement if isinstance(statement, HotStatement) else statement


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    """An SQLite database, whose plans do not depend on what is in it."""
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def plan(connection: Connection, statement: Statement) -> list[str]:
    sql = str(plain(statement).compile(dialect=dialect()))
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", (1,) * sql.count("?"))
    return [row.detail for row in rows]


def test_what_is_due_is_read_off_the_front_of_the_index(connection: Connection) -> None:
    steps = plan(connection, deliveries.HEADS)
    assert [step for step in steps if step.startswith(("SEARCH", "USE TEMP"))] == [
        "SEARCH delivery USING INDEX delivery_due (sink_id=? AND tried=?)",
        "SEARCH earlier USING COVERING INDEX delivery_ordering_key (ordering_key=? AND number<?)",
        "SEARCH event USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH later USING COVERING INDEX delivery_ordering_key (ordering_key=? AND number>?)",
    ] * 2


def test_the_rest_of_a_group_is_read_in_its_order(connection: Connection) -> None:
    steps = plan(connection, deliveries._MEMBERS)
    assert "SEARCH delivery USING INDEX delivery_group (group_key=?)" in steps
    assert not [step for step in steps if step.startswith(("SCAN", "USE TEMP"))]


@pytest.mark.parametrize("statement", [each for each in (*OF_DELIVERIES, *OTHERS) if each is not deliveries.HEADS])
def test_no_statement_reads_a_whole_table_or_sorts(connection: Connection, statement: Statement) -> None:
    steps = plan(connection, statement)
    assert not [step for step in steps if step.startswith(("SCAN", "USE TEMP B-TREE"))]


@pytest.mark.parametrize("asked", [{}, {"since": START_US}, {"kinds": ["sink.failing"], "accounts": ["default"]}])
async def test_open_problems_are_found_by_an_index_of_these_alone(tmp_path: Path, asked: dict[str, Any]) -> None:
    plans: list[str] = []

    def note(connection: Any, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if "FROM problem" in statement:
            driver = connection.connection.driver_connection
            plans.append(str(driver.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()))

    store = await open_soon(tmp_path / "watcher.db", clock=SetClock())
    event.listen(Engine, "before_cursor_execute", note)
    await load_problems(store, is_open=True, limit=50, **asked)
    event.remove(Engine, "before_cursor_execute", note)
    await store.close()
    assert ["USING INDEX problem_open" in plans[0], "problem_opened" in plans[0]] == [True, False]


# PostgreSQL, which chooses by what is in its tables


@pytest.fixture(params=[0, COUNT], ids=["empty", "full"])
async def database(postgres: PostgresServer, request: pytest.FixtureRequest) -> AsyncIterator[PostgresDatabase]:
    """A PostgreSQL database in which nothing waits, or very much."""
    with postgres.database() as url:
        if request.param:
            await asyncio.to_thread(fill, url)
        database = PostgresDatabase(url, password=None, clock=SetClock())
        yield database
        await database.close()


def fill(url: str) -> None:
    numbers = f"(SELECT generate_series(1, {COUNT}) AS n)"
    values = {"bytes": "decode(md5(n::text), 'hex')", "group": "decode(md5((n % 100)::text), 'hex')"}
    with psycopg.connect(url) as connection:
        connection.execute(UNCHECKED)
        for statement in FILL:
            connection.execute(statement.format(numbers=numbers, **values).encode())
        connection.execute("ANALYZE")


async def postgres_plan(database: PostgresDatabase, statement: Statement) -> list[str]:
    sql = str(plain(statement).compile(dialect=cast("Any", numbering_dialect)()))
    asked = f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {sql}"
    execution = {"no_parameters": True}
    rows = await database.read(lambda found: found.exec_driver_sql(asked, execution_options=execution).all())
    return [row[0].strip(" ->") for row in rows]


BY_ORDERING_KEY: list[Statement] = [
    deliveries.HEADS,
    deliveries._MEMBERS,
    deliveries._POSTPONE_BLOCKED,
    deliveries.UNBLOCK,
    recording._DELIVERY,
]
BY_NUMBER: list[Statement] = [
    deliveries._WRITE_ATTEMPT,
    sink_store._MAKE_DEAD,
    sink_store._RELEASE_OPENING,
    sink_store._RELEASE_ACKNOWLEDGEMENTS,
]


async def test_no_statement_reads_a_whole_table_or_sorts_on_postgresql(database: PostgresDatabase) -> None:
    for statement in (*OF_DELIVERIES, *OTHERS, leases._HELD):
        steps = await postgres_plan(database, statement)
        whole = [step for step in steps if step.startswith("Seq Scan") or step == "Sort"]
        assert not whole, f"{plain(statement)}\n" + "\n".join(steps)
    plans = {each: " ".join(await postgres_plan(database, each)) for each in (*OF_DELIVERIES, deliveries._MEMBERS)}
    assert [plans[each] for each in BY_ORDERING_KEY if "delivery_ordering_key on delivery" not in plans[each]] == []
    assert [plans[each] for each in BY_NUMBER if "delivery_pkey on delivery" not in plans[each]] == []
    assert "delivery_pkey" not in plans[sink_store._TOO_OLD] + plans[deliveries.CALL_FORWARD]
    assert plans[deliveries.HEADS].count("delivery_due on delivery") == 2
    assert "delivery_group on delivery" in plans[deliveries._MEMBERS]
