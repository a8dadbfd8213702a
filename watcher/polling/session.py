"""What every poll of one account shares: how the account is, what is written of it, and what a failure leads to.

It knows no execution's state and no list: what is asked for, and what an answer means, is for those who poll. That an
account is degraded or has recovered is reported once, over restarts too.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from watcher.clerk.api import Answer, ClerkApi
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.domain.event import AccountTrouble, EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import LostReason
from watcher.domain.timestamps import Micros, Monotonic
from watcher.polling.evaluator import ReplyEvaluator
from watcher.polling.failures import AccountCircuitBreaker, FailurePolicy
from watcher.polling.poll_item import PollItem, TrackedExecution
from watcher.polling.poll_queue import PollQueue
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import REMEDIES
from watcher.runtime.metrics import AccountMetrics
from watcher.runtime.pacing import Pacer
from watcher.runtime.scheduler import WakeIn
from watcher.store.changes import AccountRecord, AccountStore, Lease, SourceChange

log = structlog.get_logger()

WORTH_SAVING_S = 1.2
"""A restart takes as long: a shorter pause is over by then."""

STORE_RETRY_S = 2.0
CRASH_RETRY_S = 60.0
FLUSH_COUNT = 10_000
"""How many `polled_at` are flushed at once: with 100,000 executions the stalest is then 50 s old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountDependencies:
    """What the poller of an account works with. `record` is how the account was; `fatal` ends the daemon.

    `is_trusted` says whether the lease is: while it is not, nothing is asked.
    """

    lease: Lease
    is_trusted: Callable[[], bool]
    api: ClerkApi
    store: AccountStore
    clock: Clock
    pacer: Pacer
    breaker: AccountCircuitBreaker
    record: AccountRecord
    events: EventFactory
    evaluator: ReplyEvaluator
    failures: FailurePolicy
    metrics: AccountMetrics
    concurrency: int
    wake: WakeIn
    fatal: Callable[[BaseException], None]

    def api_now_us(self) -> Micros:
        """Return what the API's clock shows (microseconds): what the API dates is compared with that alone."""
        return Micros(self.clock.steady_us() + self.api.ahead_us)


