"""The times between requests: the pacer of a rate limit, doubling delays, and `Retry-After`."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from watcher.domain.timestamps import Monotonic

SHARE = 0.98
"""The share of a rate limit that is used."""

LATENESS_S = 0.02
"""The largest delay of a timer (seconds) that a pacer makes up for. Slots that are missed by more are lost.

At most 0.98 rate + 0.02 rate + 1 requests leave in any second. The promised rate x 1.05 + 2 therefore holds even if the
network bunches some requests.
"""


class Pacer:
    """The pacer of a rate limit: requests leave evenly at 98 % of the rate. Unused time is lost, so no burst follows.

    The next request may leave at `ready_at` (monotonic), or at once if that moment is past. `gap_s` is the time between
    two requests.
    """

    def __init__(self, rate_per_s: float, *, now: Monotonic) -> None:
        """Allow the first request one gap after `now`, because an earlier process may have just sent one."""
        self.gap_s = 1 / (rate_per_s * SHARE)
        self.ready_at = Monotonic(now + self.gap_s)

    def spend(self, now: Monotonic) -> None:
        """Take the slot of a request that leaves at `now`, and set `ready_at` for the next one."""
        self.ready_at = Monotonic(max(self.ready_at, now - LATENESS_S) + self.gap_s)


LONGEST_WAIT_S = 1e9
"""The longest wait in seconds (some thirty years) that is accepted from a server."""

Jitter = Callable[[], float]
"""A source of numbers in [0, 1), such as `random.random`."""


def doubling(attempt: int, *, base_s: float, cap_s: float) -> float:
    """Return the seconds to wait after the nth attempt: base, 2 base, 4 base, … up to the cap."""
    exponent = min(attempt - 1, 62)
    return min(cap_s, base_s * math.ldexp(1.0, exponent))


def spread(delay_s: float, *, share: float, jitter: Jitter) -> float:
    """Return the delay changed at random by up to ± `share` of itself."""
    return delay_s * (1 + share * (2 * jitter() - 1))


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return a `Retry-After` header in seconds, from 0 to `LONGEST_WAIT_S`; `None` if it is absent or unreadable.

    RFC 9110, 10.2.3 allows a number of seconds or an HTTP date. Some servers send fractions, too.
    """
    text = (value or "").strip()
    try:
        if text[:1].isdigit() and " " not in text:
            wait_s = float(text)
        else:
            moment = parsedate_to_datetime(text)
            wait_s = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now).total_seconds()
    except (ArithmeticError, LookupError, TypeError, ValueError):  # the errors of the library for an invalid text
        return None
    return min(max(0.0, wait_s), LONGEST_WAIT_S)
