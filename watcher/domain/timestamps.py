"""The types of moments: UTC, monotonic and boot time. mypy refuses one type where another is expected.

A duration, such as the difference of two moments, is a plain number. The sum of a moment and a duration is a plain
number, too, and gets its type again: `Monotonic(now + wait_s)`.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, NewType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Micros = NewType("Micros", int)
"""Microseconds UTC since 1970: on our steady clock, unless a field names the wall clock or the API's clock."""

NEVER: Final = Micros(0)
"""The time of something that has not happened or is not known."""

Monotonic = NewType("Monotonic", float)
"""Seconds on the monotonic clock of this process."""

BootTime = NewType("BootTime", float)
"""Seconds on the machine's boot clock, which goes on while the machine sleeps."""

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
