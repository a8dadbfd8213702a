"""The periodic work of the daemon beside polling and delivery: some of it every 5 s, some every hour.

It flushes the owners, records reports, deletes old rows, makes dead letters of the deliveries to removed sinks, closes
problems whose rule or limit was removed, and logs progress.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from uuid import UUID

import structlog

from watcher.config.models import Settings
from watcher.daemon.build import OwnerDependencies
from watcher.daemon.from_settings import watches_of
from watcher.daemon.ownership import Ownership
from watcher.daemon.reports import Reports
from watcher.daemon.supervisor import Supervisor, raise_worst
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.domain.event import ClosedReason, EventType
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.timestamps import NEVER, Micros, Monotonic
from watcher.domain.watch import Watch, has_limit
from watcher.polling.account_poller import AccountPoller
from watcher.store.changes import Backlog, OpenProblem
from watcher.store.deliveries import backlog
from watcher.store.leases import MAINTENANCE, HeldLease
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.problems import count_open_problems, open_problems
from watcher.store.recording import load_events
from watcher.store.sql_store import SqlStore

log = structlog.get_logger()

FLUSH_EVERY_S = 5.0
TIDY_EVERY_S = 3600.0
PAGES_COUNT = 20
"""The most pages of old rows that are deleted in one tick. They take about a second; a tick of half a minute would
count as stalled."""

CLOCKS_APART_US = 24 * 3600 * 1_000_000
"""The extra time for which an execution's id is kept, because a list dates the execution by the API's clock."""

BACKLOG_EVERY_S = 60.0
SUMMARY_EVERY_S = 3600.0

LATE_S = 300.0
"""A sink is late once a delivery has been due for longer than this. It stays late until none has been due for half as
long."""

_COUNTED = {
    "requests": ("watcher_api_requests_total", {}),
    "events": ("watcher_events_total", {}),
    "deliveries": ("watcher_deliveries_total", {"outcome": "delivered"}),
}


class Maintenance:
    """The maintenance of one process. If the store fails, a later tick repeats the work."""

    def __init__(
        self, shared: OwnerDependencies, supervisor: Supervisor, ownership: Ownership, reports: Reports
    ) -> None:
        """Let the first tick tidy up, if this process then holds the maintenance lease."""
        self._shared = shared
        self._reports = reports
        self._supervisor = supervisor
        self._ownership = ownership
        self._settings = Settings()
        self._watches: Mapping[tuple[str, str], Watch] = {}
        self._tidy_at = shared.clock.monotonic()
        self._pruning: AsyncIterator[int] | None = None
        self._held: HeldLease | None = None

    async def tick(self) -> None:
        """Flush the owners, and tidy up once an hour. Raises `StoreUnusableError` if no later tick can succeed."""
        self._shared.store.database.check_file()
        owned = self._supervisor.parts()
        try:  # together, so that all flushes are one commit
            raise_worst(await asyncio.gather(*(each.flush() for each in owned), return_exceptions=True))
            async with self._supervisor.tidying:
                await self._tidy()
        except StoreUnusableError:
            raise
        except StoreError as error:
            self._restart_tidying()
            if isinstance(error, OwnershipLostError) and self._held is not None:
                self._ownership.mark_lost(self._held)

    async def refresh_gauges(self) -> None:
        """Update the gauges of pending deliveries and open problems, unless the store fails."""
        try:
            waiting_by_sink = await self._shared.store.read(backlog)
            problems = await self._shared.store.read(count_open_problems)
        except StoreError:
            return
        for kind in PROBLEM_KINDS:
            self._shared.metrics.problems_open.labels(kind).set(problems.get(kind, 0))
        for gauge in (self._shared.metrics.outbox_pending, self._shared.metrics.outbox_oldest):
            gauge.clear()
        for name in {*(self._supervisor.applied or self._settings).sinks, *waiting_by_sink}:
            waiting = waiting_by_sink.get(name, Backlog(0, None, NEVER))
            self._shared.metrics.outbox_pending.labels(name).set(waiting.pending_count)
            self._shared.metrics.outbox_oldest.labels(name).set((waiting.oldest_at or 0) / 1_000_000)

    async def _tidy(self) -> None:
        """Record reports that are due. Start to tidy up if that is due, and delete some pages of old rows.

        The next ticks delete the rest.
        """
        settings = self._supervisor.applied
        if settings is None:
            return
        if settings is not self._settings:
            self._settings, self._tidy_at = settings, self._shared.clock.monotonic()
            self._watches = {(each.account, each.pipeline): each for each in watches_of(settings)}
        store = await self._owned_store()
        if store is not None:
            await self._reports.tick(store, settings)
        if store is None or not self._ownership.is_agreed:  # another replica's file may name what this file lacks
            self._restart_tidying()  # tidying is due at once when this process may do it again
            return
        if self._pruning is None:
            if self._shared.clock.monotonic() < self._tidy_at:
                return
            self._tidy_at = Monotonic(self._shared.clock.monotonic() + TIDY_EVERY_S)
            now, whole = self._shared.clock.steady_us(), [key for key, watch in self._watches.items() if watch.whole]
            await store.mark_absent_pipelines(present=whole, now=now)
            dead_after_us = 24 * 3600 * 1_000_000
            if died := await store.mark_absent_sinks(present=settings.sinks, now=now, dead_after_us=dead_after_us):
                log.warning("deliveries.died", count=died, why="their sink was removed 24 h ago")
            await self._close_problems(store)
            ended_before = Micros(now - round(settings.store.retention_s * 1_000_000))
            self._pruning = store.prune(ended_before=ended_before, keep=self._is_kept)
        for _ in range(PAGES_COUNT):
            if await anext(self._pruning, None) is None:
                self._pruning = None
                return

    async def _owned_store(self) -> MaintenanceStore | None:
        ownership = self._ownership
        if not ownership.may_own(MAINTENANCE):
            return None
        if self._held is None or not ownership.is_current(self._held):
            self._restart_tidying()
            self._held = await ownership.take(MAINTENANCE)
        return MaintenanceStore(self._shared.store, self._held.lease) if self._held.is_trusted() else None

    def _restart_tidying(self) -> None:
        self._pruning, self._tidy_at = None, self._shared.clock.monotonic()

    def _is_kept(self, account: str, pipeline: str, execution: str, ended_at: Micros) -> bool:
        """Return whether an ended execution's id is kept: the configuration names it, or its list may show it again."""
        watch = self._watches.get((account, pipeline))
        if watch is None:
            return False
        listed_s = max(self._settings.store.retention_s, self._settings.polling.lookback_s)
        ended_ago_us = self._shared.clock.steady_us() - ended_at
        may_be_listed = watch.whole and ended_ago_us < listed_s * 1_000_000 + CLOCKS_APART_US
        return may_be_listed or execution in watch.executions

    async def _close_problems(self, store: MaintenanceStore) -> None:
        settings, watches = self._settings, self._watches
        after: UUID | None = None
        await store.forget_rules(present=[key for key, watch in watches.items() if watch.rules])
        while page := await self._shared.store.read(partial(open_problems, after=after)):
            after = page[-1].problem.id
            gone = [each for each in page if each.has_ended or not watches_for(settings, watches, each)]
            if not gone:
                continue
            keys = [each.problem.opening for each in gone]
            openings = await self._shared.store.read(partial(load_events, keys=keys))
            closings = [
                self._shared.events.closing(
                    each.problem,
                    openings.get(each.problem.opening),
                    reason=ClosedReason.ENDED if each.has_ended else ClosedReason.REMOVED,
                    after=each.event_count,
                    at=self._shared.clock.now(),
                )
                for each in gone
            ]
            closed_count = await store.close_problems([(entry, change) for entry, change in closings if change])
            if closed_count:
                self._shared.metrics.events.labels(EventType.PROBLEM_CLOSED).inc(closed_count)
                log.info("problem.closed", count=closed_count)


