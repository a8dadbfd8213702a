"""Who records something tells the other processes, which need not wait until they look."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

import psycopg
from postgres import PostgresServer
from stores import change, claim, source_change
from virtual import FakeClock

from watcher.store.postgresql import RECORDED_CHANNEL, SEND_EVERY_S
from watcher.store.sql_store import SqlStore, open_store

LISTENERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


class Heard:
    """What a process was told, by its own commits or others'."""

    def __init__(self, store: SqlStore) -> None:
        self.names: asyncio.Queue[str] = asyncio.Queue()
        for name in ("chat", "log", "ops"):
            store.wakes[name] = partial(self.names.put_nowait, name)

    async def next(self, count: int) -> list[str]:
        return sorted([await self.names.get() for _ in range(count)])


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[SqlStore, Heard]]:
    store = await open_store(url, clock=FakeClock())
    try:
        yield store, Heard(store)
    finally:
        await store.close()


async def until_listening(postgres: PostgresServer, url: str, *, count: int) -> None:
    def look() -> None:
        while postgres.run(LISTENERS, url) != [(count,)]:
            pass

    await asyncio.to_thread(look)


async def test_what_one_records_the_others_hear_and_it_once(postgres: PostgresServer, url: str) -> None:
    async with opened(url) as (one, by_itself), opened(url) as (_, by_other):
        await until_listening(postgres, url, count=2)
        account = await claim(one, "account", "default")
        await one.record(change(account, sinks=("ops", "chat")))
        assert await by_other.next(2) == ["chat", "ops"]
        await one.record(source_change(account, sinks=("log",)))
        assert await by_other.next(1) == ["log"]
        assert await by_itself.next(6) == ["chat", "chat", "log", "log", "ops", "ops"]  # handed in, and committed
        assert by_itself.names.empty()


async def test_much_at_once_is_told_now_and_then_and_the_last_of_it_always(postgres: PostgresServer, url: str) -> None:
    stranger = psycopg.connect(url, autocommit=True)
    stranger.execute(f"LISTEN {RECORDED_CHANNEL}".encode())
    async with opened(url) as (store, _):
        await until_listening(postgres, url, count=2)
        account = await claim(store, "account", "default")
        begun_at = monotonic()
        for number in range(50):
            await store.record(change(account, number))
        await store.record(change(account, 50, sinks=("last",)))
        told = []
        for notify in stranger.notifies(timeout=10):
            told.append(notify.payload)
            if "last" in notify.payload:
                break
        assert len(told) <= (monotonic() - begun_at) / SEND_EVERY_S + 1
    stranger.close()


async def test_a_listener_that_was_cut_off_listens_again(postgres: PostgresServer, url: str) -> None:
    async with opened(url) as (one, _), opened(url) as (_, by_other):
        await until_listening(postgres, url, count=2)
        postgres.run(LISTENERS.replace("count(*)", "pg_terminate_backend(pid)"), url)
        await until_listening(postgres, url, count=2)
        await one.record(change(await claim(one, "account", "default")))
        assert await by_other.next(1) == ["ops"]
