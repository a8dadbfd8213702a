"""A token bucket: the real rate limit of the simulated API, which a client meets as 429."""


class Bucket:
    """Holds one second's worth of tokens, at least one, and starts full."""

    def __init__(self, rate_per_s: float, *, now: float) -> None:
        """Start at the monotonic moment `now`."""
        self._rate_per_s = rate_per_s
        self._capacity = max(1.0, rate_per_s)
        self._tokens = self._capacity
        self._filled_at = now

    def take(self, now: float) -> float:
        """Take a token and return 0, or return after how many seconds there is one again."""
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._rate_per_s)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate_per_s
        self._tokens -= 1
        return 0.0
