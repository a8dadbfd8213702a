"""The store on a server that compiles plans, as Debian's does by default: what the program asks is never compiled."""

from collections.abc import Iterator

import pytest
from postgres import WITH_LLVM, PostgresServer, llvm_installed, postgres_server
from stores import change, claim, due, settle, sink_of
from virtual import FakeClock

from watcher.domain.timestamps import NEVER
from watcher.store.console_store import ConsoleStore
from watcher.store.leases import MAINTENANCE, RenewRequest
from watcher.store.sql_store import open_store

pytestmark = llvm_installed

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
