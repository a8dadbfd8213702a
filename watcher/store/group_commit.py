"""Group commit: what is handed in while the last group was written is written in one transaction.

Owns the order of writes and who gets which result. A caller that is cancelled leaves; its write goes on. Knows no SQL:
what writes a group, and what an error means, are passed in.
"""

import asyncio
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Generic, TypeVar

from watcher.store.database import DatabaseFault

GROUP_COUNT = 256
"""How many are written together at most: beyond this a write costs no less, and the others wait longer."""

QUIET_TURNS = 2
"""A group is gathered until so many turns of the event loop in a row bring nothing more.

What comes together, such as the answers of one turn, is handed in within a few turns. One transaction costs as much as
ten of the changes in it: where each turn brings some, waiting for more is what helps (measured: 50 in a group, and 30
where ten turns are waited through in any case).
"""

MOST_TURNS = 40
"""But for no more turns: where the event loop is busy each takes about 10 ms."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class GroupWriter(Generic[ItemT, ResultT]):
    """Writes what is handed in, in order, in as few transactions as it can."""

    def __init__(
        self,
        *,
        write: Callable[[Sequence[ItemT]], Awaitable[tuple[Collection[str], Sequence[ResultT]]]],
        explain: Callable[[Exception], DatabaseFault],
        on_written: Callable[[Collection[str]], None],
    ) -> None:
        """Write nothing yet. Needs a running event loop.

        `write` returns what goes to `on_written` once the group is committed, and the result of each of its items.
        """
        self._write = write
        self._explain = explain
        self._on_written = on_written
        self._loop = asyncio.get_running_loop()
        self._handed: list[tuple[ItemT, Future[ResultT]]] = []
        self._is_gathering = False
        self._writing: Task[None] | None = None

    def write(self, item: ItemT) -> "Future[ResultT]":
        """Hand in an item; its result can be awaited, or the `StoreError` that kept it from being written."""
        result: Future[ResultT] = self._loop.create_future()
        self._handed.append((item, result))
        if not self._is_gathering and self._writing is None:
            self._is_gathering = True
            self._loop.call_soon(self._gather, 1, 0, 1)
        return result

    async def close(self) -> None:
        """Write what was handed in."""
        while self._is_gathering or self._writing is not None:
            await (asyncio.sleep(0) if self._writing is None else asyncio.wait([self._writing]))

    def _gather(self, count: int, quiet_count: int, turns_count: int) -> None:
        """Begin to write once nothing more comes: more comes together while a group is written, the busier the more."""
        now_count = len(self._handed)
        quiet_count = quiet_count + 1 if now_count == count else 0
        if quiet_count < QUIET_TURNS and now_count < GROUP_COUNT and turns_count < MOST_TURNS:
            self._loop.call_soon(self._gather, now_count, quiet_count, turns_count + 1)
            return
        self._is_gathering = False
        group, self._handed = self._handed[:GROUP_COUNT], self._handed[GROUP_COUNT:]
        self._writing = self._loop.create_task(self._write_group(group), name="store-writer")
        self._writing.add_done_callback(self._written)

    def _written(self, _task: "Task[None]") -> None:
        self._writing = None
        if self._handed:
            self._is_gathering = True
            self._loop.call_soon(self._gather, len(self._handed), 0, 1)

    async def _write_group(self, group: "Sequence[tuple[ItemT, Future[ResultT]]]") -> None:
        """Write a group. When a member spoils it, write its halves: one bad write costs the others little, no more."""
        try:
            emitted, results = await self._write([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - whatever it is goes to who handed it in; else all would wait for ever
            trouble = self._explain(error)
        else:
            if emitted:  # in a turn of its own, so that what it raises cannot end the writing
                self._loop.call_soon(self._on_written, emitted)
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():  # a caller that was cancelled took its future along
                    future.set_result(result)
            return
        if trouble.concerns_all or len(group) == 1:
            for _, future in group:
                if not future.done():
                    future.set_exception(trouble.error())
            return
        middle = len(group) // 2
        await self._write_group(group[:middle])
        await self._write_group(group[middle:])
