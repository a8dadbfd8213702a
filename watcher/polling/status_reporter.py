"""What is written of an account itself: that it is degraded or has recovered, and what a restart must not forget.

Edges are reported once, over restarts too. A pause is saved at once, everything else in time.
"""

import asyncio

import structlog

from watcher.domain.event import AccountTrouble, EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.timestamps import Monotonic
from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import REMEDIES
from watcher.runtime.metrics import AccountMetrics
from watcher.store.changes import Lease, SourceChange
from watcher.store.protocol import AccountStore
from watcher.store.records import AccountRecord

WORTH_SAVING_S = 1.2
"""A restart takes as long: a shorter pause is over by then."""

log = structlog.get_logger()


class StatusReporter:
    """Writes how one account is, whenever that is not what was written last.

    `reported` is the trouble that was reported last and has not ended, or `None`.
    """

    def __init__(
        self,
        lease: Lease,
        record: AccountRecord,
        breaker: AccountCircuitBreaker,
        *,
        store: AccountStore,
        events: EventFactory,
        clock: Clock,
        metrics: AccountMetrics,
    ) -> None:
        """Take what the breaker began with as written."""
        self.reported = breaker.trouble
        self._lease = lease
        self._breaker = breaker
        self._sequence = record.sequence
        self._problem = record.problem
        self._store = store
        self._events = events
        self._clock = clock
        self._metrics = metrics
        self._reporting = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._saved = self._backoff_state(clock.monotonic())
        metrics.up.set(self.reported is None)

    async def report(self) -> None:
        """Report the trouble the account is in, or that it is in none, if that is new. Raises `StoreError`."""
        trouble, cause = self._breaker.trouble, self._breaker.cause
        async with self._reporting:
            if trouble is self.reported:
                return
            entry, problem = self._events.account(
                EventType.ACCOUNT_DEGRADED if trouble else EventType.ACCOUNT_RECOVERED,
                account=self._lease.name,
                reason=trouble or self.reported or AccountTrouble.UNREACHABLE,
                cause=cause,
                problem=self._problem,
                after=self._sequence,
                at=self._clock.now(),
            )
            sequence = entry.event.sequence
            problems = () if problem is None else (problem,)
            await self._store.record(SourceChange(self._lease, self._sequence, sequence, trouble, (entry,), problems))
            self._sequence, self.reported = sequence, trouble
            self._problem = problem.problem if problem is not None and trouble else None
            self._metrics.up.set(trouble is None)
            self._metrics.events.labels(entry.event.type).inc()
            if trouble:
                known = {} if cause is None else {"cause": cause}
                if remedy := REMEDIES.get(cause or ""):
                    known["remedy"] = remedy
                log.error("account.degraded", account=self._lease.name, reason=trouble, **known)
            else:
                log.info("account.recovered", account=self._lease.name)

    async def save_pause(self) -> None:
        """Write a pause that has begun or grown and is not over in a moment. Otherwise as `save_backoff`."""
        paused_until = self._breaker.paused_until
        is_worth_it = paused_until - self._clock.monotonic() >= WORTH_SAVING_S and paused_until != self._saved[0]
        if is_worth_it:
            await self.save_backoff()

    async def save_backoff(self) -> None:
        """Write what has changed of pause and failures. Raises `StoreError`."""
        async with self._saving:
            now = self._clock.monotonic()
            if self._breaker.failing_since is not None:
                self._breaker.note_running(now=now, ran_s=self._clock.running())
            state = self._backoff_state(now)
            if state != self._saved:
                await self._store.save_backoff(self._breaker.backoff(now))
                self._saved = state

    def _backoff_state(self, now: Monotonic) -> tuple[float | None, float | None]:
        """Return what makes one backoff differ from another: when the pause ends, which time does not change."""
        backoff = self._breaker.backoff(now)
        return None if backoff.pause_s is None else self._breaker.paused_until, backoff.failing_for_s
