"""The watcher of one account: what is due, within the pace; look, judge, record. One owner, everything in memory.

It knows nothing of HTTP, sinks or timers: a round is called when something may be due, and says when to call again.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from watcher.agenda import Agenda, Entry
from watcher.announcer import AccountAnnouncer
from watcher.clock import Clock
from watcher.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.health import Health, Permission
from watcher.judge import Judge, Judged, Surroundings
from watcher.metrics import AccountMetrics, open_label
from watcher.models import Known, Watch
from watcher.pace import Pacer
from watcher.ports import AccountRecord, Api, ExecutionChange, Lease, Reply, Store, Wake

log = structlog.get_logger()

IDLE_S = 10.0
"""The longest time between two rounds: each proves that the loop is alive."""

SHORTEST_ROUND_S = 0.002
"""Timers are no finer; the pacer forgives being this late."""

GAP_TOLERANCE = 1.1
TIMER_TOLERANCE_S = 0.1
"""A look is late against `max_interval` beyond both: jitter and a busy event loop are no budget that is too small."""

STORE_RETRY_S = 2.0
CRASH_RETRY_S = 60.0
FLUSH_COUNT = 10_000
"""How many `looked_at` are flushed at once: with 100,000 executions the stalest is then 50 s old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountParts:
    """What a watcher is made of. `fatal` ends the daemon."""

    lease: Lease
    api: Api
    store: Store
    clock: Clock
    pacer: Pacer
    health: Health
    announcer: AccountAnnouncer
    judge: Judge
    metrics: AccountMetrics
    concurrency: int
    max_interval_s: float
    wake: Wake
    fatal: Callable[[BaseException], None]


