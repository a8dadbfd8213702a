"""Daemon threads for work that may hang: in a file system, a reader or a name resolver.

The process can end while a daemon thread hangs. At its end it would wait for the threads of
`asyncio.to_thread`.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def begin(work: Callable[[], T], *, name: str) -> Future[T]:
    """Begin the work in a daemon thread of this name, and return the future of its outcome."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # a caller may stop waiting, but cannot cancel the work
    threading.Thread(target=_run, args=(work, outcome), name=name, daemon=True).start()
    return outcome


async def run_detached(work: Callable[[], T], *, name: str) -> T:
    """Do the work in a daemon thread. If the caller is cancelled, the thread goes on."""
    return await asyncio.wrap_future(begin(work, name=name))


class WorkerThreads:
    """Threads that take pieces of work from one queue, in the order of arrival.

    Each piece is done to its end even if its caller stops waiting: a transaction left open would block all others.
    """

    def __init__(self, name: str, *, count: int = 1) -> None:
        """Start `count` threads."""
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._ends = [begin(self._work_off, name=name) for _ in range(count)]

    @property
    def waiting_count(self) -> int:
        """Return the number of pieces of work in the queue."""
        return self._work.qsize()

    def put(self, work: Callable[[], object]) -> None:
        """Queue a piece of work. The work must not raise, because nobody would see the error."""
        self._work.put(work)

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Queue a piece of work, and return the future of its outcome. Cancelling the future does not stop the work."""
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()
        self._work.put(partial(_run, work, outcome))
        return asyncio.wrap_future(outcome)

    def close(self) -> None:
        """Let the threads end after the queued work. Do not wait for them."""
        for _ in self._ends:
            self._work.put(None)

    async def finish(self) -> None:
        """Let the threads end after the queued work, and wait until they have ended."""
        self.close()
        await asyncio.gather(*map(asyncio.wrap_future, self._ends))

    def _work_off(self) -> None:
        while (do := self._work.get()) is not None:
            do()


class DetachedExecutor(ThreadPoolExecutor):
    """The default executor of an event loop, with daemon threads. Libraries use it to resolve names, which may hang."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin the call in a daemon thread of its own."""
        return begin(partial(fn, *args, **kwargs), name="resolve")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Return at once: the threads may hang."""


def _run(work: Callable[[], T], outcome: Future[T]) -> None:
    with suppress(RuntimeError):  # the event loop of the caller may be closed by then
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 (the future raises it at the caller)
            outcome.set_exception(error)
        else:
            outcome.set_result(result)
