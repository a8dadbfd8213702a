"""What a restart must not forget of how a sink stands, kept in the store."""

from watcher.delivery.sink_state import Standing
from watcher.store.protocol import Lease, Store


class StandingKeeper:
    """Writes how one sink stands, whenever time has moved that on since it was written; its settlements do so too."""

    def __init__(self, lease: Lease, standing: Standing, *, store: Store) -> None:
        """Take what the standing began with as written."""
        self._lease = lease
        self._standing = standing
        self._store = store
        self._kept = self._state()

    async def keep(self) -> None:
        """Write what has changed. Raises `StoreError`."""
        state = self._state()
        if state != self._kept:
            await self._store.note_standing(self._lease, self._standing.strain(), clock_s=state[0])
            self._kept = state

    def _state(self) -> tuple[float, float | None]:
        """Return what time changes; a pause comes with a settlement."""
        return self._standing.clock_s(), self._standing.strain().failing_for_s
