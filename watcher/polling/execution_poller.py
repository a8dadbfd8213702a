"""One look after the other: ask, judge, record, and what it says of the account. When to look is the watcher's."""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import structlog

from watcher.clerk.protocol import Answer, Api, Reply
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.domain.models import Execution, Known
from watcher.polling.account_state_store import HealthKeeper
from watcher.polling.circuit_breaker import Health
from watcher.polling.confirmations import DENIED_FOR_S
from watcher.polling.evaluator import AccountState, Judge, Judged
from watcher.polling.poll_queue import Agenda, Entry, Item
from watcher.polling.registry import Roster
from watcher.polling.status_reporter import AccountAnnouncer
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import AccountMetrics
from watcher.runtime.rate_limiter import Pacer
from watcher.runtime.rounds import Wake
from watcher.store.protocol import Change, ExecutionChange, Lease, Ledger

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
    metrics: AccountMetrics
    concurrency: int
    wake: Wake
    fatal: Callable[[BaseException], None]


T = TypeVar("T")


class Looks:
    """Makes the looks of one account and keeps what they say of it: its health, its last success, its witness.

    The witness is what last succeeded, `success_at` when that was (monotonic seconds).
    """

    def __init__(self, parts: AccountParts, *, roster: Roster, agenda: Agenda) -> None:
        """Start with nothing seen."""
        self.witness: Item | None = None
        self._parts = parts
        self._clock = parts.clock
        self._health = parts.health
        self._roster = roster
        self._agenda = agenda
        self.success_at: float | None = None
        self._unflushed: deque[Entry] = deque()  # a dict of a hundred thousand would take 10 MB
        self.store_failing = False
        self._health.lived(now=self._clock.monotonic(), ran_s=self._clock.running())
        parts.metrics.last_success.set_function(self._last_success)

    def look(self, entry: Entry) -> Coroutine[Any, Any, float | None]:
        """Look once; return the seconds from the request to the next look, `None` when nothing more is to come."""
        return self.guard_look(self._ask_and_record(entry))

    def guard_look(self, work: Awaitable[float | None]) -> Coroutine[Any, Any, float | None]:
        """Do a piece of work that says when the next look is due, and say that in its place if it fails."""
        return self.guard(work, instead=_as_it_is)

    async def guard(self, work: Awaitable[T], *, instead: Callable[[float], T]) -> T:
        """Do a piece of work and return what it returns, or if it fails `instead` of the seconds until another try."""
        try:
            return await work
        except (OwnershipLostError, StoreUnusableError) as error:
            self._parts.fatal(error)
        except StoreError as error:
            self._store_failed(error)
            return instead(STORE_RETRY_S)
        except Exception as error:  # noqa: BLE001 (the one around a look: it must not end the others)
            log.error("poll.crashed", account=self._parts.lease.name, error=type(error).__name__)  # noqa: TRY400 (its text may hold data)
        return instead(CRASH_RETRY_S)

    def put_back(self, entry: Entry, next_s: float | None) -> None:
        """Put an entry back for a look so long after the request of this one. It is lost if that fails: nobody has it.

        So whatever is raised ends the daemon, also where a guard is around this.
        """
        try:
            self._roster.put_back(entry, next_s, now=self._clock.monotonic())
        except Exception as error:
            self._parts.fatal(error)
            raise

    async def flush(self) -> None:
        """Let the store know when unchanged executions were last looked at."""
        entries = [entry for entry in islice(self._unflushed, FLUSH_COUNT) if entry.unflushed]
        looks = {entry.known.execution: entry.looked_at for entry in entries}
        if looks:
            await self.noted(self._parts.store.note_looks(self._parts.lease, looks))
        self._flushed(looks)

    def _flushed(self, looks: Mapping[str, int]) -> None:
        """Go on behind what was flushed; what was looked at again meanwhile waits for its next turn."""
        for _ in range(min(FLUSH_COUNT, len(self._unflushed))):
            entry = self._unflushed.popleft()
            if entry.unflushed and looks.get(entry.known.execution) == entry.looked_at:
                entry.unflushed = False
            elif entry.unflushed:
                self._unflushed.append(entry)

    def ask_witness(self, now: float) -> None:
        """Before the account is called degraded, ask for what last succeeded: the failures may be the others' own."""
        witness, since = self.witness, self._health.failing_since
        if witness is not None and witness.queued and since is not None and witness.asked_at < since:
            self._agenda.put(witness, due_at=min(witness.due_at, now))

    async def tell_trouble(self) -> None:
        """Tell the edge between what was told of the account and how it is."""
        await self._write_of_account(self._parts.announcer.tell(self._health.trouble, cause=self._health.cause))

    async def tell_health(self, *, failed: bool) -> None:
        """Tell, or keep, what the last answer changed in how the account is."""
        if failed:
            await self._write_of_account(self._parts.keeper.keep_pause())
        if self._health.trouble is not self._parts.announcer.told:
            await self.tell_trouble()

    async def _write_of_account(self, writing: Awaitable[bool]) -> None:
        """Write what is said of the account itself. Trouble with the store harms no look: it is written next time."""
        try:
            await self.noted(writing)
        except (OwnershipLostError, StoreUnusableError):
            raise
        except StoreError:
            return

    async def noted(self, writing: Awaitable[bool | None]) -> None:
        """Note of a write of this account whether the store takes it; all of them come through here.

        `writing` returns `False` if there was nothing to write, which says nothing of the store. Raises `StoreError`.
        """
        try:
            wrote = await writing
        except (OwnershipLostError, StoreUnusableError):
            raise
        except StoreError as error:
            self._store_failed(error)
            raise
        if wrote is not False:
            self._store_recovered()

    async def _ask_and_record(self, entry: Entry) -> float | None:
        reply = await self._parts.api.get(pipeline=entry.watch.pipeline, execution=entry.known.execution)
        now = self._clock.monotonic()
        self._parts.metrics.asked(reply.outcome, now - reply.sent_at)
        judged = self._judge(entry, reply, now=now)
        if reply.execution is None or self._health.trouble is not self._parts.announcer.told:
            await self.tell_health(failed=reply.execution is None)
        await self.record(entry, judged, reply.execution)
        if reply.execution is not None and entry.claim is not None:  # what this says goes before the row, once recorded
            entry.claim, entry.denied_until = None, now + DENIED_FOR_S
        return judged.next_s

    async def record(self, entry: Entry, judged: Judged, execution: Execution | None) -> None:
        """Write what a look led to, if it led to anything. Raises `StoreError`: then nothing has changed."""
        if judged.contradicts:
            self._parts.metrics.contradicted.inc()
            log.warning("execution.contradicted", execution=entry.known.execution, status="ended")
        if judged.change is not None:
            await self.write(judged.change)
            self._recorded(entry, judged.known, judged.change)
            if judged.change.outgoing:  # what had ended before it was watched says nothing of the watching
                self._measure_delay(judged.known, execution)
        elif judged.looked_at is not None and not entry.unflushed:
            entry.unflushed = True
            self._unflushed.append(entry)
        if judged.looked_at is not None:
            entry.looked_at = judged.looked_at

    async def write(self, change: Change) -> None:
        """Write a change. Raises `StoreError`."""
        await self.noted(self._parts.store.record(change))

    def vouch(self, item: Item, answer: Answer, *, now: float) -> None:
        """Take in that the API answered something of this account as it should."""
        self._health.note(answer, now=now)
        self.success_at, self.witness = now, item

    def doubt(self, answer: Answer, *, now: float, alone: bool, lost: bool) -> None:
        """Take in that the API did not. `alone` and `lost` are as for `Health.note`."""
        self._health.lived(now=now, ran_s=self._clock.running())
        self._health.note(answer, now=now, alone=alone, lost=lost)
        if self._health.suspects(now):
            self.ask_witness(now)

    def _judge(self, entry: Entry, reply: Reply, *, now: float) -> Judged:
        """Judge a reply, for its execution and then for the account."""
        if reply.execution is None:
            return self._judge_failure(entry, reply, now=now)
        judged = self._parts.judge.success(entry, reply.execution, sent_at=reply.sent_at)
        self.vouch(entry, reply, now=now)
        return judged

    def _judge_failure(self, entry: Entry, reply: Reply, *, now: float) -> Judged:
        lost = entry.known.lost is not None
        if entry.claim is not None:  # a list shows it: whoever does not know it is mistaken
            entry.streak = None
        # Whether nothing else could vouch for the account: what is lost cannot.
        alone = self._roster.found_count == (not lost) and not self._roster.listings
        judged = self._parts.judge.failure(
            entry, reply, AccountState(alone, self.success_at, not self._health.unusable)
        )
        self.doubt(reply, now=now, alone=alone, lost=lost)
        log.debug(
            "poll.failed",
            account=self._parts.lease.name,
            execution=entry.known.execution,
            outcome=reply.outcome,
            reason=reply.reason,
        )
        return judged

    def _last_success(self) -> float:
        """Return the Unix time of the last success, 0 before the first: worked out only when somebody asks."""
        if self.success_at is None:
            return 0.0
        return self._clock.now().timestamp() - (self._clock.monotonic() - self.success_at)

    def _recorded(self, entry: Entry, known: Known, change: ExecutionChange) -> None:
        entry.recorded = True
        self._roster.move(entry, known)
        entry.unflushed = False
        for outgoing in change.outgoing:
            self._parts.metrics.events.labels(outgoing.event.type).inc()

    def _measure_delay(self, known: Known, execution: Execution | None) -> None:
        finished_at = execution.finished_at if execution else None
        if known.ended_at is not None and finished_at is not None:
            delay_s = (self._clock.now() - finished_at).total_seconds()
            self._parts.metrics.detection_delay.observe(max(0.0, delay_s))

    def _store_failed(self, error: StoreError) -> None:
        """Log the edge. Nothing was recorded, so what was to be recorded comes due again."""
        if not self.store_failing:
            log.error("store.failed", account=self._parts.lease.name, problem=str(error))
        self.store_failing = True

    def _store_recovered(self) -> None:
        if self.store_failing:
            log.info("store.recovered", account=self._parts.lease.name)
        self.store_failing = False


def _as_it_is(retry_s: float) -> float | None:
    return retry_s
