"""What the daemon does about errors that nobody catches, and about an address that it cannot have."""

import asyncio
import gc
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import aiohttp
import psycopg
import pytest
from postgres import PostgresServer
from structlog.testing import capture_logs

from watcher.cli.wait.poller import wait_for
from watcher.config.models import Settings, StoreSettings
from watcher.daemon.app import _fatal_errors, open_when_ready, run
from watcher.domain.errors import Exit, ListenError, StoreUnusableError
from watcher.domain.timestamps import to_us
from watcher.runtime.clock import Clock
from watcher.store.sql_store import SqlStore, open_store


async def fatal_of(*, callback: object = None, task: object = None) -> list[str]:
    """Return what ended the daemon after such a callback, or such a task that nobody waits for."""
    fatal: list[BaseException] = []
    with _fatal_errors(fatal.append):
        if callback is not None:
            asyncio.get_running_loop().call_soon(cast("Any", callback), None)
        if task is not None:
            asyncio.create_task(cast("Any", task))  # noqa: RUF006 (that is the point)
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
    return [type(error).__name__ for error in fatal]


@pytest.mark.ci
async def test_an_error_of_ours_that_nobody_catches_ends_the_daemon_and_one_of_a_library_does_not() -> None:
    nothing = cast("Any", None)
    task = wait_for(nothing, nothing, settings=nothing, interval_s=1.0, timeout_s=None, stop=nothing)
    assert await fatal_of(callback=to_us) == ["TypeError"]
    assert await fatal_of(task=task) == ["AttributeError"]
    assert await fatal_of(callback=int) == []


async def test_once_the_daemon_has_ended_it_sees_to_nothing_more() -> None:
    with _fatal_errors(print):
        pass
    assert asyncio.get_running_loop().get_exception_handler() is None


# An address it cannot have: a person must correct something, or another try may help

NOBODY = 65534


async def refusal(listen: str, *, folder: Path) -> ListenError:
    settings = Settings.model_validate({"http": {"listen": listen}, "store": {"url": f"sqlite:///{folder}/w.db"}})
    with pytest.raises(ListenError) as caught:
        await run(settings, stop=asyncio.Event())
    return caught.value


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


async def become_nobody(folder: Path) -> None:
    """Become a user whom permissions bind, with a store of their own: root may listen wherever it likes."""
    store = await open_store(f"sqlite:///{folder}/w.db", clock=Clock())
    await store.close()  # so that all of it is imported: the other user may not read where it lies
    for name in ("w.db", "w.db.lock"):
        os.chown(folder / name, NOBODY, NOBODY)
    os.seteuid(NOBODY)


async def test_a_port_this_user_may_not_have_is_for_a_person_to_correct(shared_folder: Path) -> None:
    user = os.geteuid()
    if user == 0:
        await become_nobody(shared_folder)
    try:
        error = await refusal("127.0.0.1:1", folder=shared_folder)
    finally:
        os.seteuid(user)
    assert error.exit_code is Exit.USAGE


async def test_a_port_that_is_taken_may_be_free_the_next_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        error = await refusal(listen, folder=tmp_path)
    assert error.exit_code is Exit.FAILED
    assert str(error).startswith(f"http.listen: cannot listen on {listen} (Address already in use); ")


@pytest.mark.parametrize(
    ("listen", "reason", "code"),
    [
        ("no-such-host.invalid:8080", "", Exit.FAILED),
        (f"{'x' * 70}:8080", "", Exit.USAGE),
        ("192.0.2.1:8080", "Cannot assign requested address", Exit.FAILED),
    ],
)
async def test_an_address_one_cannot_have_is_named(listen: str, reason: str, code: Exit, tmp_path: Path) -> None:
    error = await refusal(listen, folder=tmp_path)
    assert error.exit_code is code
    assert str(error).startswith(f"http.listen: cannot listen on {listen} ({reason}")


# A server that is not ready at the start is waited for; the pages are there meanwhile

END_WHO_WAITS = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted"


def opening(settings: StoreSettings, stop: asyncio.Event) -> asyncio.Task[SqlStore | None]:
    opened = open_when_ready(settings, clock=Clock(), stop=stop)
    return asyncio.create_task(opened)


async def said(logs: Sequence[object]) -> AsyncIterator[None]:
    while not logs:
        await asyncio.sleep(0.001)
        yield


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
    told = [entry["event"] for entry in logs if entry["event"].startswith("store.")]
    assert (told.count("store.failed") <= 2, told.count("store.recovered")) == (True, 1)  # it refuses, then it starts


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
