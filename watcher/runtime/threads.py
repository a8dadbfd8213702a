"""Work that may never end, in a thread that nobody has to wait for: a file system or a resolver may hang for ever.

It knows nothing of the work. What is left behind ends with its work or with the process, which it does not keep
from ending; `asyncio.to_thread` does: its threads are joined at the end.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


def begin(work: Callable[[], T], *, name: str) -> Future[T]:
    """Begin the work in a daemon thread of that name, and return what will hold its outcome."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # whoever waits may leave, but cannot call it off
    threading.Thread(target=_run, args=(work, outcome), name=name, daemon=True).start()
    return outcome


async def aside(work: Callable[[], T], *, name: str) -> T:
    """Do the work in such a thread. Cancelled, it leaves the thread behind."""
    return await asyncio.wrap_future(begin(work, name=name))


class Aside(ThreadPoolExecutor):
    """As an event loop's default executor: its end waits for none of what libraries do there (they resolve names)."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin it in a thread of its own."""
        return begin(partial(fn, *args, **kwargs), name="resolve")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 (as its base)
        """Wait for nobody."""


def _run(work: Callable[[], T], outcome: Future[T]) -> None:
    with suppress(RuntimeError):  # the event loop of whoever waits may be closed by then
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 (it is raised where the outcome is taken)
            outcome.set_exception(error)
        else:
            outcome.set_result(result)
