"""The stdout sink: one event per line and nothing else.

Its one thread writes; a reader that is slow or stuck holds up that thread alone, and never the end of the program.
"""

import asyncio
import errno
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

from watcher.errors import OutputClosedError
from watcher.models import Delivery
from watcher.ports import Receipt, Verdict
from watcher.sinks.settings import SinkSettings

FULL_DISK_WAIT_S = 1.0

_WRITTEN = Receipt(Verdict.DELIVERED, "written")
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StdoutSettings(SinkSettings):
    """`{type: stdout}`."""

    type: Literal["stdout"]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line to write, and where its fate is awaited."""

    data: bytes
    written: asyncio.Future[None]


class StdoutSink:
    """Writes each event as one line to a file descriptor, blocking or not."""

    def __init__(self, fd: int, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Start the thread. Needs a running event loop."""
        self._fd = fd
        self._sleep = sleep
        self._loop = asyncio.get_running_loop()
        self._lines: SimpleQueue[_Line | None] = SimpleQueue()
        # A daemon thread: the program may end while it waits for a reader that never reads.
        threading.Thread(target=self._run, name="stdout", daemon=True).start()

    async def send(self, delivery: Delivery) -> Receipt:
        """Return once the line is written in full. Raises `OutputClosedError` if nobody will ever read it."""
        written: asyncio.Future[None] = self._loop.create_future()
        self._lines.put(_Line(delivery.body + b"\n", written))
        await written
        return _WRITTEN

    async def close(self) -> None:
        """Let the thread end after what it was given; nobody waits for it."""
        self._lines.put(None)

    def _run(self) -> None:
        going = True
        while going:
            taken = self._take()
            going = None not in taken
            lines = [line for line in taken if line is not None]
            closed = self._write(b"".join(line.data for line in lines))
            with suppress(RuntimeError):  # the loop is closed: the program ended while the reader was stuck
                self._loop.call_soon_threadsafe(_resolve, lines, closed)

    def _take(self) -> list[_Line | None]:
        """Take all that is there: a busy event loop lets another thread run only every few milliseconds."""
        taken = [self._lines.get()]
        while not self._lines.empty():
            taken.append(self._lines.get())
        return taken

    def _write(self, data: bytes) -> bool:
        """Write all of it, however long that takes. Return whether the output is closed instead."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                self._await_room()
            except OSError as error:
                if error.errno not in _DISK_FULL:
                    return True
                self._sleep(FULL_DISK_WAIT_S)
        return False

    def _await_room(self) -> None:
        room = select.poll()
        room.register(self._fd, select.POLLOUT)
        room.poll()


def _resolve(lines: list[_Line], closed: bool) -> None:  # noqa: FBT001 (call_soon_threadsafe passes no keywords)
    for line in lines:
        if line.written.done():  # its attempt was cancelled
            continue
        if closed:
            line.written.set_exception(OutputClosedError("stdout was closed by its reader"))
        else:
            line.written.set_result(None)
