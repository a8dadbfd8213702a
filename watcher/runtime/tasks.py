"""Tasks of the event loop that nobody awaits, and waits with a limit."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def start_task(work: Coroutine[Any, Any, None], *, fatal: Callable[[BaseException], None]) -> asyncio.Task[None]:
    """Start a task that nobody awaits. If the task fails, `fatal` is called with its error."""

    def report(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            fatal(error)

    task = asyncio.create_task(work)
    task.add_done_callback(report)
    return task


async def stop_task(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, if there is one, and wait for its end."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


async def wait_at_most(seconds: float, work: Awaitable[T]) -> T | None:
    """Return the result of `work`. If it takes longer than `seconds`, cancel it and return `None`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await work
    return None
