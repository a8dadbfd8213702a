"""The periodic work for one sink: dead letters of old deliveries, the release of silenced openings, snapshots."""

from collections.abc import Collection

import structlog

from watcher.delivery.sink_state import DISABLED, SinkReporter, SinkState, WorkerDependencies
from watcher.domain.delivery import DeliveryState
from watcher.domain.routing import Silence
from watcher.domain.snapshots import SinkSnapshot
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic

GIVE_UP_EVERY_S = 60.0
GIVE_UP_SHARE = 0.05
"""Interval of the search for deliveries older than `give_up_after`: a minute, or 5 % of `give_up_after` if that is
less."""

ALIVE_EVERY_S = 30.0
"""Interval at which an unchanged snapshot is saved again, to show that the sink has an owner."""

log = structlog.get_logger()


class Upkeep:
    """The periodic work for one sink.

    `released_under` are the silences that were active when openings were last released; `None` if that must be
    repeated.
    """

    def __init__(self, state: SinkState, reporter: SinkReporter, deps: WorkerDependencies) -> None:
        """Let all of the work be due."""
        self.released_under: tuple[Silence, ...] | None = None
        self._state = state
        self._reporter = reporter
        self._deps = deps
        self._give_up_at = EARLIEST
        self._snapshot: SinkSnapshot | None = None
        self._snapshot_at = EARLIEST

    async def release(self, silences: tuple[Silence, ...]) -> None:
        """Make silenced openings of open problems due again, to be judged under these silences. Raises `StoreError`."""
        await self._deps.store.release()
        self.released_under = silences

    async def give_up(self, *, skip: Collection[bytes]) -> int:
        """Make dead letters of old deliveries, except those with an ordering key in `skip`; return their number.

        A delivery is old once `give_up_after` has passed since it was first due. Time in which the sink was disabled
        or had no owner does not count.
        """
        now, store, rules = self._deps.clock.monotonic(), self._deps.store, self._deps.rules
        after_s = rules.give_up_after_s
        if after_s is None or self._state.state == DISABLED or now < self._give_up_at:
            return 0
        self._give_up_at = Monotonic(now + min(GIVE_UP_EVERY_S, after_s * GIVE_UP_SHARE))
        count = await store.give_up(
            clock_s=self._state.clock_s(), after_s=after_s, skip=skip, group_wait_s=rules.group_wait_s
        )
        if count:
            self._deps.metrics.outcomes[DeliveryState.DEAD].inc(count)
            log.warning("deliveries.died", sink=store.lease.name, count=count, why="give_up_after has passed")
            self._reporter.note_dead()
        return count

    async def save_snapshot(self, next_try_at: Micros | None) -> None:
        """Save the snapshot of the sink for pages and API, if it has changed or was last saved 30 s ago.

        It is also saved after trouble with the store: pages distrust what was saved before.
        """
        state, now = self._state, self._deps.clock.monotonic()
        snapshot = SinkSnapshot(state.answer, state.last_success_at or None, next_try_at, state.has_failed)
        latest_at = max(now - ALIVE_EVERY_S, self._deps.store.monitor.last_failing_since)
        if snapshot != self._snapshot or self._snapshot_at <= latest_at:
            await self._deps.store.save_snapshot(snapshot)
            self._snapshot, self._snapshot_at = snapshot, now
