"""Group commit: what is handed in while the last group was written is written in one transaction.

Owns the order of writes and who gets which result. A caller that is cancelled leaves; its write goes on. Knows no SQL:
what writes a group, and what an error means, are passed in.
"""

import asyncio
from asyncio import Future, Queue
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class _Handed(Generic[ItemT, ResultT]):
    item: ItemT
    written: Future[ResultT] = field(default_factory=Future)


class GroupWriter(Generic[ItemT, ResultT]):
    """Writes what is handed in, in order, in as few transactions as it can."""

    def __init__(
        self,
        *,
        write: Callable[[Sequence[ItemT]], Awaitable[tuple[Collection[str], Sequence[ResultT]]]],
        explain: Callable[[Exception], DatabaseFault],
        on_written: Callable[[Collection[str]], None],
    ) -> None:
        """Start the writing task.

        `write` returns what goes to `on_written` once the group is committed, and the result of each of its items.
        """
        self._write = write
        self._explain = explain
        self._on_written = on_written
        self._queue: Queue[_Handed[ItemT, ResultT]] = Queue()
        self._task = asyncio.create_task(self._run(), name="store-writer")

    async def write(self, item: ItemT) -> ResultT:
        """Return the item's result once it is written; raise the `StoreError` that kept it from being written."""
        handed: _Handed[ItemT, ResultT] = _Handed(item)
        self._queue.put_nowait(handed)
        return await handed.written

    async def close(self) -> None:
        """Write what was handed in, then stop."""
        await self._queue.join()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            group = await self._gather()
            await self._write_group(group)
            for _ in group:
                self._queue.task_done()

    async def _gather(self) -> list[_Handed[ItemT, ResultT]]:
        """Take what is there: more comes together while this group is written, the busier the more."""
        group = [await self._queue.get()]
        quiet_count = 0
        for _ in range(MOST_TURNS):
            count = self._queue.qsize()
            await asyncio.sleep(0)  # whatever else is handed in meanwhile comes along
            quiet_count = quiet_count + 1 if self._queue.qsize() == count else 0
            if quiet_count == QUIET_TURNS or len(group) + self._queue.qsize() >= GROUP_COUNT:
                break
        while len(group) < GROUP_COUNT and not self._queue.empty():
            group.append(self._queue.get_nowait())
        return group

    async def _write_group(self, group: Sequence[_Handed[ItemT, ResultT]]) -> None:
        """Write a group. When a member spoils it, write its halves: one bad write costs the others little, no more."""
        try:
            emitted, results = await self._write([handed.item for handed in group])
        except Exception as error:  # noqa: BLE001 - whatever it is goes to who handed it in; else all would wait for ever
            trouble = self._explain(error)
        else:
            if emitted:  # in a turn of its own, so that what it raises cannot end the writing
                asyncio.get_running_loop().call_soon(self._on_written, emitted)
            for handed, result in zip(group, results, strict=True):
                if not handed.written.done():  # a caller that was cancelled took its future along
                    handed.written.set_result(result)
            return
        if trouble.concerns_all or len(group) == 1:
            for handed in group:
                if not handed.written.done():
                    handed.written.set_exception(trouble.error())
            return
        middle = len(group) // 2
        await self._write_group(group[:middle])
        await self._write_group(group[middle:])
