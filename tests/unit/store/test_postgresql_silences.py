"""An opening that is released while another replica closes its problem: the closing goes to the sink, too."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from uuid import UUID

import pytest
from postgres import PostgresServer
from sqlalchemy import Connection, text
from stores import START_US, SetClock, claim, closed, due, opened, settle, silence, sink_of, source_change, stream_of

from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem
from watcher.store.changes import Lease, SourceChange
from watcher.store.recording import GroupWork, write_group
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore, open_store

OPENING = EventKey(stream_of("accounts/default"), 1)
PROBLEM = Problem(UUID(int=5), EventType.ACCOUNT_DEGRADED, SetClock().now(), OPENING)
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
        return source_change(self.account, sequence=2, sinks=(), problems=closed(PROBLEM))

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
        await polls.record(source_change(account, problems=opened(PROBLEM)))
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
