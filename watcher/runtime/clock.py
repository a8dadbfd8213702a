"""The clocks of the program: wall, monotonic and steady clock, boot time and running time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import cast

from watcher.domain.timestamps import EARLIEST, BootTime, Micros, Monotonic

_BOOT_TIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The clock that goes on while the machine sleeps. On macOS CLOCK_MONOTONIC does so, on Linux only CLOCK_BOOTTIME."""

STOPPED_AFTER_S = 2.0
"""The most seconds of running time between two readings. A longer time means that the process was stopped."""


class Clock:
    """The clocks of one process. The schedule reads `running` twice a second: a long time between readings is a stop.

    `now` returns wall-clock time (aware, UTC), for texts, records and silences. `monotonic` never jumps, and is for
    decisions within this process.
    """

    def __init__(self, *, read: Callable[[], float] = time.monotonic) -> None:
        """Set the steady clock by the wall clock of this moment. `read` is the clock that measures running time."""
        self._read = read
        # Attributes, not methods, because they are read at every poll. asyncio uses the same monotonic clock.
        self.now: Callable[[], datetime] = partial(datetime.now, UTC)
        self.monotonic = cast("Callable[[], Monotonic]", time.monotonic)
        self._anchor_us = (time.time_ns() - time.clock_gettime_ns(_BOOT_TIME)) // 1000
        self._ran_s = 0.0
        self._read_at = read()
        self._resumed_at = EARLIEST

    def running(self) -> float:
        """Return the running time in seconds: the time since the start, without stops of the process.

        Running time measures for how long something has failed. A stopped process (SIGSTOP, `docker pause`) tries
        nothing, so the time of a stop does not count. At most `STOPPED_AFTER_S` count between two readings.
        """
        now = self._read()
        passed_s, self._read_at = now - self._read_at, now
        self._ran_s += min(passed_s, STOPPED_AFTER_S)
        if passed_s > STOPPED_AFTER_S:
            self._resumed_at = Monotonic(now)
        return self._ran_s

    def resumed_at(self) -> Monotonic:
        """Return when the last stop of the process ended (monotonic). The stop may have broken requests in flight."""
        self.running()
        return self._resumed_at

    def boot_time(self) -> BootTime:
        """Return the boot time in seconds. It never jumps, and goes on while the machine sleeps, as leases do."""
        return BootTime(time.clock_gettime(_BOOT_TIME))

    def advance(self, by_us: int) -> None:
        """Move the steady clock by `by_us`, to the database's clock for example. Call this before the clock is used."""
        self._anchor_us += by_us

    def steady_us(self) -> Micros:
        """Return steady time: microseconds UTC, as the wall clock would show if nobody had set it since the start.

        Times that another process may go by are steady, such as those at which deliveries are due. A jump of the wall
        clock neither delays nor hastens the deliveries. The steady clock goes on while the machine sleeps.
        """
        return Micros(self._anchor_us + time.clock_gettime_ns(_BOOT_TIME) // 1000)
