"""The store through PgBouncer in transaction mode, which gives each transaction another connection."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from copies import Databases, copy, rows_of
from pgbouncer import installed, pooled
from postgres import PostgresServer
from sqlalchemy import Connection
from stores import backlog_of, change, claim, due, executions_of, sink_of
from virtual import FakeClock

from watcher.store.sql_store import open_store

pytestmark = installed


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """Give a database's URL that leads through it."""
    with postgres.database() as direct, pooled(postgres, direct) as through:
        yield through


async def test_many_write_and_read_through_it(url: str) -> None:
    stores = [await open_store(url, clock=FakeClock()) for _ in range(3)]
    accounts = [await claim(store, "account", f"of-{number}") for number, store in enumerate(stores)]
    ops = await sink_of(stores[0])
    owners = list(zip(stores, accounts, (0, 100, 200), strict=True))
    for number in range(20):
        await asyncio.gather(*(store.record(change(account, first + number)) for store, account, first in owners))
        await asyncio.gather(*(backlog_of(store) for store in stores))
    assert [len(await executions_of(store, account)) for store, account, _ in owners] == [20, 20, 20]
    assert len(await due(ops, now=FakeClock().steady_us())) == 60
    for store in stores:
        await store.close()


async def test_each_transaction_through_it_turns_compiling_off(url: str) -> None:
    store = await open_store(url, clock=FakeClock())
    ways: list[Callable[[Callable[[Connection], Any]], Awaitable[Any]]] = [store.read, store.write]
    for run in ways * 3:
        assert await run(lambda connection: connection.exec_driver_sql("SHOW jit").scalar()) == "off"
    await store.close()


async def test_a_store_is_copied_through_it_in_both_directions(
    url: str, tmp_path: Path, postgres: PostgresServer
) -> None:
    with ExitStack() as stack:
        databases = Databases(tmp_path, stack, postgres)
        source, target = await databases.full("sqlite"), databases.nothing("sqlite")
        copy(source, url)
        copy(url, target)
        assert rows_of(target) == rows_of(source)
