"""What the daemon does about errors that nobody catches."""

import asyncio
import gc
from typing import Any, cast

from watcher.cli.wait import wait_for
from watcher.daemon.app import _nothing_unseen
from watcher.domain.timestamps import to_us


async def fatal_of(*, callback: object = None, task: object = None) -> list[str]:
    """Return what ended the daemon after such a callback, or such a task that nobody waits for."""
    fatal: list[BaseException] = []
    with _nothing_unseen(fatal.append):
        if callback is not None:
            asyncio.get_running_loop().call_soon(cast("Any", callback), None)
        if task is not None:
            asyncio.create_task(cast("Any", task))  # noqa: RUF006 (that is the point)
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
    return [type(error).__name__ for error in fatal]


async def test_an_error_of_ours_in_a_callback_ends_the_daemon() -> None:
    assert await fatal_of(callback=to_us) == ["TypeError"]


async def test_an_error_of_ours_in_a_task_that_nobody_waits_for_ends_the_daemon() -> None:
    nothing = cast("Any", None)
    task = wait_for(nothing, nothing, settings=nothing, interval_s=1.0, timeout_s=None, stop=nothing)
    assert await fatal_of(task=task) == ["AttributeError"]


async def test_an_error_of_a_library_ends_nothing() -> None:
    assert await fatal_of(callback=int) == []


async def test_once_the_daemon_has_ended_it_sees_to_nothing_more() -> None:
    with _nothing_unseen(print):
        pass
    assert asyncio.get_running_loop().get_exception_handler() is None
