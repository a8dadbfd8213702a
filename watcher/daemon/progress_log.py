"""What the log says of progress: accounts once all of them was seen, sinks that are behind, a summary every hour."""

from collections.abc import Mapping
from contextlib import suppress

import structlog

from watcher.daemon.supervisor import OwnerDependencies, Supervisor
from watcher.domain.errors import StoreError
from watcher.domain.timestamps import Monotonic
from watcher.polling.account_poller import AccountPoller
from watcher.store.changes import Backlog
from watcher.store.sql_store import SqlStore

log = structlog.get_logger()

PROGRESS_EVERY_S = 5.0
BACKLOG_EVERY_S = 60.0
SUMMARY_EVERY_S = 3600.0

LATE_S = 300.0
"""A sink is behind once something has waited for it so long, its groups aside, until nothing has half as long."""

_COUNTED = {
    "requests": ("watcher_api_requests_total", {}),
    "events": ("watcher_events_total", {}),
    "deliveries": ("watcher_deliveries_total", {"outcome": "delivered"}),
}


class ProgressLog:
    """One info line per account, one per hour, and one when a sink falls behind and when it has caught up."""

    def __init__(self, shared: OwnerDependencies, supervisor: Supervisor) -> None:
        """Start the first hour."""
        self._supervisor = supervisor
        self._store = shared.store
        self._clock = shared.clock
        self._metrics = shared.metrics
        self._ready: set[str] = set()
        self._counted = dict.fromkeys(_COUNTED, 0)
        self._late: set[str] = set()
        self._backlog_at = self._clock.monotonic()
        self._summary_at = self._clock.monotonic() + SUMMARY_EVERY_S

    async def tick(self) -> None:
        """Log what is due."""
        accounts = self._supervisor.accounts()
        self._ready &= {each.account for each in accounts}
        for each in accounts:
            if each.account not in self._ready and all(each.lists_read) and not self._open(each, status="unseen"):
                self._ready.add(each.account)
                log.info("account.ready", account=each.account, open=self._open(each), lists=len(each.lists_read))
        if self._clock.monotonic() >= self._backlog_at:
            self._backlog_at = Monotonic(self._clock.monotonic() + BACKLOG_EVERY_S)
            with suppress(StoreError):
                self._say_late(await self._store.backlog())
        if self._clock.monotonic() >= self._summary_at:
            self._summary_at += SUMMARY_EVERY_S
            await self._summarize()

    def _say_late(self, backlog: Mapping[str, Backlog]) -> None:
        """Say of each sink when it falls behind, and when it has caught up."""
        sinks, now = self._supervisor.workers(), self._clock.steady_us()
        self._late &= {each.sink for each in sinks}
        for each in sinks:
            waiting = backlog.get(each.sink)
            oldest_s = (now - waiting.oldest_at) / 1e6 if waiting and waiting.oldest_at else 0.0
            late_s = oldest_s - each.groups_for_s
            if each.sink not in self._late and waiting and late_s > LATE_S:
                self._late.add(each.sink)
                log.warning("deliveries.late", sink=each.sink, waiting=waiting.pending_count, oldest_s=round(oldest_s))
            elif each.sink in self._late and late_s < LATE_S / 2:
                self._late.discard(each.sink)
                log.info("deliveries.caught_up", sink=each.sink)

    def _open(self, account: AccountPoller, **labels: str) -> int:
        return self._metrics.total("watcher_open_executions", account=account.account, **labels)

    async def _summarize(self) -> None:
        counted = {word: self._metrics.total(name, **labels) for word, (name, labels) in _COUNTED.items()}
        done = {word: count - self._counted[word] for word, count in counted.items()}
        self._counted = counted
        waiting = await waiting_count(self._store)
        log.info("summary", hours=1, **done, open=self._metrics.total("watcher_open_executions"), waiting=waiting)


async def waiting_count(store: SqlStore) -> int | None:
    """Return how many deliveries wait; `None` if the store cannot say."""
    try:
        return sum(each.pending_count for each in (await store.backlog()).values())
    except StoreError:
        return None
