"""What every poll of one account shares: how the account is, what is written of it, and what a failure leads to.

It knows no execution's state and no list: what is asked for, and what an answer means, is for those who poll.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import structlog

from watcher.clerk.protocol import Answer, Api
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.polling.account_state_store import HealthKeeper
from watcher.polling.circuit_breaker import Health
from watcher.polling.evaluator import Judge
from watcher.polling.policy import FailurePolicy
from watcher.polling.poll_queue import Agenda, Entry, Item
from watcher.polling.status_reporter import AccountAnnouncer
from watcher.runtime.backpressure import Backpressure
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import AccountMetrics
from watcher.runtime.rate_limiter import Pacer
from watcher.runtime.scheduler import Wake
from watcher.store.protocol import Lease, Ledger

log = structlog.get_logger()

STORE_RETRY_S = 2.0
CRASH_RETRY_S = 60.0
FLUSH_COUNT = 10_000
"""How many `looked_at` are flushed at once: with 100,000 executions the stalest is then 50 s old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountParts:
    """What the watcher of an account is made of. `fatal` ends the daemon."""

    lease: Lease
    api: Api
    store: Ledger
    clock: Clock
    pacer: Pacer
    health: Health
    announcer: AccountAnnouncer
    keeper: HealthKeeper
    judge: Judge
    failures: FailurePolicy
    metrics: AccountMetrics
    concurrency: int
    backpressure: Backpressure
    wake: Wake
    fatal: Callable[[BaseException], None]


T = TypeVar("T")


class AccountSession:
    """One account's polls together: what last succeeded, and whether the store takes what is written of it.

    `success_at` is when anything last succeeded (monotonic seconds), `probe_target` what that was.
    """

    def __init__(self, parts: AccountParts, *, agenda: Agenda) -> None:
        """Start with nothing seen."""
        self.success_at: float | None = None
        self.probe_target: Item | None = None
        self.store_failing = False
        self._parts = parts
        self._clock = parts.clock
        self._health = parts.health
        self._agenda = agenda
        self._unflushed: deque[Entry] = deque()  # a dict of a hundred thousand would take 10 MB
        self._health.lived(now=self._clock.monotonic(), ran_s=self._clock.running())
        parts.metrics.last_success.set_function(self._last_success)

    async def guard(self, work: Awaitable[T], *, instead: Callable[[float], T]) -> T:
        """Do a piece of work and return what it returns, or if it fails `instead` of the seconds until another try."""
        try:
            return await work
        except (OwnershipLostError, StoreUnusableError) as error:
            self._parts.fatal(error)
        except StoreError as error:
            self._store_failed(error)
            return instead(STORE_RETRY_S)
        except Exception as error:  # noqa: BLE001 (the one around a poll: it must not end the others)
            log.error("poll.crashed", account=self._parts.lease.name, error=type(error).__name__)  # noqa: TRY400 (its text may hold data)
        return instead(CRASH_RETRY_S)

    # What answers say of the account

    def note_success(self, item: Item, answer: Answer, *, now: float) -> None:
        """Take in that the API answered something of this account as it should."""
        self._health.note(answer, now=now)
        self.success_at, self.probe_target = now, item

    def note_failure(self, answer: Answer, *, now: float, alone: bool, lost: bool) -> None:
        """Take in that the API did not. `alone` and `lost` are as for `Health.note`."""
        self._health.lived(now=now, ran_s=self._clock.running())
        self._health.note(answer, now=now, alone=alone, lost=lost)
        self.probe_if_suspect(now)

    def probe_if_suspect(self, now: float) -> None:
        """Before the account is called degraded, ask for what last succeeded: the failures may be the others' own."""
        target, since = self.probe_target, self._health.failing_since
        if target is None or since is None or not self._health.suspects(now):
            return
        if target.queued and target.asked_at < since:
            self._agenda.put(target, due_at=min(target.due_at, now))

    async def report_answer(self, *, failed: bool) -> None:
        """Report, or keep, what the last answer changed in how the account is."""
        if failed:
            await self._write_of_account(self._parts.keeper.keep_pause())
        if self._health.trouble is not self._parts.announcer.told:
            await self.report_trouble()

    async def report_trouble(self) -> None:
        """Report the edge between what was reported of the account and how it is."""
        await self._write_of_account(self._parts.announcer.tell(self._health.trouble, cause=self._health.cause))

    # What is written

    async def write(self, writing: Awaitable[bool | None]) -> None:
        """Write something of this account, noting whether the store takes it; all writes come through here.

        `writing` returns `False` if there was nothing to write, which says nothing of the store. Raises `StoreError`.
        """
        try:
            wrote = await writing
        except (OwnershipLostError, StoreUnusableError):
            raise
        except StoreError as error:
            self._store_failed(error)
            raise
        if wrote is not False and self.store_failing:
            log.info("store.recovered", account=self._parts.lease.name)
            self.store_failing = False

    async def _write_of_account(self, writing: Awaitable[bool]) -> None:
        """Write what is said of the account itself. Trouble with the store harms no poll: it is written next time."""
        try:
            await self.write(writing)
        except (OwnershipLostError, StoreUnusableError):
            raise
        except StoreError:
            return

    def _store_failed(self, error: StoreError) -> None:
        """Log the edge. Nothing was recorded, so what was to be recorded comes due again."""
        if not self.store_failing:
            log.error("store.failed", account=self._parts.lease.name, problem=str(error))
        self.store_failing = True

    def flush_later(self, entry: Entry) -> None:
        """Have the next flush write when this execution was looked at: nothing else of it has changed."""
        if not entry.unflushed:
            entry.unflushed = True
            self._unflushed.append(entry)

    async def flush(self) -> None:
        """Let the store know when unchanged executions were last looked at. Raises `StoreError`.

        What was looked at again meanwhile waits for its next turn.
        """
        entries = [entry for entry in islice(self._unflushed, FLUSH_COUNT) if entry.unflushed]
        looks = {entry.known.execution: entry.looked_at for entry in entries}
        if looks:
            await self.write(self._parts.store.note_looks(self._parts.lease, looks))
        for _ in range(min(FLUSH_COUNT, len(self._unflushed))):
            entry = self._unflushed.popleft()
            if entry.unflushed and looks.get(entry.known.execution) == entry.looked_at:
                entry.unflushed = False
            elif entry.unflushed:
                self._unflushed.append(entry)

    def _last_success(self) -> float:
        """Return the Unix time of the last success, 0 before the first: worked out only when somebody asks."""
        if self.success_at is None:
            return 0.0
        return self._clock.now().timestamp() - (self._clock.monotonic() - self.success_at)
