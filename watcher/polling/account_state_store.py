"""What a restart must not forget of how an account is, kept in the store: pauses at once, other in time."""

import asyncio

from watcher.polling.circuit_breaker import Health
from watcher.runtime.clock import Clock
from watcher.store.protocol import Lease, Ledger

WORTH_KEEPING_S = 2.0
"""A shorter pause is over about as soon as a restart."""


class HealthKeeper:
    """Writes how one account is, whenever that is not what was written last."""

    def __init__(self, lease: Lease, health: Health, *, store: Ledger, clock: Clock) -> None:
        """Take what the health began with as written."""
        self._lease = lease
        self._health = health
        self._store = store
        self._clock = clock
        self._keeping = asyncio.Lock()
        self._kept = self._state(clock.monotonic())

    async def keep_pause(self) -> bool:
        """Write a pause that has begun or grown and is not over in a moment. Otherwise as `keep`."""
        paused_until = self._health.paused_until
        if paused_until - self._clock.monotonic() >= WORTH_KEEPING_S and paused_until != self._kept[0]:
            return await self.keep()
        return False

    async def keep(self) -> bool:
        """Write what has changed, and return whether anything was written. Raises `StoreError`."""
        async with self._keeping:
            now = self._clock.monotonic()
            if self._health.failing_since is not None:
                self._health.lived(now=now, ran_s=self._clock.running())
            state = self._state(now)
            if state == self._kept:
                return False
            await self._store.note_strain(self._lease, self._health.strain(now))
            self._kept = state
            return True

    def _state(self, now: float) -> tuple[float | None, float | None]:
        """Return what tells one strain from another: when the pause ends, which time does not change."""
        strain = self._health.strain(now)
        return None if strain.pause_s is None else self._health.paused_until, strain.failing_for_s
