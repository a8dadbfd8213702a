"""The store on a server that compiles plans, as Debian's does by default: what the program asks is never compiled."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from copies import Databases, copy, rows_of
from pgbouncer import installed, pooled
from postgres import WITH_LLVM, PostgresServer, llvm_installed, postgres_server
from sqlalchemy import Connection
from stores import backlog_of, change, claim, due, executions_of, settle, sink_of
from virtual import FakeClock

from watcher.domain.timestamps import NEVER
from watcher.store.console_store import ConsoleStore
from watcher.store.leases import MAINTENANCE, RenewRequest
from watcher.store.sql_store import open_store

EVERY_PLAN = {
    "jit_above_cost": "1",  # all that reads a table
    "shared_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "log_min_messages": "log",
}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that compiles every plan unless it is told not to, and logs each with what was compiled."""
    assert WITH_LLVM is not None
    with postgres_server(WITH_LLVM.parent.parent / "bin", **EVERY_PLAN) as server:
        yield server


def plans(log: str, words: str) -> list[str]:
    """Return the plans that contain these words."""
    return [plan for plan in log.split("duration: ") if words in plan]


@llvm_installed
async def test_no_statement_of_the_program_is_compiled(server: PostgresServer) -> None:
    server.run("SELECT count(*) AS of_somebody_else FROM pg_class")
    assert all("JIT:" in plan for plan in plans(server.log, "of_somebody_else"))
    with server.database() as url:
        before = len(server.log)
        store = await open_store(url, clock=FakeClock())
        account, ops = await claim(store, "account", "default"), await sink_of(store)
        await store.record(change(account, 1))
        await settle(ops, *await due(ops, now=FakeClock().steady_us()))
        request = RenewRequest("replica", "fingerprint", {account: ""}, {MAINTENANCE: ""})
        assert len((await store.leases.renew(request)).taken) == 1
        console = ConsoleStore(store)
        assert (await console.overview(since=NEVER)).sources
        assert (await console.executions(limit=50))[0]
        await store.close()
        log = server.log[before:]
    ours = ("UPDATE lease", "FROM lease", "LEFT JOIN snapshot", "FROM execution", "INSERT INTO event", "FROM pg_")
    assert [words for words in ours if not plans(log, words)] == []
    assert plans(log, "JIT:") == []


# PgBouncer in transaction mode gives each transaction another connection


@pytest.fixture
def pooled_url(postgres: PostgresServer) -> Iterator[str]:
    """Give a database's URL that leads through it."""
    with postgres.database() as direct, pooled(postgres, direct) as through:
        yield through


@installed
async def test_many_write_and_read_through_it(pooled_url: str) -> None:
    stores = [await open_store(pooled_url, clock=FakeClock()) for _ in range(3)]
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


@installed
async def test_each_transaction_through_it_turns_compiling_off(pooled_url: str) -> None:
    store = await open_store(pooled_url, clock=FakeClock())
    ways: list[Callable[[Callable[[Connection], Any]], Awaitable[Any]]] = [store.read, store.write]
    for run in ways * 3:
        assert await run(lambda connection: connection.exec_driver_sql("SHOW jit").scalar()) == "off"
    await store.close()


@installed
async def test_a_store_is_copied_both_ways(pooled_url: str, tmp_path: Path, postgres: PostgresServer) -> None:
    with ExitStack() as stack:
        databases = Databases(tmp_path, stack, postgres)
        source, target = await databases.full("sqlite"), databases.nothing("sqlite")
        copy(source, pooled_url)
        copy(pooled_url, target)
        assert rows_of(target) == rows_of(source)
