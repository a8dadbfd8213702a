"""Maintenance and owners lock the same rows in one order: neither is broken off because they wait in a circle."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest
from postgres import PostgresServer
from stores import (
    DAY_US,
    PIPELINE,
    START_US,
    SetClock,
    change,
    claim,
    event,
    execution_id,
    from_us,
    pipeline_change,
    sink_of,
    source_change,
    stream_of,
    upkeep,
)

from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.rules import End, RuleState, UnjudgedEnd
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import SourceChange
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.sql_store import SqlStore, open_store

AT = from_us(START_US)
LATER = Micros(START_US + 3 * DAY_US)
RULES = RuleState((End(5, failed=True),), 3, 4)


def problem(kind: EventType, subject: str) -> Problem:
    return Problem(UUID(int=1), kind, AT, EventKey(stream_of(subject), 1))


OVERDUE = problem(EventType.EXECUTION_OVERDUE, execution_id(1))
DEGRADED = problem(EventType.ACCOUNT_DEGRADED, "accounts/default")


async def close(tidied: MaintenanceStore, closed: Problem) -> None:
    emitted = event(f"problems/{closed.id}", sequence=1, type_=EventType.PROBLEM_CLOSED)
    assert await tidied.close_problems([(OutboxEntry(emitted, ()), ProblemChange(closed, closed_at=AT))]) == 1


async def an_overdue_execution(store: SqlStore) -> None:
    account = await claim(store, "account", "default")
    opened = (ProblemChange(OVERDUE, is_new=True),)
    await store.record(replace(change(account, overdue_sequence=1), problems=opened))


async def a_degraded_account(store: SqlStore) -> None:
    account = await claim(store, "account", "default")
    opened = (ProblemChange(DEGRADED, is_new=True),)
    await store.record(replace(source_change(account, state="unauthorized"), problems=opened))


async def a_pipeline_with_rules(store: SqlStore) -> None:
    account = await claim(store, "account", "default")
    waiting = (UnjudgedEnd(execution_id(1), End(7, failed=True)),)
    await store.record(SourceChange(account, 0, 0, pipeline=PIPELINE, rules=RULES, unjudged=waiting))


async def a_pipeline_absent_for_long(store: SqlStore) -> None:
    account = await claim(store, "account", "default")
    await store.record(pipeline_change(account, cursor=Cursor(START_US)))
    await (await upkeep(store)).mark_absent_pipelines(present=(), now=START_US)


async def two_sinks(store: SqlStore) -> None:
    for name in ("zebra", "ant"):
        await (await sink_of(store, name)).load(fingerprint="")


Prepare = Callable[[SqlStore], Awaitable[None]]
Tidy = Callable[[MaintenanceStore], Awaitable[object]]


@pytest.mark.parametrize(
    ("prepare", "first", "then", "tidy"),
    [
        (
            an_overdue_execution,
            "UPDATE execution SET status = status",
            "UPDATE problem SET failed_count = 1",
            lambda tidied: close(tidied, OVERDUE),
        ),
        (
            a_degraded_account,
            "UPDATE source SET state = state WHERE kind = 'account'",
            "UPDATE problem SET failed_count = 1",
            lambda tidied: close(tidied, DEGRADED),
        ),
        (
            a_pipeline_with_rules,
            "DELETE FROM unjudged_end",
            "UPDATE source SET rules = rules WHERE kind = 'pipeline'",
            lambda tidied: tidied.forget_rules(present=()),
        ),
        (
            a_pipeline_absent_for_long,
            "UPDATE source SET sequence = sequence WHERE kind = 'pipeline'",
            "DELETE FROM scan",
            lambda tidied: tidied.mark_absent_pipelines(present=(), now=LATER),
        ),
        (
            two_sinks,
            "UPDATE source SET state = state WHERE name = 'zebra'",
            "UPDATE source SET state = state WHERE name = 'ant'",
            lambda tidied: tidied.mark_absent_sinks(present=(), now=LATER, dead_after_us=DAY_US),
        ),
    ],
    ids=["execution", "account", "rules", "pipeline", "sinks"],
)
async def test_maintenance_waits_for_an_owner_that_writes_the_same_and_keeps_nothing_from_it(
    postgres: PostgresServer, prepare: Prepare, first: str, then: str, tidy: Tidy
) -> None:
    with postgres.database() as url:
        store = await open_store(url, clock=SetClock())
        await prepare(store)
        tidied = await upkeep(store)
        with psycopg.connect(url) as owner:
            owner.execute(first.encode())
            tidying = asyncio.ensure_future(tidy(tidied))
            await asyncio.to_thread(postgres.wait_for_lock, url)
            await asyncio.to_thread(owner.execute, then.encode())
            owner.commit()
        await tidying
        await store.close()
