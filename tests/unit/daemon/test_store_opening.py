"""A server that is not ready at the start is waited for."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

import pytest
from postgres import PostgresServer
from structlog.testing import capture_logs

from watcher.config.store_settings import StoreSettings
from watcher.daemon.store_opening import open_when_ready
from watcher.domain.errors import StoreUnusableError
from watcher.runtime.clock import SystemClock
from watcher.store.sql_store import SqlStore


def ignore(_sinks: Collection[str]) -> None:
    """Nobody waits for what is recorded here."""


def opening(settings: StoreSettings, stop: asyncio.Event) -> asyncio.Task[SqlStore | None]:
    opened = open_when_ready(settings, clock=SystemClock(), on_recorded=ignore, stop=stop)
    return asyncio.create_task(opened)


async def said(logs: Sequence[object]) -> AsyncIterator[None]:
    while not logs:
        await asyncio.sleep(0.001)
        yield


async def test_a_server_that_starts_later_is_waited_for_and_that_is_said_once(postgres: PostgresServer) -> None:
    with postgres.database() as url, capture_logs() as logs:
        await asyncio.to_thread(postgres.stop)
        task = opening(StoreSettings.model_validate({"url": url}), asyncio.Event())
        async for _ in said(logs):
            assert not task.done()
        await asyncio.to_thread(postgres.start)
        store = await task
        assert store is not None
        await store.close()
    assert [entry["event"] for entry in logs][-1] == "store.recovered"
    assert [entry["event"] for entry in logs].count("store.failed") <= 2  # it refuses, and then it is starting


async def test_the_end_does_not_wait_for_a_server() -> None:
    stop = asyncio.Event()
    with capture_logs() as logs:
        task = opening(StoreSettings.model_validate({"url": "postgresql://127.0.0.1:1/x"}), stop)
        async for _ in said(logs):
            assert not task.done()
        stop.set()
        assert await task is None


async def test_what_a_person_must_correct_is_not_waited_for(postgres: PostgresServer) -> None:
    with pytest.raises(StoreUnusableError, match="does not exist"):
        await opening(StoreSettings.model_validate({"url": postgres.url("nowhere")}), asyncio.Event())
