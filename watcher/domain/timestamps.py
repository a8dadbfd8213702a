"""Moments in time. Each has its clock in its type, so mypy finds a comparison of two clocks. Reads no clock.

A moment is `Micros` or `Monotonic`; a duration, such as the difference of two moments, is a plain number. A moment plus
a duration is made a moment again: `Monotonic(now + wait_s)`.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NewType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Micros = NewType("Micros", int)
"""Microseconds UTC: on our steady clock, or as the API or the wall clock dates things."""

NEVER: Final = Micros(0)
"""The time of something that has not happened or is not known."""

Monotonic = NewType("Monotonic", float)
"""Seconds on the monotonic clock of this process."""

BootTime = NewType("BootTime", float)
"""Seconds on the machine's clock that also counts while the machine sleeps."""

EARLIEST: Final = Monotonic(float("-inf"))
"""The earliest moment. A wait until then is over at once."""

LATEST: Final = Monotonic(float("inf"))
"""The latest moment. A wait until then never ends."""


def to_us(moment: datetime) -> Micros:
    """Return an aware datetime as microseconds UTC."""
    return Micros((moment - _EPOCH) // timedelta(microseconds=1))


def from_us(moment_us: Micros) -> datetime:
    """Return microseconds UTC as an aware datetime."""
    return _EPOCH + timedelta(microseconds=moment_us)
