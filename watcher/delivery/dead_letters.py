"""Reports the dead letters of one sink to the other sinks, at most once a minute."""

from watcher.delivery.retries import Attempt
from watcher.delivery.sink_state import SinkReporter, WorkerDependencies
from watcher.domain.delivery import DeliveryState
from watcher.domain.timestamps import LATEST, Monotonic
from watcher.store.changes import SinkRecord
from watcher.store.sink_store import SinkStore

EVERY_S = 60.0
"""Shortest time between two `delivery.dead` of one sink."""


class DeadLetters:
    """The dead letters of one sink that no `delivery.dead` has reported. At `next_at` `report` is to be called."""

    def __init__(
        self, reporter: SinkReporter, record: SinkRecord, *, store: SinkStore, deps: WorkerDependencies
    ) -> None:
        """Report at once what a killed process has not reported."""
        self._reporter = reporter
        self._store = store
        self._clock = deps.clock
        self._dead_from = record.dead_from
        self._remedies: dict[str, str] = {}  # by answer
        self.died()

    def failed(self, attempt: Attempt) -> None:
        """Note a failed request that is settled: what to do about its answer, and whether it made dead letters."""
        if not attempt.result.minimal_left:
            self._remedies[attempt.result.answer] = attempt.result.remedy
        if any(each.state is DeliveryState.DEAD for each in attempt.records):
            self.died()

    def died(self) -> None:
        """Note that there may be new dead letters. They are due at once, but not within a minute of the last report."""
        since_s = (self._clock.steady_us() - self._dead_from) / 1e6
        self.next_at = Monotonic(self._clock.monotonic() + max(0.0, EVERY_S - since_s))

    async def report(self) -> None:
        """Record `delivery.dead` if there are dead letters since the last one. Raises `StoreError`."""
        now = self._clock.steady_us()
        dead = await self._store.dead_since(self._dead_from)
        if dead is not None:
            await self._reporter.report_dead(dead, remedy=self._remedies.get(dead.answer))
            self._dead_from = now
        self.next_at = LATEST
