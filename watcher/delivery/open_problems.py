"""Reminders of open problems for a sink, and refreshes for a receiver that keeps problems in memory only."""

import asyncio
from datetime import timedelta

import structlog

from watcher.delivery.sink_reporter import SinkReporter
from watcher.delivery.sink_state import WorkerDependencies
from watcher.domain.errors import LeaseExpiredError, StoreError
from watcher.domain.problems import SentOpening
from watcher.domain.timestamps import LATEST, Micros, Monotonic
from watcher.runtime.tasks import start_task, stop_task
from watcher.sinks.protocol import Sink

CHECK_EVERY_S = 30.0
"""The longest time between two reads of the open problems, or `remind_every` if that is shorter: a new problem is read
before its first reminder is due."""

APART_S = 1.0
"""The shortest time between two reads of the open problems. It delays a reminder by at most as long."""

REMINDED_COUNT = 256
"""The most reminders in one tick: each is a transaction, and a tick that takes half a minute counts as stalled."""

CLOSED_SHOWN = timedelta(minutes=15)
"""The time for which a closed problem is still refreshed, as closed: an earlier refresh may not have arrived."""

log = structlog.get_logger()


class OpenProblems:
    """The reminders and refreshes of the open problems that one sink was sent.

    `tick` is due at `due_at` (monotonic seconds).
    """

    def __init__(self, sink: Sink, reporter: SinkReporter, deps: WorkerDependencies) -> None:
        """Let the first tick read the open problems."""
        self._sink = sink
        self._reporter = reporter
        self._deps = deps
        self._remind_every_us = round((deps.rules.remind_every_s or 0.0) * 1e6)
        self._check_at = LATEST if deps.rules.remind_every_s is None else deps.clock.monotonic()
        self._refresh_at = LATEST if sink.refresh_every_s is None else deps.clock.monotonic()
        self._refreshing: asyncio.Task[None] | None = None
        self.due_at = min(self._check_at, self._refresh_at)
        if sink.refresh_every_s is not None:
            deps.metrics.start_refreshes()

    async def tick(self, now: Monotonic) -> None:
        """Start a refresh, and record reminders, as far as they are due. Raises `StoreError`."""
        if now >= self._refresh_at:
            self._refresh_at = Monotonic(now + (self._sink.refresh_every_s or 0.0))
            if self._refreshing is None or self._refreshing.done():
                self._refreshing = start_task(self._refresh(), fatal=self._deps.fatal)
        try:
            if now >= self._check_at:
                await self._remind(now)
        finally:
            self.due_at = min(self._check_at, self._refresh_at)

    async def cancel(self) -> None:
        """Cancel a refresh in flight. The first tick after the next start repeats the refresh."""
        await stop_task(self._refreshing)

    async def _remind(self, now: Monotonic) -> None:
        """Record the reminders that are due, one per open problem or incident. A failing or disabled sink gets none."""
        every_us, rest_s = self._remind_every_us, min(CHECK_EVERY_S, self._remind_every_us / 1e6)
        self._check_at = Monotonic(now + rest_s)
        if self._reporter.state.state is not None:
            return
        reminded_count, at = 0, self._deps.clock.now()
        openings = await self._deps.store.sent_openings()
        # A problem that is acknowledged now gets no reminder. The next read checks it again.
        openings = [each for each in openings if each.acked_until is None or at >= each.acked_until]
        incidents: dict[bytes, list[SentOpening]] = {}
        for each in openings:
            incidents.setdefault(each.incident or each.problem.id.bytes, []).append(each)
        for together in incidents.values():
            opening = together[0]
            if reminded_count == REMINDED_COUNT:  # the next tick, which is due at once, reminds of the others
                self._check_at = now
                break
            # Reminders are due every `remind_every` from the recording of the opening on, as soon as the sink has taken
            # the opening.
            open_us = self._deps.clock.steady_us() - opening.recorded_at
            due_at = Micros(opening.recorded_at + open_us // every_us * every_us)
            if due_at > (opening.reminded_at or max(opening.settled_at, opening.recorded_at)):
                await self._reporter.remind(together, due_at=due_at)
                reminded_count += 1
            next_s = (every_us - open_us % every_us) / 1e6
            self._check_at = min(self._check_at, Monotonic(now + max(APART_S, next_s)))

    async def _refresh(self) -> None:
        try:
            openings = await self._deps.store.sent_openings(closed_from=self._deps.clock.now() - CLOSED_SHOWN)
        except StoreError:  # the next refresh comes soon
            return
        if not openings or not self._deps.is_trusted():
            return
        try:
            result = await self._sink.refresh(openings)
        except LeaseExpiredError:
            return
        except Exception as error:  # noqa: BLE001 (a refresh that fails must not end the daemon)
            log.error("refresh.crashed", sink=self._deps.store.lease.name, error=type(error).__name__)  # noqa: TRY400 (texts may hold secrets)
            self._deps.metrics.count_refresh(well=False)
            return
        self._deps.metrics.count_refresh(well=result.outcome.is_taken)
        if not result.outcome.is_taken:
            log.debug("refresh.failed", sink=self._deps.store.lease.name, answer=result.answer, count=len(openings))
