"""A server that is not ready at the start is waited for; the pages are there meanwhile."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence

import aiohttp
import psycopg
import pytest
from postgres import PostgresServer
from structlog.testing import capture_logs

from watcher.config.models import Settings, StoreSettings
from watcher.daemon.app import open_when_ready, run
from watcher.domain.errors import StoreUnusableError
from watcher.runtime.clock import Clock
from watcher.store.sql_store import SqlStore

END_WHO_WAITS = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted"


def opening(settings: StoreSettings, stop: asyncio.Event) -> asyncio.Task[SqlStore | None]:
    opened = open_when_ready(settings, clock=Clock(), stop=stop)
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


async def test_meanwhile_the_daemon_is_alive_and_not_ready(postgres: PostgresServer) -> None:
    stop, started = asyncio.Event(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"

    async def page(path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as client, client.get(f"http://{listen}{path}") as answer:
            return answer.status, await answer.text()

    with postgres.database() as url, capture_logs() as logs:
        settings = Settings.model_validate({"http": {"listen": listen}, "store": {"url": url}})
        await asyncio.to_thread(postgres.stop)
        try:
            daemon = asyncio.create_task(run(settings, stop=stop, started=lambda _started: started.set()))
            async for _ in said(logs):
                assert not daemon.done()
            assert await page("/livez") == (200, "ok\n")
            assert await page("/readyz") == (503, "not ok\n")
            assert await page("/readyz?verbose") == (503, "not ok: the store cannot be used yet\n")
            status, metrics = await page("/metrics")
            assert (status, "watcher_config_last_reload_successful 1.0" in metrics) == (200, True)
        finally:
            await asyncio.to_thread(postgres.start)
        await started.wait()
        assert "the store cannot be used" not in (await page("/readyz?verbose"))[1]
        stop.set()
        await daemon


async def test_a_store_that_a_person_must_correct_ends_the_daemon_and_its_pages(postgres: PostgresServer) -> None:
    settings = Settings.model_validate({"http": {"listen": "127.0.0.1:0"}, "store": {"url": postgres.url("nowhere")}})
    with pytest.raises(StoreUnusableError, match="does not exist"):
        await run(settings, stop=asyncio.Event())


async def test_a_connection_that_breaks_during_the_start_is_made_again(postgres: PostgresServer) -> None:
    with postgres.database() as url:
        settings = Settings.model_validate({"http": {"listen": "127.0.0.1:0"}, "store": {"url": url}})
        stop, started = asyncio.Event(), asyncio.Event()
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE silence")  # the last that is read before anything is owned
            daemon = asyncio.create_task(run(settings, stop=stop, started=lambda _started: started.set()))
            await asyncio.to_thread(postgres.wait_for_lock, url)
            await asyncio.to_thread(postgres.run, END_WHO_WAITS, url)
        begun = asyncio.create_task(started.wait())
        done, _ = await asyncio.wait({begun, daemon}, return_when=asyncio.FIRST_COMPLETED)
        assert done == {begun}
        stop.set()
        await daemon
