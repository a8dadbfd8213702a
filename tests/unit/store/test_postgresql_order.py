"""What several processes do to one database at once: they lock in one order, and tell each other what they record."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast
from uuid import UUID

import psycopg
import pytest
from postgres import PostgresServer
from sqlalchemy import Connection, text
from stores import (
    DAY_US,
    PIPELINE,
    START_US,
    SetClock,
    change,
    claim,
    closed,
    due,
    event,
    execution_id,
    from_us,
    opened,
    pipeline_change,
    settle,
    silence,
    sink_of,
    source_change,
    stream_of,
    upkeep,
)

from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.history import EndedExecution
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import Lease, SourceChange
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.recording import GroupWork, write_group
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore, open_store

AT = from_us(START_US)
LATER = Micros(START_US + 3 * DAY_US)
RULES = '{"silent": {"started_at": 3}}'


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
    waiting = (EndedExecution(Micros(7), Micros(7), "failed", execution=execution_id(1)),)
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


# An opening that is released while another replica closes its problem: the closing goes to the sink, too

OPENING = EventKey(stream_of("accounts/default"), 1)
SILENCED = Problem(UUID(int=5), EventType.ACCOUNT_DEGRADED, SetClock().now(), OPENING)
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

Work = Callable[[Connection], object]


@dataclass
class Caught:
    """A store that does not write what it is asked to, but keeps it."""

    store: SqlStore
    works: list[Work] = field(default_factory=list)

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    async def write(self, work: Work, **_lease: object) -> None:
        self.works.append(work)


@dataclass
class Replicas:
    """The one that owns the account, and the one that owns the sink, whose opening is silenced."""

    polls: SqlStore
    sends: SqlStore
    account: Lease
    ops: SinkStore
    releases: Work

    def closing(self) -> SourceChange:
        return source_change(self.account, sequence=2, sinks=(), problems=closed(SILENCED))

    def closes(self, connection: Connection) -> None:
        work = GroupWork([self.closing()])
        write_group(connection, work, outbox=self.polls.outbox, leases=None, now=START_US)

    async def at_once(self, first: Work, second: Work, *, by: SqlStore, beside: SqlStore) -> None:
        """Do both in transactions that overlap: the first ends once the second has ended, or waits for it."""
        is_done, may_end = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def hold(connection: Connection) -> None:
            first(connection)
            loop.call_soon_threadsafe(is_done.set)
            may_end.wait(2)

        holding = asyncio.ensure_future(by.database.write(hold))
        await is_done.wait()
        following = asyncio.ensure_future(beside.database.write(second))
        while not following.done() and not await by.database.read(lambda reading: reading.scalar(text(WAITS))):
            pass
        may_end.set()
        await asyncio.gather(holding, following)


@pytest.fixture
async def replicas(postgres: PostgresServer) -> AsyncIterator[Replicas]:
    with postgres.database() as url:
        open_one = partial(open_store, url, clock=SetClock())
        polls, sends = await open_one(), await open_one()
        account, ops = await claim(polls, "account", "default"), await sink_of(sends)
        await polls.record(source_change(account, problems=opened(SILENCED)))
        await silence(ops, *await due(ops))
        caught = Caught(sends)
        await SinkStore(cast("SqlStore", caught), ops.lease).release()
        yield Replicas(polls, sends, account, ops, *caught.works)
        await polls.close()
        await sends.close()


@pytest.mark.ci
@pytest.mark.parametrize("first", ["release", "closing"])
async def test_what_is_let_go_while_it_is_closed_is_closed_where_it_was_opened(replicas: Replicas, first: str) -> None:
    if first == "release":
        await replicas.at_once(replicas.releases, replicas.closes, by=replicas.sends, beside=replicas.polls)
    else:
        await replicas.at_once(replicas.closes, replicas.releases, by=replicas.polls, beside=replicas.sends)
    sent: list[tuple[bool, bool]] = []
    while waiting := await due(replicas.ops):
        sent += [(each.closes, each.is_opening_sent) for each in waiting]
        await settle(replicas.ops, *waiting)
    assert sent == [(False, True), (True, True)]
