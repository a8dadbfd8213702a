"""Reports of an account itself that it is degraded, or has recovered. On the edges only, over restarts too."""

import asyncio

import structlog

from watcher.domain.event_factory import EventFactory
from watcher.domain.models import AccountTrouble, EventType
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import AccountMetrics
from watcher.store.protocol import AccountRecord, AccountStore, Lease, SourceChange

log = structlog.get_logger()


class StatusReporter:
    """Records the edges between what was reported of one account and how it is.

    `reported` is the trouble that was reported last and has not ended, or `None`.
    """

    def __init__(
        self,
        lease: Lease,
        record: AccountRecord,
        *,
        store: AccountStore,
        events: EventFactory,
        clock: Clock,
        metrics: AccountMetrics,
    ) -> None:
        """Go on from what is recorded."""
        self.reported = AccountTrouble(record.trouble) if record.trouble else None
        self._lease = lease
        self._sequence = record.sequence
        self._store = store
        self._events = events
        self._clock = clock
        self._metrics = metrics
        self._reporting = asyncio.Lock()
        metrics.up.set(self.reported is None)

    async def report(self, trouble: AccountTrouble | None, *, cause: str | None = None) -> None:
        """Report that the account is in this trouble, or in none, if that is new.

        `cause` is what went wrong last. Raises `StoreError`.
        """
        async with self._reporting:
            if trouble is self.reported:
                return
            cause = cause if trouble else None
            change = self._change(trouble, cause=cause)
            await self._store.record(change)
            self._sequence, self.reported = change.sequence, trouble
            self._note(change, cause=cause)

    def _change(self, trouble: AccountTrouble | None, *, cause: str | None) -> SourceChange:
        outgoing = self._events.account(
            EventType.ACCOUNT_DEGRADED if trouble else EventType.ACCOUNT_RECOVERED,
            account=self._lease.name,
            reason=trouble or self.reported or AccountTrouble.UNREACHABLE,
            cause=cause,
            after=self._sequence,
            at=self._clock.now(),
        )
        return SourceChange(self._lease, self._sequence, outgoing.event.sequence, trouble, (outgoing,))

    def _note(self, change: SourceChange, *, cause: str | None) -> None:
        self._metrics.up.set(self.reported is None)
        self._metrics.events.labels(change.outgoing[0].event.type).inc()
        if self.reported:
            known = {} if cause is None else {"cause": cause}
            log.error("account.degraded", account=self._lease.name, reason=self.reported, **known)
        else:
            log.info("account.recovered", account=self._lease.name)
