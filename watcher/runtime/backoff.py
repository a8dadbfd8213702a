"""Delay arithmetic: doubling, caps, jitter (its source passed in) and the `Retry-After` header."""

import math
import re
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


_SECONDS = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?")
_ASCTIME = re.compile(r"[A-Za-z]{3} [A-Za-z]{3} [ 0-9][0-9] [0-9:]{8} [0-9]{4}")
_LEAP_SECOND = re.compile(r"(:[0-9]{2}):60\b")
_DATE_LENGTH = 64


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Return a `Retry-After` header in seconds, from 0 to `LONGEST_S`; `None` if it is absent or unreadable.

    RFC 9110, 10.2.3: a number of seconds, or an HTTP date. Fractions are not in the RFC but are sent by some.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return min(max(0.0, float(text)), LONGEST_S)
    return _seconds_until(text, now=now) if len(text) <= _DATE_LENGTH else None


def _seconds_until(text: str, *, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(_LEAP_SECOND.sub(r"\1:59", text))
        if moment.tzinfo is None and _ASCTIME.fullmatch(text):
            moment = moment.replace(tzinfo=UTC)
        return min(max(0.0, (moment - now).total_seconds()), LONGEST_S)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # what the library raises for a stranger's text
        return None
