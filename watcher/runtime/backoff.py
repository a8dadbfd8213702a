"""Delay arithmetic: doubling, caps, jitter (its source passed in) and the `Retry-After` header."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

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
