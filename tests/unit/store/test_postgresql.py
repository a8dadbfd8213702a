"""What is PostgreSQL's own: opening a database, several at once, and what its errors mean."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from copies import Databases, copy, rows_of
from pgbouncer import installed, pooled
from postgres import EMPTY, WITH_LLVM, WITH_PASSWORD, PostgresServer, llvm_installed, postgres_server, shape
from sqlalchemy import Connection, create_engine
from stores import CLAIMANT, backlog_of, change, claim, due, executions_of, settle, sink_of
from structlog.testing import capture_logs
from virtual import FakeClock

from watcher.domain.errors import (
    Exit,
    OwnershipLostError,
    SequenceConflictError,
    StoreError,
    StoreNotReadyError,
    StoreUnusableError,
)
from watcher.domain.timestamps import NEVER
from watcher.runtime.clock import Clock
from watcher.store import postgresql
from watcher.store.account_store import AccountStore
from watcher.store.changes import Lease
from watcher.store.leases import MAINTENANCE, PostgresLeases, RenewRequest, key_of
from watcher.store.postgresql import RECONNECT_AFTER_S, PostgresDatabase, ServerConnection
from watcher.store.sql_store import SqlStore, open_store
from watcher.store.tables import metadata
from watcher.web.executions import load_executions
from watcher.web.overview import load_overview

ITS_OWN = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture
def empty(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database(EMPTY) as url:
        yield url


async def opened(url: str, *, clock: Clock | None = None, password: str | None = None) -> SqlStore:
    return await open_store(url, clock=clock or FakeClock(), password=password)


async def opened_as_the_daemon_does(url: str) -> SqlStore:
    """Open a store, again and again while another process is at its tables for longer than a lock is waited for."""
    while True:
        with suppress(StoreNotReadyError):
            return await opened(url)


@pytest.fixture
async def store(url: str, clock: FakeClock) -> AsyncIterator[SqlStore]:
    store = await opened(url, clock=clock)
    yield store
    await store.close()


async def test_it_says_how_far_the_servers_clock_is_ahead(url: str) -> None:
    clock = Clock()
    clock.advance(-3_600_000_000)
    store = await opened(url, clock=clock)
    assert store.server_ahead_us == pytest.approx(3_600_000_000, abs=2_000_000)
    await store.close()


async def refusal(url: str, *, password: str | None = None) -> str:
    with pytest.raises(StoreUnusableError) as caught:
        await opened(url, password=password)
    assert caught.value.exit_code is Exit.USAGE
    return str(caught.value)


async def test_the_migrations_make_what_the_tables_say(postgres: PostgresServer, url: str, empty: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(empty))
    metadata.create_all(engine)
    engine.dispose()
    assert shape(postgres, url) == shape(postgres, empty)


@pytest.mark.ci
async def test_of_several_that_open_an_empty_database_at_once_one_makes_the_tables(empty: str) -> None:
    stores = await asyncio.gather(*(opened_as_the_daemon_does(empty) for _ in range(4)))
    assert sorted(store.created for store in stores) == [False, False, False, True]
    for store in stores:
        await store.close()


async def test_a_database_of_somebody_else_is_left_alone(postgres: PostgresServer, empty: str) -> None:
    postgres.run("CREATE TABLE theirs (id int)", empty)
    assert "is a database, but not one of clerk-watcher; name another" in await refusal(empty)


async def test_a_database_that_is_not_there_must_be_made(postgres: PostgresServer) -> None:
    assert 'database "nowhere" does not exist; see its URL' in await refusal(postgres.url("nowhere"))


@pytest.mark.parametrize("mistake", ["sslmode=sometimes", "port=99999", "port=1,2"])
async def test_what_libpq_refuses_in_the_url_must_be_corrected(url: str, mistake: str) -> None:
    assert "cannot be connected to" in await refusal(f"{url}&{mistake}")


async def test_a_right_that_is_missing_is_named_before_the_first_change(postgres: PostgresServer, url: str) -> None:
    postgres.run("CREATE ROLE limited LOGIN")
    grants = (
        "GRANT USAGE ON SCHEMA public TO limited",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO limited",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO limited",
    )
    for grant in grants:
        postgres.run(grant, url)
    limited = url.replace("postgres@", "limited@")
    await (await opened(limited)).close()
    postgres.run("REVOKE INSERT ON event FROM limited; REVOKE USAGE ON SEQUENCE event_id_seq FROM limited", url)
    assert await refusal(limited) == (
        f"{limited.partition('?')[0]} refuses this user INSERT on event, USAGE of its sequence on event;"
        " grant it SELECT, INSERT, UPDATE and DELETE on all tables of its schema, and USAGE on all sequences"
    )


async def test_a_schema_that_is_not_there_must_be_made(empty: str) -> None:
    message = await refusal(f"{empty}&options=-csearch_path%3Dgone")
    assert "has no schema of its search_path; create the schema" in message


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_keep_every_name_is_refused_first(postgres: PostgresServer, encoding: str) -> None:
    with postgres.database(f"{EMPTY} ENCODING '{encoding}'") as url:
        assert f"has the encoding {encoding}, which cannot hold every text; create it" in await refusal(url)
        assert postgres.run("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", url) == []


async def test_a_password_that_is_wrong_must_be_corrected_and_is_not_shown(postgres: PostgresServer, url: str) -> None:
    postgres.run(f"CREATE ROLE {WITH_PASSWORD} LOGIN PASSWORD 'right'")
    for kind in ("TABLES", "SEQUENCES"):
        postgres.run(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {WITH_PASSWORD}", url)
    theirs = url.replace("postgres@", f"{WITH_PASSWORD}@")
    assert "password authentication failed" in (text := await refusal(theirs, password="hunter2"))
    assert "hunter2" not in text
    assert "no password supplied" in await refusal(theirs)
    await (await opened(theirs, password="right")).close()


async def test_what_the_url_leaves_out_comes_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", url.partition("host=")[2])
    monkeypatch.setenv("PGUSER", "postgres")
    await (await opened(f"postgresql:///{url.partition('@/')[2].partition('?')[0]}")).close()


async def test_a_server_that_does_not_run_may_run_later() -> None:
    with pytest.raises(StoreNotReadyError, match=r"postgresql://127\.0\.0\.1:1/x cannot be connected to: .*refused"):
        await opened("postgresql://127.0.0.1:1/x")


async def test_what_is_due_is_read_without_a_lock_to_write(postgres: PostgresServer, url: str, store: SqlStore) -> None:
    account, ops = await claim(store, "account", "default"), await sink_of(store)
    await store.record(change(account))
    with psycopg.connect(url) as stranger:
        stranger.execute("LOCK TABLE lease IN EXCLUSIVE MODE")  # which any write looks into, to keep its owner
        (delivery,) = await due(ops)
        settling = asyncio.create_task(settle(ops, delivery))
        await asyncio.to_thread(postgres.wait_for_lock, url)
    await settling


# A connection that breaks: what its owners believe is not written


async def lost(store: SqlStore, account: Lease, *, sequence: int = 1) -> Lease:
    """Return the lease of the next owner, after what this one writes was refused because a connection broke."""
    with pytest.raises(OwnershipLostError):
        await store.record(change(account, sequence=sequence))
    return await claim(store, "account", "default")


async def test_idle_connections_are_replaced(
    postgres: PostgresServer, url: str, store: SqlStore, account: Lease
) -> None:
    await backlog_of(store)
    postgres.run(OTHERS, url)
    await store.probe_writable()
    assert await executions_of(store, account) == []


async def test_owners_reload_from_the_store_when_a_connection_that_writes_broke(
    postgres: PostgresServer, url: str, store: SqlStore, account: Lease
) -> None:
    await store.record(change(account))
    renewed = asyncio.Event()
    store.leases.renew_now = renewed.set
    postgres.run(OTHERS, url)
    with capture_logs() as logs:
        account = await lost(store, account, sequence=2)
    assert renewed.is_set()
    assert [line["event"] for line in logs] == ["store.connection_lost"]
    await store.record(change(account, sequence=2))
    assert [each.sequence for each in await executions_of(store, account)] == [2]


async def test_a_broken_renewal_loses_them(postgres: PostgresServer, url: str, store: SqlStore, account: Lease) -> None:
    assert isinstance(store.leases, PostgresLeases)
    postgres.run(OTHERS, url)
    sharing = await store.leases.renew(RenewRequest("one", "a test", {account: ""}, {}))
    assert sharing.kept == set()
    await store.record(change(await lost(store, account)))


def break_commit(patch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Have the connection break while the next transaction is committed, before or after the server has done it."""
    commit = psycopg.Connection.commit

    def broken(connection: psycopg.Connection[object]) -> None:
        patch.setattr(psycopg.Connection, "commit", commit)
        if after:
            commit(connection)
        connection.close()
        raise psycopg.OperationalError("the connection is lost")

    patch.setattr(psycopg.Connection, "commit", broken)