class AccountWatcher:
    """Watches the open executions of one account until they are terminal."""

    def __init__(self, parts: AccountParts, record: AccountRecord, watches: Iterable[Watch]) -> None:
        """Take up where the record ends. Executions the record calls ended are not looked at."""
        self._parts = parts
        self._clock = parts.clock
        self._health = parts.health
        self._agenda = Agenda()
        self._tasks: set[asyncio.Task[None]] = set()
        self._found_count = 0  # open and not lost
        self._witness: Entry | None = None
        self._success_at: float | None = None
        self._unflushed: dict[str, Entry] = {}
        self._in_flight_count = 0
        self._store_failing = False
        self._next_round_at = float("inf")
        self._draining = False
        parts.metrics.last_success.set_function(self._last_success)
        self._add_all(record, watches)

    async def round(self) -> float:
        """Start what is due and allowed; return the seconds until the next round is wanted."""
        now = self._clock.monotonic()
        self._health.check(now)
        if self._health.suspects(now):
            self._ask_witness(now)
        await self._tell_trouble()
        self._start_due()
        now = self._clock.monotonic()
        self._next_round_at = self._wanted_at(now)
        return self._next_round_at - now

    async def flush_looks(self) -> None:
        """Let the store know when unchanged executions were last looked at."""
        names = list(self._unflushed)[:FLUSH_COUNT]
        looks = {name: self._unflushed[name].looked_at for name in names}
        if looks:
            await self._parts.store.note_looks(self._parts.lease, looks)
        for name, looked_at in looks.items():
            if name in self._unflushed and self._unflushed[name].looked_at == looked_at:
                del self._unflushed[name]

    async def drain(self) -> None:
        """Start nothing more and wait for what is in flight."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Give up what is in flight; what was not recorded comes due again with the next start."""
        self._draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _add_all(self, record: AccountRecord, watches: Iterable[Watch]) -> None:
        recorded = {known.execution: known for known in record.executions}
        now = self._clock.monotonic()
        labels = Counter[str]()
        for watch in watches:
            for execution in watch.executions:
                known = recorded.get(execution) or Known(execution, watch.pipeline)
                if known.ended_at is None:
                    self._agenda.put(Entry(known, watch, asked_at=now, looked_at=known.looked_at), due_at=now)
                    labels[open_label(known)] += 1
        self._found_count = labels.total() - labels["lost"]
        for label, count in labels.items():
            self._parts.metrics.open[label].inc(count)

    # What may start

    def _start_due(self) -> None:
        while (entry := self._take()) is not None:
            task = asyncio.create_task(self._work(entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, entry: Entry) -> None:
        """Look at this entry and then at whatever is due next: a finished look frees a place for another."""
        following: Entry | None = entry
        while following is not None:
            await self._look(following)
            following = self._take()
        if self._wanted_at(self._clock.monotonic()) < self._next_round_at - SHORTEST_ROUND_S:
            self._parts.wake()

    def _take(self) -> Entry | None:
        """Take the next entry if one may be asked for now, spending its slot."""
        now = self._clock.monotonic()
        if self._draining or self._full() or self._parts.pacer.ready_at() > now:
            return None
        match self._health.permission(now):
            case Permission.ALL:
                entry = self._agenda.take_due(now)
            case Permission.PROBE:
                entry = self._take_probe(now)
            case Permission.NOTHING:
                return None
        if entry is not None:
            self._spend(entry, now=now)
        return entry

    def _full(self) -> bool:
        return self._in_flight_count >= self._parts.concurrency

    def _take_probe(self, now: float) -> Entry | None:
        """Take the one request of a degraded account: what last succeeded, else any."""
        witness = self._witness if self._witness is not None and self._witness.queued else self._agenda.peek()
        if witness is None:
            return None
        self._health.probed(now)
        return self._agenda.take(witness)

    def _spend(self, entry: Entry, *, now: float) -> None:
        self._in_flight_count += 1
        self._parts.pacer.spend(now)
        self._parts.metrics.lateness.observe(max(0.0, now - entry.due_at))
        if not self._health.unusable and entry.known.lost is None:
            self._note_gap(entry, now=now)
        entry.asked_at = now

    def _note_gap(self, entry: Entry, *, now: float) -> None:
        """Note the gap before this look as far as the budget is to blame: a slow answer only makes it due late."""
        max_interval_s = self._parts.max_interval_s
        gap_s = now - max(entry.asked_at, entry.due_at - max_interval_s)
        self._health.note_gap(gap_s, allowed_s=max_interval_s * GAP_TOLERANCE + TIMER_TOLERANCE_S, now=now)

    def _wanted_at(self, now: float) -> float:
        """Return the monotonic time of the next round: when something may start, or should be checked."""
        at = min(now + IDLE_S, self._health.next_check_at(now))
        first = self._agenda.peek()
        if first is not None and not self._draining and not self._full():
            due_at = now if self._health.unusable else first.due_at
            at = min(at, max(due_at, self._parts.pacer.ready_at(), self._health.opens_at()))
        return max(at, now + SHORTEST_ROUND_S)

    # One look

    async def _look(self, entry: Entry) -> None:
        next_s: float | None = CRASH_RETRY_S
        try:
            next_s = await self._ask_and_record(entry)
        except (OwnershipLostError, StoreUnusableError) as error:
            self._parts.fatal(error)
        except StoreError as error:
            self._store_failed(error)
            next_s = STORE_RETRY_S
        except Exception as error:  # noqa: BLE001 (the one around a look: it must not end the others)
            log.error("look.crashed", account=self._parts.lease.name, error=type(error).__name__)  # noqa: TRY400 (its text may hold data)
        finally:
            self._in_flight_count -= 1
            if next_s is None:
                self._forget(entry)
            else:
                self._agenda.put(entry, due_at=max(self._clock.monotonic(), entry.asked_at + next_s))

    async def _ask_and_record(self, entry: Entry) -> float | None:
        reply = await self._parts.api.get(pipeline=entry.watch.pipeline, execution=entry.known.execution)
        now = self._clock.monotonic()
        self._parts.metrics.asked(reply.outcome, now - reply.sent_at)
        judged = self._judge(entry, reply, now=now)
        if self._health.trouble is not self._parts.announcer.told:
            await self._tell_trouble()
        if judged.contradicts:
            log.warning("execution.contradicted", execution=entry.known.execution, status="ended")
        if judged.change is not None:
            await self._parts.store.record(judged.change)
            self._store_recovered()
            self._recorded(entry, judged, judged.change)
            self._measure_delay(judged, reply)
        elif judged.looked_at is not None:
            self._unflushed[entry.known.execution] = entry
        if judged.looked_at is not None:
            entry.looked_at = judged.looked_at
        return judged.next_s

    def _judge(self, entry: Entry, reply: Reply, *, now: float) -> Judged:
        """Judge a reply, for its execution and then for the account."""
        if reply.execution is None:
            return self._judge_failure(entry, reply, now=now)
        judged = self._parts.judge.success(entry, reply, reply.execution)
        self._health.note(reply, now=now)
        self._success_at, self._witness = now, entry
        return judged

    def _judge_failure(self, entry: Entry, reply: Reply, *, now: float) -> Judged:
        lost = entry.known.lost is not None
        alone = self._found_count == (not lost)  # nothing else could vouch for the account: what is lost cannot
        judged = self._parts.judge.failure(
            entry, reply, Surroundings(alone, self._success_at, not self._health.unusable)
        )
        self._health.note(reply, now=now, alone=alone, lost=lost)
        log.debug("look.failed", account=self._parts.lease.name, execution=entry.known.execution, outcome=reply.outcome)
        if self._health.suspects(now):
            self._ask_witness(now)
        return judged

    def _last_success(self) -> float:
        """Return the Unix time of the last success, 0 before the first: worked out only when somebody asks."""
        if self._success_at is None:
            return 0.0
        return self._clock.now().timestamp() - (self._clock.monotonic() - self._success_at)

    def _ask_witness(self, now: float) -> None:
        """Before the account is called degraded, ask for what last succeeded: the failures may be the others' own."""
        witness, since = self._witness, self._health.failing_since
        if witness is not None and witness.queued and since is not None and witness.asked_at < since:
            self._agenda.put(witness, due_at=min(witness.due_at, now))

    def _recorded(self, entry: Entry, judged: Judged, change: ExecutionChange) -> None:
        metrics = self._parts.metrics
        metrics.moved(open_label(entry.known), open_label(judged.known))
        self._found_count += (judged.known.lost is None) - (entry.known.lost is None)
        entry.known = judged.known
        self._unflushed.pop(entry.known.execution, None)
        for outgoing in change.outgoing:
            metrics.events.labels(outgoing.event.type).inc()

    def _measure_delay(self, judged: Judged, reply: Reply) -> None:
        finished_at = reply.execution.finished_at if reply.execution else None
        if judged.known.ended_at is not None and finished_at is not None:
            delay_s = (self._clock.now() - finished_at).total_seconds()
            self._parts.metrics.detection_delay.observe(max(0.0, delay_s))

    def _forget(self, entry: Entry) -> None:
        self._found_count -= entry.known.lost is None
        self._parts.metrics.open[open_label(entry.known)].dec()
        if self._witness is entry:
            self._witness = None

    async def _tell_trouble(self) -> None:
        """Tell the edge between what was told of the account and how it is. Trouble with the store: next time."""
        try:
            await self._parts.announcer.tell(self._health.trouble)
        except OwnershipLostError:
            raise
        except StoreError as error:
            self._store_failed(error)

    def _store_failed(self, error: StoreError) -> None:
        """Log the edge. Nothing was recorded, so what was to be recorded comes due again."""
        if not self._store_failing:
            log.error("store.failed", account=self._parts.lease.name, problem=str(error))
        self._store_failing = True

    def _store_recovered(self) -> None:
        if self._store_failing:
            log.info("store.recovered", account=self._parts.lease.name)
        self._store_failing = False
