"""Threads for what would hold up the event loop: pieces of work are done there in the order they are handed in.

What was handed in is done to its end, whatever becomes of who waits for it: a transaction that is left open half way
would be in the way of all others.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """So many threads that share what there is to do."""

    def __init__(self, name: str, *, count: int) -> None:
        """Start them. Needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ends = [self._loop.create_future() for _ in range(count)]
        for end in self._ends:
            # Daemon threads: one that hangs on its disk keeps no program alive.
            Thread(target=self._run, args=(end,), name=name, daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises. A caller that is cancelled leaves; the work goes on."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._work.put(partial(self._do, work, done))
        return await done

    async def close(self) -> None:
        """Return once all that was handed in is done, and the threads have ended."""
        for _ in self._ends:
            self._work.put(None)
        await asyncio.gather(*self._ends)

    def _run(self, end: asyncio.Future[None]) -> None:
        while (do := self._work.get()) is not None:
            do()
        self._tell(end.set_result, None)

    def _do(self, work: Callable[[], T], done: asyncio.Future[T]) -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 (whatever it is, it is for who waits)
            self._tell(_if_awaited, done, partial(done.set_exception, error))
        else:
            self._tell(_if_awaited, done, partial(done.set_result, result))

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: the program ended while the disk hung
            self._loop.call_soon_threadsafe(callback, *arguments)


def _if_awaited(done: asyncio.Future[T], settle: Callable[[], None]) -> None:
    if not done.done():  # a caller that was cancelled took its future along
        settle()
