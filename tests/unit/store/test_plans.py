"""How a database carries out what is asked often: a dead sink with a million deliveries must cost no other."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from postgres import PostgresServer
from sqlalchemy import ClauseElement, Connection, create_engine
from sqlalchemy.dialects.postgresql.asyncpg import dialect as numbering_dialect
from sqlalchemy.dialects.sqlite import dialect
from stores import SetClock

from watcher.store import deliveries, groups, postgresql_leases, problems, recording, retention, sources
from watcher.store import executions as states
from watcher.store.postgresql import PostgresDatabase
from watcher.store.statement import HotStatement
from watcher.store.tables import metadata

STATEMENTS = [
    deliveries._WRITE_ATTEMPT,
    deliveries._HOLD_BACK,
    deliveries.LET_GO,
    deliveries._NEVER_TRIED,
    deliveries._NOTE_FIRST_DUE,
    deliveries._TOO_OLD,
    deliveries._GIVE_UP,
    deliveries._OF_GROUP,
    groups._UNGROUPED,
    groups._FIX,
    groups._GROUPS,
    groups._ALONE,
    groups._IS_HELD_BACK,
    deliveries._SILENCE,
    deliveries._RELEASE,
    deliveries._REPLAY_SOME,
    deliveries._REPLAY,
    postgresql_leases._HELD,
    recording._SINKS_OF,
    problems._MOVE,
    problems._MESSAGE,
    problems._FAILING,
    sources._WRITE_SOURCE,
    sources._WRITE_BACKOFF,
    states._UPDATE,
    states._SAVE_POLL_TIMES,
    sources._WRITE_PIPELINE,
    sources._CURSOR,
    sources._FORGET_SCAN,
    sources._MARK_PIPELINE,
    retention._ENDED,
    retention._DELETE_STREAM_DELIVERIES,
    retention._DELETE_STREAM_EVENTS,
    retention._NOTE_EMPTY,
    retention._DELETE_EMPTY,
    retention._OLD_EVENTS,
    retention._DELETE_EVENT_DELIVERIES,
    retention._DELETE_EVENT,
    retention._EXPIRE,
]


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


Statement = ClauseElement | HotStatement


def plain(statement: Statement) -> ClauseElement:
    return statement.statement if isinstance(statement, HotStatement) else statement


def plan(connection: Connection, statement: Statement) -> list[str]:
    sql = str(plain(statement).compile(dialect=dialect()))
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", (1,) * sql.count("?"))
    return [row.detail for row in rows]


def test_what_is_due_is_read_off_the_front_of_the_index(connection: Connection) -> None:
    steps = plan(connection, deliveries.HEADS)
    assert [step for step in steps if step.startswith(("SEARCH", "USE TEMP"))] == [
        "SEARCH delivery USING INDEX delivery_due (sink_id=? AND tried=?)",
        "SEARCH earlier USING PRIMARY KEY (stream=? AND sequence<?)",
        "SEARCH event USING INDEX sqlite_autoindex_event_1 (stream=? AND sequence=?)",
    ] * 2


def test_a_new_delivery_looks_at_those_before_it_only(connection: Connection) -> None:
    assert plan(connection, recording._DELIVERY) == [
        "SCALAR SUBQUERY 1",
        "SEARCH ahead USING PRIMARY KEY (stream=? AND sequence<?)",
    ]


def test_what_is_open_is_read_past_all_that_ended(connection: Connection) -> None:
    assert plan(connection, states._OPEN) == [
        "SEARCH execution USING INDEX execution_open (pipeline_id=? AND execution>?)"
    ]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_no_statement_reads_a_whole_table_or_sorts(connection: Connection, statement: Statement) -> None:
    steps = plan(connection, statement)
    assert not [step for step in steps if step.startswith(("SCAN", "USE TEMP B-TREE"))]


def test_whether_a_group_is_held_back_is_seen_from_its_members_alone(connection: Connection) -> None:
    assert plan(connection, groups._IS_HELD_BACK) == [
        "SEARCH delivery USING COVERING INDEX delivery_group (sink_id=? AND group_id=?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH earlier USING PRIMARY KEY (stream=? AND sequence<?)",
    ]


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[PostgresDatabase]:
    with postgres.database() as url:
        database = PostgresDatabase(url, password=None, clock=SetClock())
        yield database
        await database.close()


async def postgres_plan(database: PostgresDatabase, statement: Statement) -> list[str]:
    sql = str(plain(statement).compile(dialect=cast("Any", numbering_dialect)()))
    asked = f"EXPLAIN (GENERIC_PLAN, COSTS OFF) {sql}"
    rows = await database.read(
        lambda found: found.exec_driver_sql(asked, execution_options={"no_parameters": True}).all()
    )
    return [row[0].strip(" ->") for row in rows]


@pytest.mark.parametrize("statement", [*STATEMENTS, deliveries.HEADS, recording._DELIVERY, states._OPEN])
async def test_no_statement_reads_a_whole_table_or_sorts_on_postgresql(
    database: PostgresDatabase, statement: Statement
) -> None:
    steps = await postgres_plan(database, statement)
    assert not [step for step in steps if step.startswith(("Seq Scan", "Sort  "))]
    assert "Sort" not in steps


BY_STREAM = [
    deliveries._WRITE_ATTEMPT,
    deliveries._HOLD_BACK,
    deliveries.LET_GO,
    deliveries._GIVE_UP,
    groups._FIX,
    deliveries._SILENCE,
    recording._DELIVERY,
]


@pytest.mark.parametrize("statement", BY_STREAM)
async def test_what_is_of_a_stream_is_not_sought_among_all_that_waits_on_postgresql(
    database: PostgresDatabase, statement: Statement
) -> None:
    steps = " ".join(await postgres_plan(database, statement))
    assert "delivery_pkey on delivery" in steps
    assert "delivery_due" not in steps


async def test_whether_another_comes_before_is_not_sought_among_all_that_waits_on_postgresql(
    database: PostgresDatabase,
) -> None:
    for statement in (deliveries.HEADS, groups._UNGROUPED):
        steps = " ".join(await postgres_plan(database, statement))
        assert "delivery_pkey on delivery earlier" in steps
