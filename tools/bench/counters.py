"""What the servers of the bench count, in memory that the measuring process reads without asking them."""

import asyncio
import ctypes
import multiprocessing
from collections.abc import Callable
from multiprocessing.sharedctypes import RawValue

spawning = multiprocessing.get_context("spawn")

DELAYS_COUNT = 100_000


class Counters(ctypes.Structure):
    """One server's counts. Moments are monotonic seconds, one clock for all processes.

    The load server counts its answers in `served_count`, the executions on them in `shown_count`; it changes the status
    of every `change_every`-th that it shows (2.5: of two in five, 0: of none), `changed_count` so far. `delays_s` holds
    the receiver's first delays.
    """

    _fields_ = (
        ("port", ctypes.c_int),
        ("served_count", ctypes.c_long),
        ("first_at", ctypes.c_double),
        ("change_every", ctypes.c_double),
        ("shown_count", ctypes.c_long),
        ("changed_count", ctypes.c_long),
        ("delays_s", ctypes.c_double * DELAYS_COUNT),
    )
    port: int
    served_count: int
    first_at: float
    change_every: float
    shown_count: int
    changed_count: int
    delays_s: "ctypes.Array[ctypes.c_double]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def new_counters() -> Counters:
    """Return counters that a process started by `spawning` may be given."""
    return RawValue(Counters)


async def serve(counters: Counters, connect: Callable[[], asyncio.Protocol]) -> None:
    """Serve until the process is ended; the port is in the counters."""
    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    counters.port = server.sockets[0].getsockname()[1]
    await server.serve_forever()