@pytest.mark.parametrize("is_committed", [False, True])
async def test_whether_a_commit_without_an_answer_was_done_its_owners_find_in_the_store(
    store: SqlStore, account: Lease, monkeypatch: pytest.MonkeyPatch, *, is_committed: bool
) -> None:
    await store.record(change(account))
    break_commit(monkeypatch, after=is_committed)
    with pytest.raises(StoreError, match="the connection broke"):
        await store.record(change(account, sequence=2))
    account = await lost(store, account, sequence=2)
    assert [each.sequence for each in await executions_of(store, account)] == [1 + is_committed]
    await store.record(change(account, sequence=2 + is_committed))


async def test_a_lease_is_not_taken_anew_while_what_the_broken_connection_wrote_is_being_committed(
    postgres: PostgresServer, url: str, store: SqlStore, account: Lease
) -> None:
    assert isinstance(store.leases, PostgresLeases)
    store.leases.lose_all()
    request = RenewRequest(CLAIMANT, "a test", {account: ""}, {key_of(account): ""})
    with psycopg.connect(url) as broken:
        broken.execute("SELECT 1 FROM lease WHERE name = 'default' FOR KEY SHARE")
        assert (await store.leases.renew(request)).taken == {}
    assert len((await store.leases.renew(request)).taken) == 1