class AccountSession:
    """One account's polls together: what failures mean, and what is still to be written.

    `reported` is the trouble that was reported last and has not ended, or `None`.
    """

    def __init__(self, deps: AccountDependencies, *, poll_queue: PollQueue, on_trouble: Callable[[], None]) -> None:
        """Take what the breaker began with as written. `on_trouble` hears when the account becomes unusable."""
        self.reported = deps.breaker.trouble
        self._on_trouble = on_trouble
        self._deps = deps
        self._clock = deps.clock
        self._breaker = deps.breaker
        self._poll_queue = poll_queue
        self._sequence, self._problem = deps.record.sequence, deps.record.problem
        self._writing = asyncio.Lock()
        self._saved_pause, self._saved_failing_s = deps.breaker.paused_until, deps.record.backoff.failing_for_s
        self._unflushed: deque[TrackedExecution] = deque()  # a dict of a hundred thousand would take 10 MB
        deps.metrics.up.set(self.reported is None)
        deps.metrics.last_success.set_function(self._last_success)

    def failed(self, error: Exception) -> float:
        """Take in what a poll raised: it must not end the others. Return the seconds until another try."""
        if isinstance(error, (OwnershipLostError, StoreUnusableError)):
            self._deps.fatal(error)
        elif isinstance(error, StoreError):  # nothing was recorded, so what was to be recorded comes due again
            return STORE_RETRY_S
        else:
            # not its text, which may hold what the API answered
            log.error("poll.crashed", account=self._deps.lease.name, error=type(error).__name__)
        return CRASH_RETRY_S

    def note_failure(
        self, item: PollItem, answer: Answer, *, now: Monotonic, alone: bool, lost: bool
    ) -> LostReason | None:
        """Take in a failure, of the item and of the account. Return why the item is lost now, if it is.

        `alone` and `lost` are as for `AccountCircuitBreaker.note`.
        """
        breaker = self._breaker
        reason = self._deps.failures.note_failure(
            item, answer, alone=alone, success_at=breaker.success_at, usable=not breaker.unusable
        )
        breaker.note(item, answer, now=now, alone=alone, lost=lost)
        self.probe_if_suspect(now)
        return reason

    def probe_if_suspect(self, now: Monotonic) -> None:
        """Before the account is called degraded, ask for what last succeeded: the failures may be the others' own."""
        target, since = self._breaker.probe_target, self._breaker.failing_since
        if target is None or since is None or not self._breaker.suspects(now):
            return
        if target.queued and target.asked_at <= since:
            self._poll_queue.put(target, due_at=min(target.due_at, now))

    async def report(self) -> None:
        """Write what has changed in how the account is: trouble, its end, a pause.

        Trouble with the store harms no poll: it is written next time.
        """
        if self._breaker.trouble not in {None, self.reported}:
            self._on_trouble()
        paused_until = self._breaker.paused_until
        try:
            if paused_until != self._saved_pause and paused_until - self._clock.monotonic() >= WORTH_SAVING_S:
                await self._save_backoff()
            if self._breaker.trouble is not self.reported:
                await self._report()
        except (OwnershipLostError, StoreUnusableError):
            raise
        except StoreError:
            return

    async def _report(self) -> None:
        trouble, cause = self._breaker.trouble, self._breaker.cause
        async with self._writing:
            if trouble is self.reported:
                return
            entry, problem = self._deps.events.account(
                EventType.ACCOUNT_DEGRADED if trouble else EventType.ACCOUNT_RECOVERED,
                account=self._deps.lease.name,
                reason=trouble or self.reported or AccountTrouble.UNREACHABLE,
                cause=cause,
                problem=self._problem,
                after=self._sequence,
                at=self._clock.now(),
            )
            sequence = entry.event.sequence
            problems = () if problem is None else (problem,)
            await self._deps.store.record(
                SourceChange(self._deps.lease, self._sequence, sequence, trouble, (entry,), problems)
            )
            self._sequence, self.reported = sequence, trouble
            self._problem = problem.problem if problem is not None and trouble else None
            self._deps.metrics.up.set(trouble is None)
            self._deps.metrics.events.labels(entry.event.type).inc()
            if trouble:
                known = {} if cause is None else {"cause": cause}
                if remedy := REMEDIES.get(cause or ""):
                    known["remedy"] = remedy
                log.error("account.degraded", account=self._deps.lease.name, reason=trouble, **known)
            else:
                log.info("account.recovered", account=self._deps.lease.name)

    async def _save_backoff(self) -> None:
        """Write what has changed of pause and failures. Raises `StoreError`."""
        async with self._writing:
            backoff, paused_until = self._breaker.backoff(self._clock.monotonic()), self._breaker.paused_until
            if (paused_until, backoff.failing_for_s) != (self._saved_pause, self._saved_failing_s):
                await self._deps.store.save_backoff(backoff)
                self._saved_pause, self._saved_failing_s = paused_until, backoff.failing_for_s

    def flush_later(self, entry: TrackedExecution) -> None:
        """Have the next flush write when this execution was polled, if it is not to yet: nothing else has changed."""
        entry.unflushed = True
        self._unflushed.append(entry)

    async def flush(self) -> None:
        """Let the store know how the account is, and when unchanged executions were polled. Raises `StoreError`.

        What cannot be written then is written once it was polled again.
        """
        await self._save_backoff()
        entries = [self._unflushed.popleft() for _ in range(min(FLUSH_COUNT, len(self._unflushed)))]
        polled_at = {entry.known.execution: entry.polled_at for entry in entries if entry.unflushed}
        for entry in entries:
            entry.unflushed = False
        if polled_at:
            await self._deps.store.save_poll_times(polled_at)

    def _last_success(self) -> float:
        """Return the Unix time of the last success, 0 before the first: worked out only when somebody asks.

        It stands still while the store cannot be written: nobody is told of what polls see then.
        """
        success_at, failing_since = self._breaker.success_at, self._deps.store.failing_since
        if success_at is None:
            return 0.0
        at = success_at if failing_since is None else min(success_at, failing_since)
        return self._clock.now().timestamp() - (self._clock.monotonic() - at)
