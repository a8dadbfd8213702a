"""A copy that is broken off leaves nothing, and while it runs nobody writes at either end."""

import asyncio
import signal
import subprocess
import sys

import psycopg
import pytest
from copies import KINDS, Databases, Heard, copy, nothing_is_left, opened, path_of, rows_of

from watcher.domain.errors import StoreHeldError, StoreNotReadyError
from watcher.store.copying.transfer import CopyStoppedError
from watcher.store.tables import metadata

pytestmark = pytest.mark.untraced  # three times as long with coverage, and others run the same lines

COPY = """
import os, signal, sys
from watcher.runtime.clock import SystemClock
from watcher.store.copying import sqlite_end
from watcher.store.copying.open_end import open_end
from watcher.store.copying.transfer import copy_all

sqlite_end._WRITING += ("PRAGMA cache_size=10",)  # what is written goes to the disk soon

class Killer:
    def begin(self, counts): ...
    def finish(self): ...
    def copied(self, table, count):
        if table == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)

source, target = (open_end(url, password=None, clock=SystemClock()) for url in sys.argv[1:3])
copy_all(source, target, progress=Killer(), stopped=lambda: False)
"""


@pytest.mark.parametrize("kind", KINDS)
async def test_stopped_half_way_it_leaves_nothing(databases: Databases, kind: str) -> None:
    source, target, heard = await databases.full("sqlite"), databases.nothing(kind), Heard()
    with pytest.raises(CopyStoppedError):
        copy(source, target, heard=heard, stopped=lambda: "event" in heard.copied_counts)
    assert nothing_is_left(target)
    copy(source, target)


@pytest.mark.parametrize("kind", KINDS)
async def test_killed_half_way_it_leaves_a_target_that_can_be_copied_into(databases: Databases, kind: str) -> None:
    source, target = await databases.full("sqlite", count=3000), databases.nothing(kind)
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


async def test_a_second_copy_into_the_same_database_is_refused_meanwhile(databases: Databases) -> None:
    source, target = await databases.full("sqlite"), databases.nothing("postgresql")
    other = await databases.full("sqlite")

    def second() -> None:
        with pytest.raises(StoreHeldError, match="is being written by another copy"):
            copy(other, target)

    copy(source, target, heard=Heard(meanwhile=second))
    assert rows_of(target) == rows_of(source)


@pytest.mark.parametrize("place", ["source", "target with tables", "target without tables"])
async def test_a_daemon_that_starts_on_a_database_meanwhile_waits(
    databases: Databases, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.store.postgresql.MIGRATION_POLLS", 1)
    source, loop = await databases.full("postgresql"), asyncio.get_running_loop()
    target = databases.nothing("postgresql") if "without" in place else await databases.without_rows("postgresql")

    async def begin() -> None:
        with pytest.raises(StoreNotReadyError, match=r"is locked by another program|is being brought up to date"):
            await opened(source if place == "source" else target)

    heard = Heard(meanwhile=lambda: asyncio.run_coroutine_threadsafe(begin(), loop).result())
    await asyncio.to_thread(copy, source, target, heard=heard)
    assert rows_of(target) == rows_of(source)
    store = await opened(target)
    assert not store.created
    await store.close()
