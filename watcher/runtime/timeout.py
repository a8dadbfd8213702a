"""One time limit for everything that is under way at once; knows nothing of what is limited."""

import asyncio
from types import TracebackType


class TimeLimit:
    """Limits whatever is done `with` it to so many seconds, after which `TimeoutError` is raised inside it.

    A task may be within it once at a time. It keeps one timer for all tasks, set for the one that began first: a timer
    for each, started and cancelled, would cost a tenth of a request that takes a millisecond.
    """

    def __init__(self, limit_s: float) -> None:
        """Limit nothing yet."""
        self._limit_s = limit_s
        self._ends_at: dict[asyncio.Task[object], float] = {}  # in the order in which they began, and so end
        self._expired: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        """Begin. Needs a running task."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        ends_at = self._ends_at[task] = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_at(ends_at, self._expire)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End. A cancellation that came from elsewhere goes through, as with `asyncio.timeout`."""
        task = asyncio.current_task()
        assert task is not None
        del self._ends_at[task]
        if task in self._expired:
            self._expired.remove(task)
            if task.uncancel() == 0 and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _expire(self) -> None:
        """Interrupt what has run out of time, and come back for what is next to."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, ends_at in self._ends_at.items():
            if ends_at > loop.time():
                self._timer = loop.call_at(ends_at, self._expire)
                return
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
