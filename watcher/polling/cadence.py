"""When to poll again: pure arithmetic."""

from collections.abc import Callable

from watcher.runtime.backoff import Jitter, spread

Cadence = Callable[[float], float]
"""Seconds spent in this status so far → seconds until the next poll."""

BACKOFF_SHARE = 0.1
JITTER_SHARE = 0.1


def fixed(*, min_interval_s: float) -> Cadence:
    """Return the cadence that polls every `min_interval_s`."""
    return lambda _dwell_s: min_interval_s


def backoff(*, min_interval_s: float, max_interval_s: float, jitter: Jitter) -> Cadence:
    """Return the cadence that waits a tenth of the time in this status, ±10 %, within the bounds (SPEC 3)."""

    def interval(dwell_s: float) -> float:
        wanted = spread(max(min_interval_s, dwell_s * BACKOFF_SHARE), share=JITTER_SHARE, jitter=jitter)
        return min(max_interval_s, max(min_interval_s, wanted))

    return interval
