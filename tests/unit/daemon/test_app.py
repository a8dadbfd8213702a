"""What the daemon does about errors that nobody catches, and about an address that it cannot have."""

import asyncio
import gc
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from watcher.cli.wait import wait_for
from watcher.config.models import Settings
from watcher.daemon.app import _fatal_errors, run
from watcher.domain.errors import Exit, ListenError
from watcher.domain.timestamps import to_us
from watcher.runtime.clock import Clock
from watcher.store.sql_store import open_store


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
async def test_an_error_of_ours_in_a_callback_ends_the_daemon() -> None:
    assert await fatal_of(callback=to_us) == ["TypeError"]


@pytest.mark.ci
async def test_an_error_of_ours_in_a_task_that_nobody_waits_for_ends_the_daemon() -> None:
    nothing = cast("Any", None)
    task = wait_for(nothing, nothing, settings=nothing, interval_s=1.0, timeout_s=None, stop=nothing)
    assert await fatal_of(task=task) == ["AttributeError"]


@pytest.mark.ci
async def test_an_error_of_a_library_ends_nothing() -> None:
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
async def test_an_address_one_cannot_have_is_said_and_what_may_become_one_may_be_tried_again(
    listen: str, reason: str, code: Exit, tmp_path: Path
) -> None:
    error = await refusal(listen, folder=tmp_path)
    assert error.exit_code is code
    assert str(error).startswith(f"http.listen: cannot listen on {listen} ({reason}")
