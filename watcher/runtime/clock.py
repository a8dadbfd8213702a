"""The clocks of the program, given to every part. Decisions go by monotonic time; wall time is only written down."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import cast

from watcher.domain.timestamps import EARLIEST, BootTime, Micros, Monotonic

_BOOT_TIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops CLOCK_MONOTONIC while the machine sleeps. macOS does not, and has no CLOCK_BOOTTIME."""

STOPPED_AFTER_S = 2.0
"""The most time that counts as running between two readings. A process that is not stopped reads more often."""


class Clock:
    """The machine's clocks. The schedule reads `running` every second, because it counts in small steps.

    `now` is the wall clock (aware UTC), for texts and records. `monotonic` never jumps; it is for decisions in this
    process.
    """

    def __init__(self, *, read: Callable[[], float] = time.monotonic) -> None:
        """Set the steady clock by the wall clock of this moment. `read` is the machine's monotonic clock."""
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

        It measures for how long something has failed. A stopped process (SIGSTOP, `docker pause`) tries nothing, so
        the time of a stop does not count as failing. At most `STOPPED_AFTER_S` count between two readings.
        """
        now = self._read()
        passed_s, self._read_at = now - self._read_at, now
        self._ran_s += min(passed_s, STOPPED_AFTER_S)
        if passed_s > STOPPED_AFTER_S:
            self._resumed_at = Monotonic(now)
        return self._ran_s

    def resumed_at(self) -> Monotonic:
        """Return the end of the last stop of the process. The stop may have broken the requests in flight."""
        self.running()
        return self._resumed_at

    def boot_time(self) -> BootTime:
        """Return seconds that never jump and also count while the machine sleeps, as other machines' time does."""
        return BootTime(time.clock_gettime(_BOOT_TIME))

    def advance(self, by_us: int) -> None:
        """Set the steady clock forward or back, before anything uses it: to the clock of the database, for example."""
        self._anchor_us += by_us

    def steady_us(self) -> Micros:
        """Return the steady clock: microseconds UTC, as the wall clock would show them if nobody had set it meanwhile.

        It is for times that are decided by after a restart or on another replica, such as due deliveries. A jump of the
        wall clock neither delays nor hastens them. The steady clock also counts while the machine sleeps.
        """
        return Micros(self._anchor_us + time.clock_gettime_ns(_BOOT_TIME) // 1000)
