"""Time, passed in everywhere. What the program decides by is monotonic; the wall clock is only written down."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The three readings of time the program uses."""

    def now(self) -> datetime:
        """Return the wall clock, aware UTC: for what is written and shown."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never jump: for every decision within this process."""
        ...

    def steady_us(self) -> int:
        """Return microseconds UTC as the wall clock would read had nobody set it since the process began.

        For times that decide something after a restart (dwell times, due deliveries): a jump of the wall clock
        while the program runs neither delays nor hastens them.
        """
        ...


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        """Anchor the steady clock to the wall clock of this moment."""
        self._anchor_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000

    def now(self) -> datetime:
        """Return the wall clock, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return `time.monotonic()`, the clock asyncio uses too."""
        return time.monotonic()

    def steady_us(self) -> int:
        """Return the anchored microseconds."""
        return self._anchor_us + time.monotonic_ns() // 1000


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds UTC."""
    return round(moment.timestamp() * 1_000_000)