async def test_while_the_server_is_away_an_attempt_is_made_now_and_then(clock: FakeClock) -> None:
    with pytest.raises(StoreNotReadyError):
        await opened("postgresql://127.0.0.1:1/x")
    database = PostgresDatabase("postgresql://127.0.0.1:1/x", password=None, clock=clock)
    attempts = []
    connect = ServerConnection.connect

    def note(*args: str, **how: bool) -> object:
        attempts.append(clock.monotonic())
        return connect(*args, **how)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ServerConnection, "connect", note)
        for _ in range(600):
            with pytest.raises(StoreNotReadyError):
                await database.prepare()
            clock.advance(0.01)
    assert 5 <= len(attempts) <= 12
    assert max(later - earlier for earlier, later in pairwise(attempts)) <= 1.3 * RECONNECT_AFTER_S
    await database.close()


async def test_a_connection_that_freezes_is_waited_for_no_longer_than_it_may_take_and_replaced(
    postgres: PostgresServer, url: str, store: SqlStore, account: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "ANSWER_S", 0.5)
    postgres.run(OTHERS, url)
    account = await lost(store, account)
    await store.record(change(account))
    frozen = [pid for (pid,) in postgres.run(ITS_OWN, url)]
    _signal_all(frozen, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):  # else it would wait for ever
            account = await lost(store, account, sequence=2)
            await store.record(change(account, sequence=2))
    finally:
        _signal_all(frozen, signal.SIGCONT)


def _signal_all(pids: Sequence[int], signum: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


async def test_a_source_that_two_number_has_one_number(postgres: PostgresServer, url: str, store: SqlStore) -> None:
    with psycopg.connect(url) as stranger:
        stranger.execute("INSERT INTO source (kind, name) VALUES ('account', 'default')")
        lease = await claim(store, "account", "default")
        load = asyncio.create_task(AccountStore(store, lease).load_account())
        await asyncio.to_thread(postgres.wait_for_lock, url)
    await load
    await store.record(change(lease))
    assert postgres.run("SELECT count(*) FROM source WHERE kind = 'account'", url) == [(1,)]


@pytest.mark.parametrize(
    ("sqlstate", "kind", "concerns_all"),
    [
        *((code, StoreError, True) for code in ("08006", "57P01", "57P03", "25P03", "25P04", "25006", "28P01")),
        *((code, StoreError, True) for code in ("53100", "53300", "55P03", "57014", "42501", "42P01")),
        *((code, StoreError, False) for code in ("XX000", "25P02", "40001", "40P01", "23502")),
        ("XX001", StoreUnusableError, True),
        ("23505", SequenceConflictError, False),
    ],
)
def test_each_error_has_a_meaning(sqlstate: str, kind: type[StoreError], *, concerns_all: bool) -> None:
    database = PostgresDatabase("postgresql:///watcher", password=None, clock=FakeClock())
    fault = database.explain(psycopg.errors.lookup(sqlstate)("secret"))
    assert (fault.kind, fault.concerns_all) == (kind, concerns_all)
    assert sqlstate in fault.text
    assert "secret" not in fault.text


# A server that compiles plans, as Debian's does by default: what the program asks is never compiled

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
        assert (await load_overview(store, since=NEVER)).sources
        assert (await load_executions(store, limit=50))[0]
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
