"""A copy of a store has all that its source has, or its target stays empty; meanwhile nobody else uses either."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from copies import COPIED, KINDS, Databases, Heard, copy, nothing_is_left, opened, path_of, rows_of, run
from stores import (
    PIPELINE,
    START_US,
    SetClock,
    change,
    claim,
    due,
    names,
    of,
    pipeline_change,
    release,
    settle,
    sink_of,
)

from watcher.domain.delivery import DeliveryState
from watcher.domain.errors import Exit, StoreError, StoreHeldError, StoreNotReadyError
from watcher.domain.watch import Cursor
from watcher.store.account_store import AccountStore
from watcher.store.copying import CopyStoppedError
from watcher.store.tables import metadata

FACTS = "SELECT key, value FROM meta"

COPY = """
import os, signal, sys
from watcher.runtime.clock import Clock
from watcher.store import copying

copying._PRAGMAS += ("PRAGMA cache_size=10",)  # what is written goes to the disk soon

def kill(table, done, total):
    if table == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

ends = (copying.StoreEnd(url, None, Clock()) for url in sys.argv[1:3])
copying.copy_all(*ends, copied=kill, stopped=lambda: False)
"""


@pytest.fixture(params=[KINDS, KINDS[::-1]], ids="-to-".join)
def pair(request: pytest.FixtureRequest) -> Sequence[str]:
    """Give a source of one kind with a target of the other."""
    return tuple(request.param)


@pytest.mark.parametrize("pair", [(one, other) for one in KINDS for other in KINDS], ids="-to-".join)
async def test_every_row_of_every_table_arrives_as_it_was(databases: Databases, pair: Sequence[str]) -> None:
    source, target = await databases.full(pair[0]), databases.nothing(pair[1])
    before, heard = rows_of(source), Heard()
    counts = copy(source, target, heard=heard)
    assert rows_of(target) == rows_of(source) == before
    assert counts == {table.name: 7 for table in COPIED}
    count = 7 * len(COPIED)
    assert (heard.tables, heard.done, heard.total) == ([table.name for table in COPIED], count, count)


@pytest.mark.ci
async def test_what_is_of_the_processes_that_used_it_stays_behind(databases: Databases, pair: Sequence[str]) -> None:
    source, target = await databases.full(pair[0]), databases.nothing(pair[1])
    run(source, "INSERT INTO meta (key, value) VALUES ('proved_at', '17')")
    run(source, "INSERT INTO lease (kind, name, owner, epoch) VALUES ('sink', 'ops', 'gone', 1)")
    copy(source, target)
    assert {key for key, _ in run(target, FACTS)} == {"schema_version", "oldest_reader"}
    assert run(target, "SELECT * FROM lease") == []


@pytest.mark.ci
async def test_what_a_daemon_left_behind_goes_on_in_the_copy(databases: Databases, pair: Sequence[str]) -> None:
    source, target, clock = databases.nothing(pair[0]), databases.nothing(pair[1]), SetClock()
    store = await opened(source, clock)
    account, ops = await claim(store, "account", "default"), await sink_of(store)
    for number in (1, 2, 3):
        await store.record(change(account, number))
    delivered, dead, _ = await due(ops)
    await settle(ops, delivered)
    await settle(ops, dead, state=DeliveryState.DEAD)
    cursor = Cursor(since_at=START_US, complete_at=START_US, refused=None, found=True, name="Sales", dated=True)
    await store.record(pipeline_change(account, cursor=cursor))
    await release(store)
    await store.close()
    last_number = max(run(source, "SELECT id FROM event"))[0]

    copy(source, target)
    again = await opened(target, clock)
    assert not again.created
    account = await claim(again, "account", "default")
    assert names(await due(await sink_of(again))) == [of(3)]
    assert (await AccountStore(again, account).load_pipeline(PIPELINE)).cursor == cursor
    await again.record(change(account, 1, sequence=2))
    assert max(run(target, "SELECT id FROM event"))[0] == last_number + 1
    await again.close()


async def test_a_file_that_was_written_is_for_its_owner_alone(databases: Databases) -> None:
    target = databases.nothing("sqlite")
    copy(await databases.full("sqlite"), target)
    assert path_of(target).stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in path_of(target).parent.iterdir() if "1.db" in each.name) == [
        "1.db", "1.db.lock"
    ]  # fmt: skip


async def test_what_a_killed_daemon_left_in_the_log_is_copied_too(databases: Databases, tmp_path: Path) -> None:
    source, target = await databases.full("sqlite"), databases.nothing("sqlite")
    with closing(sqlite3.connect(path_of(source))) as database:
        database.execute("UPDATE source SET state = 'in the log'")
        database.commit()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path_of(source)}{suffix}", tmp_path / f"killed.db{suffix}")
    copy(f"sqlite:///{tmp_path}/killed.db", target)
    assert set(run(target, "SELECT state FROM source")) == {("in the log",)}


def lend(url: str, *, seconds: int) -> None:
    """Let a daemon hold something of a database for so long from now on."""
    until = f"(extract(epoch FROM clock_timestamp()) + {seconds}) * 1000000"
    run(url, "INSERT INTO lease (kind, name, owner, epoch) VALUES ('sink', 'ops', 'pid 7@host', 1)")
    run(url, f"UPDATE lease SET until = {until}")


def refused(source: str, target: str, *, code: Exit = Exit.USAGE) -> str:
    """Return why a copy is refused."""
    with pytest.raises(StoreError) as caught:
        copy(source, target)
    assert caught.value.exit_code is code
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_target_with_rows_is_refused_and_keeps_them(databases: Databases, kind: str) -> None:
    source, target = await databases.full("sqlite"), await databases.full(kind, count=2)
    before = rows_of(target)
    assert "is not empty, it has rows of " in refused(source, target)
    assert rows_of(target) == before


@pytest.mark.parametrize("kind", KINDS)
async def test_what_holds_no_store_is_no_source(databases: Databases, kind: str) -> None:
    source, target = databases.nothing(kind), databases.nothing("sqlite")
    if kind == "sqlite":
        path_of(source).touch()
    assert "is empty, so there is nothing to copy" in refused(source, target)
    run(source, "CREATE TABLE meta (id INTEGER)")
    assert "is a database, but not one of clerk-watcher; name another" in refused(source, target)


def test_a_file_that_is_not_there_is_not_made(databases: Databases, tmp_path: Path) -> None:
    source = databases.nothing("sqlite")
    assert "is not there; name the file of a store" in refused(source, databases.nothing("sqlite"))
    assert list(tmp_path.iterdir()) == []


async def test_one_store_under_two_names_is_refused(databases: Databases, tmp_path: Path) -> None:
    file, database = await databases.full("sqlite"), await databases.full("postgresql")
    (tmp_path / "link.db").symlink_to(path_of(file))
    (tmp_path / "hard.db").hardlink_to(path_of(file))
    same = [(file, file), (file, f"sqlite:///{tmp_path}/link.db"), (database, f"{database}&application_name=other")]
    for source, target in same:
        assert "are the same store; name two" in refused(source, target)
    assert "is locked by another program" in refused(file, f"sqlite:///{tmp_path}/hard.db", code=Exit.FAILED)


async def test_a_file_that_a_daemon_uses_is_refused_at_either_end(databases: Databases) -> None:
    used, other, nothing = await databases.full("sqlite"), await databases.full("sqlite"), databases.nothing("sqlite")
    store = await opened(used)
    for source, target in ((used, nothing), (other, used)):
        assert f"is in use by pid {os.getpid()}" in refused(source, target, code=Exit.FAILED)
    await store.close()
    assert not path_of(nothing).exists()


async def test_a_database_that_a_daemon_uses_is_refused_at_either_end(databases: Databases) -> None:
    used, file = await databases.full("postgresql"), await databases.full("sqlite")
    lend(used, seconds=9)
    for source, target in ((used, databases.nothing("sqlite")), (file, used)):
        message = refused(source, target, code=Exit.FAILED)
        assert "is in use by pid 7@host; stop every daemon that uses it (after a kill, wait 10 s)" in message


@pytest.mark.parametrize("kind", KINDS)
async def test_stopped_half_way_it_leaves_nothing(databases: Databases, kind: str) -> None:
    source, target, heard = await databases.full("sqlite"), databases.nothing(kind), Heard()
    with pytest.raises(CopyStoppedError):
        copy(source, target, heard=heard, stopped=lambda: "event" in heard.tables)
    assert nothing_is_left(target)
    copy(source, target)


@pytest.mark.ci
@pytest.mark.parametrize("kind", KINDS)
async def test_killed_half_way_it_leaves_a_target_that_can_be_copied_into(databases: Databases, kind: str) -> None:
    source, target = await databases.full("sqlite", count=300), databases.nothing(kind)
    command = [sys.executable, "-c", COPY, source, target, "delivery"]
    killed = await asyncio.to_thread(subprocess.run, command, check=False)
    assert killed.returncode == -signal.SIGKILL
    if kind == "sqlite":
        assert path_of(target).stat().st_size > 0, "it was killed before anything was written"
        store = await opened(target)
        assert store.created
        await store.close()
    copy(source, target)
    assert rows_of(target) == rows_of(source)


async def test_no_daemon_opens_a_file_meanwhile(databases: Databases) -> None:
    source, target = await databases.full("sqlite"), databases.nothing("sqlite")

    def held() -> None:
        for url in (source, target):
            with pytest.raises(StoreHeldError, match="is in use by"):
                copy(url, databases.nothing("sqlite"))

    copy(source, target, heard=Heard(meanwhile=held))


async def test_nobody_writes_into_a_database_meanwhile(databases: Databases) -> None:
    source, target = await databases.full("postgresql"), await databases.without_rows("postgresql")
    refusals = []

    def write() -> None:
        for url in (source, target):
            for table in metadata.sorted_tables:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute("SET lock_timeout = 1")
                    assert connection.execute(f"TABLE {table.name}")
                    with pytest.raises(psycopg.errors.LockNotAvailable):
                        connection.execute(f"INSERT INTO {table.name} DEFAULT VALUES")
                    refusals.append(table.name)

    copy(source, target, heard=Heard(meanwhile=write))
    assert len(refusals) == 2 * len(metadata.sorted_tables)


@pytest.mark.parametrize("place", ["source", "target with tables", "target without tables"])
async def test_a_daemon_that_starts_on_a_database_meanwhile_waits(databases: Databases, place: str) -> None:
    source, loop = await databases.full("postgresql"), asyncio.get_running_loop()
    target = databases.nothing("postgresql") if "without" in place else await databases.without_rows("postgresql")

    async def begin() -> None:
        with pytest.raises(StoreNotReadyError, match="is locked by another program"):
            await opened(source if place == "source" else target)

    heard = Heard(meanwhile=lambda: asyncio.run_coroutine_threadsafe(begin(), loop).result())
    await asyncio.to_thread(copy, source, target, heard=heard)
    assert rows_of(target) == rows_of(source)
    store = await opened(target)
    assert not store.created
    await store.close()
