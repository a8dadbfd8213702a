"""Work that may never end, in threads that nobody has to wait for: a file system, a reader or a resolver may hang.

They do not keep the process from ending; those of `asyncio.to_thread` do: they are joined at the end.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def begin(work: Callable[[], T], *, name: str) -> Future[T]:
    """Begin the work in a daemon thread of that name, and return what will hold its outcome."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # whoever waits may leave, but cannot call it off
    threading.Thread(target=_run, args=(work, outcome), name=name, daemon=True).start()
    return outcome


def raise_to(fatal: Callable[[BaseException], None], task: "asyncio.Task[Any]") -> None:
    """Give `fatal` what a task raised that nobody waits for."""
    if not task.cancelled() and (error := task.exception()):
        fatal(error)


async def run_detached(work: Callable[[], T], *, name: str) -> T:
    """Do the work in such a thread. Cancelled, it leaves the thread behind."""
    return await asyncio.wrap_future(begin(work, name=name))


class WorkerThreads:
    """Threads that do pieces of work in the order they are handed in, and each of them to its end.

    Whatever becomes of who waits for it: a transaction that is left open half way would be in the way of all others.
    """

    def __init__(self, name: str, *, count: int = 1) -> None:
        """Start them. What there is to do they share."""
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._ends = [begin(self._work_off, name=name) for _ in range(count)]

    @property
    def waiting_count(self) -> int:
        """Return how many pieces of work are not begun."""
        return self._work.qsize()

    def put(self, work: Callable[[], object]) -> None:
        """Have a piece of work done. It must not raise: nobody would hear of it."""
        self._work.put(work)

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Begin the work; return what will hold its outcome. Whoever waits for that may leave; the work goes on."""
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()
        self._work.put(partial(_run, work, outcome))
        return asyncio.wrap_future(outcome)

    def close(self) -> None:
        """Let the threads end after what was handed in."""
        for _ in self._ends:
            self._work.put(None)

    async def finish(self) -> None:
        """Return once all that was handed in is done, and the threads have ended."""
        self.close()
        await asyncio.gather(*map(asyncio.wrap_future, self._ends))

    def _work_off(self) -> None:
        while (do := self._work.get()) is not None:
            do()


class DetachedExecutor(ThreadPoolExecutor):
    """As an event loop's default executor: its end waits for none of what libraries do there (they resolve names)."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin it in a thread of its own."""
        return begin(partial(fn, *args, **kwargs), name="resolve")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for nobody."""


def _run(work: Callable[[], T], outcome: Future[T]) -> None:
    with suppress(RuntimeError):  # the event loop of whoever waits may be closed by then
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 (it is raised where the outcome is taken)
            outcome.set_exception(error)
        else:
            outcome.set_result(result)
