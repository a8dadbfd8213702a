"""What the log says while all is well: each account once all of it was seen, and every hour what was done in it."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import structlog

from watcher.domain.errors import StoreError
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.store.sql_store import SqlStore

log = structlog.get_logger()

CHECK_EVERY_S = 5.0
SUMMARY_EVERY_S = 3600.0

_COUNTED = {
    "requests": ("watcher_api_requests_total", {}),
    "events": ("watcher_events_total", {}),
    "deliveries": ("watcher_deliveries_total", {"outcome": "delivered"}),
}


class Account(Protocol):
    """An account as far as the log is concerned."""

    account: str

    @property
    def lists_read(self) -> Sequence[bool]:
        """Of each pipeline that is watched whole, whether its list was ever read in full."""
        ...


class ProgressLog:
    """One info line per account, and one per hour."""

    def __init__(
        self, accounts: Callable[[], Collection[Account]], *, store: SqlStore, clock: Clock, metrics: Metrics
    ) -> None:
        """Start the first hour."""
        self._accounts = accounts
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._ready: set[str] = set()
        self._counted = dict.fromkeys(_COUNTED, 0)
        self._summary_at = clock.monotonic() + SUMMARY_EVERY_S

    async def tick(self) -> float:
        """Log what is due; return the seconds until the next tick."""
        accounts = self._accounts()
        self._ready &= {each.account for each in accounts}
        for each in accounts:
            if each.account not in self._ready and all(each.lists_read) and not self._open(each, status="unseen"):
                self._ready.add(each.account)
                log.info("account.ready", account=each.account, open=self._open(each), lists=len(each.lists_read))
        if self._clock.monotonic() >= self._summary_at:
            self._summary_at += SUMMARY_EVERY_S
            await self._summarize()
        return CHECK_EVERY_S

    def _open(self, account: Account, **labels: str) -> int:
        return self._metrics.total("watcher_open_executions", account=account.account, **labels)

    async def _summarize(self) -> None:
        before, self._counted = (
            self._counted,
            {word: self._metrics.total(name, **labels) for word, (name, labels) in _COUNTED.items()},
        )
        try:
            waiting = sum(each.pending_count for each in (await self._store.backlog()).values())
        except StoreError:
            waiting = None
        done = {word: count - before[word] for word, count in self._counted.items()}
        log.info("summary", hours=1, **done, open=self._metrics.total("watcher_open_executions"), waiting=waiting)
