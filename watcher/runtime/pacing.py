"""When something may go next: the pace of a rate limit, delays that double, `Retry-After`."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from watcher.domain.timestamps import Monotonic

SHARE = 0.98
"""The part of a rate that is used."""

LATENESS_S = 0.02
"""How late a timer may wake and still have its slots: above this, unused time is lost.

In any second at most 0.98 rate + 0.02 rate + 1 requests leave, which keeps rate x 1.05 + 2 even when the network
bunches a few of them.
"""


class Pacer:
    """Spaces requests evenly at 98 % of a rate; time that goes unused is lost, so there is never a burst.

    `ready_at` is the monotonic moment from which the next request may go; in the past means now. `gap_s` is the time
    between two.
    """

    def __init__(self, rate_per_s: float, *, now: Monotonic) -> None:
        """Start with the first request one gap from `now`: an earlier life may have sent one a moment ago."""
        self.gap_s = 1 / (rate_per_s * SHARE)
        self.ready_at = Monotonic(now + self.gap_s)

    def spend(self, now: Monotonic) -> None:
        """Take the slot of a request that goes out at `now` (monotonic seconds)."""
        self.ready_at = Monotonic(max(self.ready_at, now - LATENESS_S) + self.gap_s)


LONGEST_S = 1e9
"""No wait is longer than this, some thirty years, whatever a server asks for."""

Jitter = Callable[[], float]
"""A source of numbers in [0, 1), such as `random.random`."""


def doubling(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Return the wait in seconds before try `attempt` + 1 (counted from 1): base, 2 base, 4 base, … up to the cap."""
    exponent = min(attempt - 1, 62)
    return min(cap_s, base_s * math.ldexp(1.0, exponent))


def spread(delay_s: float, *, share: float, jitter: Jitter) -> float:
    """Return the delay moved by up to ± `share` of itself."""
    return delay_s * (1 + share * (2 * jitter() - 1))


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return a `Retry-After` header in seconds, from 0 to `LONGEST_S`; `None` if it is absent or unreadable.

    RFC 9110, 10.2.3: a number of seconds, or an HTTP date. Fractions are not in the RFC but are sent by some.
    """
    text = (value or "").strip()
    try:
        wait_s = float(text) if text[:1].isdigit() and " " not in text else _seconds_until(text, now=now)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # what the library raises for a stranger's text
        return None
    return min(max(0.0, wait_s), LONGEST_S)


def _seconds_until(text: str, *, now: datetime) -> float:
    moment = parsedate_to_datetime(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
