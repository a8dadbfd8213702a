"""The clock of tests, which stands still until it is moved."""

from datetime import UTC, datetime, timedelta

from watcher.domain.timestamps import EARLIEST, BootTime, Micros, Monotonic
from watcher.runtime.clock import STOPPED_AFTER_S, Clock

EPOCH = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


class FakeClock(Clock):
    """Stands still until moved. The wall clock may be set; the others never jump.

    It reads `begins` after 0 s. The steady clock is off by `off_s`, as the wall clock was when the process began.
    """

    def __init__(self, elapsed_s: float, *, begins: datetime = EPOCH) -> None:
        self.elapsed_s = elapsed_s
        self.off_s = 0.0
        self.wall_offset_s = 0.0
        self.stopped_s = 0.0
        self._begins = begins
        self._resumed_at = EARLIEST

    @property
    def us(self) -> int:
        """The steady clock, which may be set to another moment."""
        return self.steady_us()

    @us.setter
    def us(self, us: int) -> None:
        self.elapsed_s += (us - self.steady_us()) / 1_000_000

    def advance(self, seconds: float) -> None:
        self.elapsed_s += seconds

    def stop_for(self, seconds: float) -> None:
        """Let time pass in which the process does not run. A shorter time than the clock can tell is no stop."""
        self.elapsed_s += seconds
        if seconds > STOPPED_AFTER_S:
            self.stopped_s += seconds
            self._resumed_at = self.monotonic()

    def now(self) -> datetime:
        return self._begins + timedelta(seconds=self.elapsed_s + self.wall_offset_s)

    def monotonic(self) -> Monotonic:
        return Monotonic(self.elapsed_s)

    def running(self) -> float:
        return self.monotonic() - self.stopped_s

    def boot_time(self) -> BootTime:
        return BootTime(self.monotonic())

    def steady_us(self) -> Micros:
        return Micros(round((self._begins.timestamp() + self.elapsed_s + self.off_s) * 1_000_000))
