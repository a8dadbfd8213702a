"""What the daemon does beside polling and sending: flush poll times, prune what is old, expire what nobody collects.

And close the problems that nobody watches for any more.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from uuid import UUID

import structlog

from watcher.config.models import Settings
from watcher.daemon.build import watches_of
from watcher.daemon.ownership import Ownership
from watcher.daemon.supervisor import OwnerDependencies, Supervisor
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.domain.event import ClosedReason, EventType
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Watch, limits_dwell
from watcher.store.changes import OpenProblem
from watcher.store.leases import MAINTENANCE, HeldLease
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.problems import count_open_problems
from watcher.store.recording import load_events

log = structlog.get_logger()

FLUSH_EVERY_S = 5.0
TIDY_EVERY_S = 3600.0
PAGES_COUNT = 20
"""Pages pruned in one tick: about a second, for a tick that takes half a minute counts as stalled."""

ABSENT_SINK_DEAD_AFTER_US = 24 * 3600 * 1_000_000

CLOCKS_APART_US = 24 * 3600 * 1_000_000
"""An id stays so much longer than the dates ask for: a list dates by the clock of the API, we by ours."""


class Maintenance:
    """One tick for all of it. With trouble with the store the work is still there next time."""

    def __init__(self, shared: OwnerDependencies, supervisor: Supervisor, ownership: Ownership) -> None:
        """Tidy up with the first tick, if `ownership` says that this process does."""
        self._store = shared.store
        self._clock = shared.clock
        self._metrics = shared.metrics
        self._events = shared.events
        self._supervisor = supervisor
        self._ownership = ownership
        self._settings = Settings()
        self._watches: Mapping[tuple[str, str], Watch] = {}
        self._tidy_at = self._clock.monotonic()
        self._pruning: AsyncIterator[int] | None = None
        self._pruned_count = 0
        self._backlogged: set[str] = set()
        self._held: HeldLease | None = None

    async def tick(self) -> None:
        """Flush, and once an hour tidy up. Raises `StoreUnusableError` for trouble that no next time will mend."""
        try:
            self._store.database.check_file()
        except StoreUnusableError as error:
            log.error("store.replaced", problem=str(error))  # noqa: TRY400 (our own text says it all)
            raise
        try:
            await self.flush()
            async with self._supervisor.tidying:
                await self._tidy()
        except StoreUnusableError:
            raise
        except StoreError as error:
            self._begin_anew()
            if isinstance(error, OwnershipLostError) and self._held is not None:
                self._ownership.lost(self._held)

    async def flush(self) -> None:
        """Write what is written lazily: together, so that it costs one commit. Raises `StoreError`."""
        outcomes = await asyncio.gather(*(owner.flush() for owner in self._supervisor.owned()), return_exceptions=True)
        # Not of who was replaced meanwhile: the new owner began from what is recorded.
        raised = [each for each in outcomes if each is not None and not isinstance(each, OwnershipLostError)]
        if raised:
            raise next((each for each in raised if isinstance(each, StoreUnusableError)), raised[0])

    async def refresh_gauges(self) -> None:
        """Bring the gauges of outbox and problems up to date; a store that does not answer leaves them as they were."""
        try:
            backlog = await self._store.backlog()
            problems = await self._store.read(count_open_problems)
        except StoreError:
            return
        for kind in PROBLEM_KINDS:
            self._metrics.problems_open.labels(kind).set(problems.get(kind, 0))
        shown = {*(self._supervisor.applied or self._settings).sinks, *backlog}
        for name in self._backlogged - shown:
            self._metrics.forget_backlog(name)
        self._backlogged = shown
        for name in shown:
            waiting = backlog.get(name)
            oldest_at = waiting.oldest_at if waiting else None
            self._metrics.outbox_pending.labels(name).set(waiting.pending_count if waiting else 0)
            self._metrics.outbox_oldest.labels(name).set((oldest_at or 0) / 1_000_000)

    async def _tidy(self) -> None:
        """Expire when it is time, and prune so much that the rest is left for the next tick, if there is more."""
        settings = self._supervisor.applied
        if settings is None:
            return
        if settings is not self._settings:
            self._settings, self._tidy_at = settings, self._clock.monotonic()
            self._watches = {(each.account, each.pipeline): each for each in watches_of(settings)}
        store = await self._owned_store()
        if store is None or not self._ownership.is_agreed():  # or another replica may have what this one has not
            self._begin_anew()  # at once, should it come to that
            return
        if self._pruning is None:
            if self._clock.monotonic() < self._tidy_at:
                return
            self._tidy_at = Monotonic(self._clock.monotonic() + TIDY_EVERY_S)
            await self._expire(store)
            await self._close_problems(store)
            ended_before = Micros(self._clock.steady_us() - round(settings.store.retention_s * 1_000_000))
            self._pruning = store.prune(ended_before=ended_before, keep=self._is_kept)
            self._pruned_count = 0
        for _ in range(PAGES_COUNT):
            count = await anext(self._pruning, None)
            if count is None:
                self._pruning = None
                if self._pruned_count:
                    log.info("store.pruned", executions=self._pruned_count)
                return
            self._pruned_count += count

    async def _owned_store(self) -> MaintenanceStore | None:
        """Return the store, if it is for this process to tidy. Raises `StoreError`."""
        ownership = self._ownership
        if not ownership.may_own(MAINTENANCE):
            return None
        if self._held is None or not ownership.is_current(self._held):
            self._begin_anew()
            self._held = await ownership.take(MAINTENANCE)
        return MaintenanceStore(self._store, self._held.lease) if self._held.is_trusted() else None

    def _begin_anew(self) -> None:
        self._pruning, self._tidy_at = None, self._clock.monotonic()

    def _is_kept(self, account: str, pipeline: str, execution: str, ended_at: Micros) -> bool:
        """Return whether an id stays: the configuration names it, or a list of its whole pipeline may show it again.

        The configuration may be another by the next page.
        """
        watch = self._watches.get((account, pipeline))
        if watch is None:
            return False
        listed_s = max(self._settings.store.retention_s, self._settings.polling.lookback_s)
        ended_ago_us = self._clock.steady_us() - ended_at
        may_be_listed = watch.whole and ended_ago_us < listed_s * 1_000_000 + CLOCKS_APART_US
        return may_be_listed or execution in watch.executions

    async def _expire(self, store: MaintenanceStore) -> None:
        present, now = self._settings.sinks, self._clock.steady_us()
        await store.mark_absent_pipelines(present=[key for key, watch in self._watches.items() if watch.whole], now=now)
        died = await store.mark_absent_sinks(present=present, now=now, dead_after_us=ABSENT_SINK_DEAD_AFTER_US)
        if died:
            log.warning("deliveries.died", count=died, why="their sink was removed 24 h ago")

    async def _close_problems(self, store: MaintenanceStore) -> None:
        """Close what nobody watches for any more, and forget what the rules of such pipelines went by."""
        settings, watches = self._settings, self._watches
        after: UUID | None = None
        await store.forget_rules(present=[key for key, watch in watches.items() if watch.rules])
        while page := await self._store.open_problems(after=after):
            after = page[-1].problem.id
            gone = [each for each in page if each.has_ended or not watches_for(settings, watches, each)]
            if not gone:
                continue
            keys = [each.problem.opening for each in gone]
            openings = await self._store.read(partial(load_events, keys=keys))
            closings = [
                self._events.closed(
                    each.problem,
                    openings.get(each.problem.opening),
                    reason=ClosedReason.ENDED if each.has_ended else ClosedReason.REMOVED,
                    after=each.told_count,
                    at=self._clock.now(),
                )
                for each in gone
            ]
            closed_count = await store.close_problems([(entry, change) for entry, change in closings if change])
            for each in gone:
                self._supervisor.closed(each)
            if closed_count:
                self._metrics.events.labels(EventType.PROBLEM_CLOSED).inc(closed_count)
                log.info("problem.closed", count=closed_count)


def watches_for(settings: Settings, watches: Mapping[tuple[str, str], Watch], problem: OpenProblem) -> bool:
    """Return whether the configuration has what a problem is about, and what watches for it."""
    if problem.pipeline is None:
        return problem.name in (settings.sinks if problem.kind == "sink" else settings.accounts)
    watch = watches.get((problem.name, problem.pipeline))
    if watch is None:
        return False
    if problem.execution is not None:
        is_watched = watch.whole or problem.execution in watch.executions
        return is_watched and problem.status is not None and limits_dwell(watch.overdue_after_s, problem.status)
    return watch.rules is not None and watch.rules.watch_for(problem.problem.kind)
