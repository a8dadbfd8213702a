"""What a restart must not forget of how an account is, kept in the store: pauses at once, other in time."""

import asyncio

from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.runtime.clock import Clock
from watcher.store.protocol import AccountStore, Lease

WORTH_SAVING_S = 2.0
"""A shorter pause is over about as soon as a restart."""


class AccountStateStore:
    """Writes how one account is, whenever that is not what was written last."""

    def __init__(self, lease: Lease, breaker: AccountCircuitBreaker, *, store: AccountStore, clock: Clock) -> None:
        """Take what the breaker began with as written."""
        self._lease = lease
        self._breaker = breaker
        self._store = store
        self._clock = clock
        self._saving = asyncio.Lock()
        self._saved = self._state(clock.monotonic())

    async def save_pause(self) -> None:
        """Write a pause that has begun or grown and is not over in a moment. Otherwise as `save`."""
        paused_until = self._breaker.paused_until
        if paused_until - self._clock.monotonic() >= WORTH_SAVING_S and paused_until != self._saved[0]:
            await self.save()

    async def save(self) -> None:
        """Write what has changed. Raises `StoreError`."""
        async with self._saving:
            now = self._clock.monotonic()
            if self._breaker.failing_since is not None:
                self._breaker.note_running(now=now, ran_s=self._clock.running())
            state = self._state(now)
            if state != self._saved:
                await self._store.save_backoff(self._lease, self._breaker.backoff(now))
                self._saved = state

    def _state(self, now: float) -> tuple[float | None, float | None]:
        """Return what makes one backoff differ from another: when the pause ends, which time does not change."""
        backoff = self._breaker.backoff(now)
        return None if backoff.pause_s is None else self._breaker.paused_until, backoff.failing_for_s
