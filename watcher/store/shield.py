"""Runs to its end what was begun, whatever becomes of who asked for it.

A task that is cancelled inside a statement leaves a connection with an open transaction in the pool (SQLAlchemy #13381,
#12099), so statements run in tasks of their own, which nobody cancels.
"""

import asyncio
from asyncio import Task
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Shield:
    """Runs coroutines that outlive the cancellation of their callers."""

    def __init__(self) -> None:
        """Start with nothing running."""
        self._running: set[Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns. A cancelled caller leaves; the work goes on."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait until nothing runs."""
        while self._running:
            await asyncio.wait(self._running)

    def _ended(self, task: Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone: asyncio would complain that nobody looked
