"""What a restart must not forget of how a sink is, kept in the store."""

from watcher.delivery.sink_state import SinkState
from watcher.store.protocol import Lease, Store


class SinkStateStore:
    """Writes how one sink is, whenever time has moved that on since it was written; its attempts do so too."""

    def __init__(self, lease: Lease, sink_state: SinkState, *, store: Store) -> None:
        """Take what the state began with as written."""
        self._lease = lease
        self._sink_state = sink_state
        self._store = store
        self._saved = self._state()

    async def save(self) -> None:
        """Write what has changed. Raises `StoreError`."""
        state = self._state()
        if state != self._saved:
            await self._store.save_sink_state(self._lease, self._sink_state.backoff(), clock_s=state[0])
            self._saved = state

    def _state(self) -> tuple[float, float | None]:
        """Return what time changes; a pause comes with an attempt record."""
        return self._sink_state.clock_s(), self._sink_state.backoff().failing_for_s