def watches_for(settings: Settings, watches: Mapping[tuple[str, str], Watch], problem: OpenProblem) -> bool:
    """Return whether the configuration still has the subject of a problem, and the rule or limit that opened it."""
    if problem.pipeline is None:
        return problem.name in (settings.sinks if problem.kind == "sink" else settings.accounts)
    watch = watches.get((problem.name, problem.pipeline))
    if watch is None:
        return False
    if problem.execution is not None:
        is_watched = watch.whole or problem.execution in watch.executions
        return is_watched and problem.status is not None and has_limit(watch.overdue_after_s, problem.status)
    return any(rule.opens is problem.problem.kind for rule in watch.rules)


class ProgressLog:
    """The log lines about progress: an account is ready, a sink is late or has caught up, and a summary every hour."""

    def __init__(self, shared: OwnerDependencies, supervisor: Supervisor) -> None:
        self._shared = shared
        self._supervisor = supervisor
        self._ready: set[str] = set()
        self._counted = dict.fromkeys(_COUNTED, 0)
        self._late: set[str] = set()
        self._backlog_at = shared.clock.monotonic()
        self._summary_at = shared.clock.monotonic() + SUMMARY_EVERY_S

    async def tick(self) -> None:
        """Log the lines that are due."""
        accounts = self._supervisor.accounts()
        self._ready &= {each.account for each in accounts}
        for each in accounts:
            if each.account not in self._ready and all(each.lists_read) and not self._open(each, status="unseen"):
                self._ready.add(each.account)
                log.info("account.ready", account=each.account, open=self._open(each), lists=len(each.lists_read))
        if self._shared.clock.monotonic() >= self._backlog_at:
            self._backlog_at = Monotonic(self._shared.clock.monotonic() + BACKLOG_EVERY_S)
            with suppress(StoreError):
                self._log_late_sinks(await self._shared.store.read(backlog))
        if self._shared.clock.monotonic() >= self._summary_at:
            self._summary_at += SUMMARY_EVERY_S
            await self._summarize()

    def _log_late_sinks(self, waiting_by_sink: Mapping[str, Backlog]) -> None:
        sinks, now = self._supervisor.workers(), self._shared.clock.steady_us()
        self._late &= {each.sink for each in sinks}
        for each in sinks:
            waiting = waiting_by_sink.get(each.sink)
            oldest_s = (now - waiting.oldest_at) / 1e6 if waiting and waiting.oldest_at else 0.0
            if each.sink not in self._late and waiting and oldest_s > LATE_S:
                self._late.add(each.sink)
                log.warning("deliveries.late", sink=each.sink, waiting=waiting.pending_count, oldest_s=round(oldest_s))
            elif each.sink in self._late and oldest_s < LATE_S / 2:
                self._late.discard(each.sink)
                log.info("deliveries.caught_up", sink=each.sink)

    def _open(self, account: AccountPoller, **labels: str) -> int:
        return self._shared.metrics.total("watcher_open_executions", account=account.account, **labels)

    async def _summarize(self) -> None:
        counted = {word: self._shared.metrics.total(name, **labels) for word, (name, labels) in _COUNTED.items()}
        done = {word: count - self._counted[word] for word, count in counted.items()}
        self._counted = counted
        hours, waiting = round(SUMMARY_EVERY_S / 3600), await waiting_count(self._shared.store)
        log.info(
            "summary", hours=hours, **done, open=self._shared.metrics.total("watcher_open_executions"), waiting=waiting
        )


async def waiting_count(store: SqlStore) -> int | None:
    """Return the number of pending deliveries; `None` if the store fails."""
    try:
        return sum(each.pending_count for each in (await store.read(backlog)).values())
    except StoreError:
        return None
