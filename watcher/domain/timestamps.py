"""Moments, each with its clock in its type, so that mypy finds a mix-up. Reads no clock.

A moment is `Micros` or `Monotonic`; a duration, such as the difference of two moments, is a plain number. A moment plus
a duration is made a moment again: `Monotonic(now + wait_s)`.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NewType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Micros = NewType("Micros", int)
"""Microseconds UTC: on our steady clock, or as the API or the wall clock dates things."""

NEVER: Final = Micros(0)
"""When that was which has not happened, or of which nobody knows."""

Monotonic = NewType("Monotonic", float)
"""Seconds on the monotonic clock of this process."""

BootTime = NewType("BootTime", float)
"""Seconds on the clock of this machine that goes on while it sleeps."""

EARLIEST: Final = Monotonic(float("-inf"))
"""Before every other moment: what waits until then does not wait."""

LATEST: Final = Monotonic(float("inf"))
"""After every other moment: what waits until then waits for ever."""


def to_us(moment: datetime) -> Micros:
    """Return an aware datetime as microseconds UTC."""
    return Micros((moment - _EPOCH) // timedelta(microseconds=1))


def from_us(moment_us: Micros) -> datetime:
    """Return microseconds UTC as an aware datetime."""
    return _EPOCH + timedelta(microseconds=moment_us)
