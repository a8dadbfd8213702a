"""Time, passed in everywhere. What the program decides by is monotonic; the wall clock is only written down."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import cast

from watcher.domain.timestamps import EARLIEST, BootTime, Micros, Monotonic

_BOOT_TIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux stops CLOCK_MONOTONIC while the machine sleeps; macOS does not, and has no other."""

STOPPED_AFTER_S = 2.0
"""A process that runs reads the clock more often: of a longer time between two readings no more counts as run."""


class Clock:
    """The machine's clocks. Tests have others below it. `running` has to be read every second: the schedule does.

    `now` is the wall clock, aware UTC: for what is written and shown. `monotonic` never jumps: for every decision in
    this process.
    """

    def __init__(self, *, read: Callable[[], float] = time.monotonic) -> None:
        """Anchor the steady clock to the wall clock of this moment. `read` is the machine's monotonic clock."""
        self._read = read
        # The functions themselves, of which the second is the clock asyncio uses too: they are read for each change.
        self.now: Callable[[], datetime] = partial(datetime.now, UTC)
        self.monotonic = cast("Callable[[], Monotonic]", time.monotonic)
        self._anchor_us = (time.time_ns() - time.clock_gettime_ns(_BOOT_TIME)) // 1000
        self._ran_s = 0.0
        self._read_at = read()
        self._resumed_at = EARLIEST

    def running(self) -> float:
        """Return seconds for which this process ran, from 0 on; they stand still while it is stopped.

        For how long something has failed: a stopped process (SIGSTOP, `docker pause`) tries nothing, so the time it
        was stopped is nobody's failure. Between two readings at most `STOPPED_AFTER_S` pass.
        """
        now = self._read()
        passed_s, self._read_at = now - self._read_at, now
        self._ran_s += min(passed_s, STOPPED_AFTER_S)
        if passed_s > STOPPED_AFTER_S:
            self._resumed_at = Monotonic(now)
        return self._ran_s

    def resumed_at(self) -> Monotonic:
        """Return when the process last went on after a stop: what was in flight by then may have broken by the stop."""
        self.running()
        return self._resumed_at

    def boot_time(self) -> BootTime:
        """Return seconds that never jump, and go on while the machine sleeps: for what others do meanwhile."""
        return BootTime(time.clock_gettime(_BOOT_TIME))

    def advance(self, by_us: int) -> None:
        """Set the steady clock forward, or back, before anything goes by it: to another machine's, say."""
        self._anchor_us += by_us

    def steady_us(self) -> Micros:
        """Return microseconds UTC as the wall clock would read had nobody set it since the process began.

        For times that decide something after a restart, or on another replica (dwell times, due deliveries): a jump of
        the wall clock while the program runs neither delays nor hastens them. They go on while the machine sleeps.
        """
        return Micros(self._anchor_us + time.clock_gettime_ns(_BOOT_TIME) // 1000)
