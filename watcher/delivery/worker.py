"""The worker of one sink: it takes what is due from the store, sends it within pace and breaker, and settles it.

Each turn is one transaction: what was answered is settled, and what may go next is taken. Only the first of a lane is
taken, so what happens to one execution, or to one problem, arrives in order.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from uuid import UUID

import structlog

from watcher.delivery.judgement import judge
from watcher.delivery.open_problems import OpenProblems
from watcher.delivery.retries import Attempt, CircuitBreaker, FailureLog, failed
from watcher.delivery.sink_state import SinkReporter, SinkState, WorkerDependencies
from watcher.domain.delivery import Delivery, DeliveryState, ProblemMessage
from watcher.domain.errors import (
    LeaseExpiredError,
    OutputClosedError,
    OwnershipLostError,
    StoreError,
    StoreUnusableError,
)
from watcher.domain.routing import Silence
from watcher.domain.snapshots import SinkSnapshot
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.runtime.pacing import Pacer, doubling
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, WorkerRules
from watcher.store.changes import AttemptRecord, SinkRecord, Take, Taken, Trial, Turn
from watcher.store.sink_store import SinkStore

CONCURRENCY = 16
"""At most so many requests in flight per sink."""

TAKEN_COUNT = 256
"""So many requests, each a delivery or a group, are taken from the store at once, or as many as go in `TAKEN_FOR_S`."""

TAKEN_FOR_S = 10.0

LINGER_S = 0.01
"""What is answered is settled with what is answered in so long, while others are on their way: a commit less each."""

UNSETTLED_COUNT = 512
"""At most so many deliveries that were begun and are not settled: a kill repeats no more."""

REST_S = 10.0
"""The longest a worker asks to be left alone; whatever happens in between wakes it."""

SHARED_REST_S = 1.0
"""The same where others record too: the word that wakes it may get lost. And while the store takes no writes."""

STORE_WAIT_S = 1.0
STORE_WAIT_CAP_S = 30.0
"""A store in trouble is left alone for so long, doubling."""

GIVE_UP_EVERY_S = 60.0
GIVE_UP_SHARE = 0.05
"""What has waited too long is given up so often, and at least so often within `give_up_after`."""

ALIVE_EVERY_S = 30.0
"""How the sink is, is written so often though it has not changed: it shows that the sink has an owner."""

_TAKEN = {SendOutcome.DELIVERED: DeliveryState.DELIVERED, SendOutcome.ACCEPTED: DeliveryState.ACCEPTED}

log = structlog.get_logger()


class DeliveryWorker:
    """The deliveries of one sink whose lease is held. Call `tick` when it asks to be, and whenever it calls `wake`."""

    _stopped = False
    _is_lingering = False
    _is_unread = True  # whether the store may have something due that was not read
    _is_backlog = False
    _trial: Trial | None = None  # what is ready was taken to be tried while the breaker is open
    _calls_forward = False
    _next_due_at: Micros | None = None
    _unsettled_count = 0
    _store_failures = 0  # in a row
    _store_retry_at = EARLIEST
    _give_up_at = EARLIEST
    _snapshot: SinkSnapshot | None = None  # as it is written
    _snapshot_at = EARLIEST

    def __init__(
        self, store: SinkStore, *, sink: Sink, record: SinkRecord, rules: WorkerRules, deps: WorkerDependencies
    ) -> None:
        self.sink = store.lease.name
        self._store = store
        self._receiver = sink
        self._rules = rules
        self._deps = deps
        self._clock = deps.clock
        self._state = SinkState(record, clock=deps.clock)
        self._reporter = SinkReporter(self._state, record, store=store, deps=deps)
        self._failures = FailureLog(self.sink, clock=deps.clock, metrics=deps.metrics)
        self._problems = OpenProblems(sink, self._state, self._reporter, store=store, rules=rules, deps=deps)
        now = deps.clock.monotonic()
        self._breaker = CircuitBreaker(opens=rules.breaks)
        if record.backoff.failing_for_s is not None:
            self._breaker.resume(record.failures_count, now=now)
        self._pacer = Pacer(rules.rate_per_s, now=now)
        self._owned_from = deps.clock.steady_us()
        self._released_under: tuple[Silence, ...] | None = None  # the silences when openings were released last
        self._ready: deque[Sequence[Delivery]] = deque()  # batches that may go
        self._sending: dict[asyncio.Task[None], Sequence[Delivery]] = {}
        self._answered: list[Attempt] = []  # and not settled
        self._kept_back: list[AttemptRecord] = []  # silenced or postponed, and not settled
        self._asking = asyncio.Lock()  # what is taken from the store is here before something else is asked of it
        self._offered: asyncio.Future[None] | None = None  # while something is taken with what is recorded
        self._saved = self._state.paused_until, self._state.trying_since is not None
        self._saved_s: float | None = record.clock_s
        self._group_wait_us = 0 if rules.group is None else round(rules.group.wait_s * 1e6)
        self._after_us = round(rules.after_s * 1e6)
        self._take_count = round(min(TAKEN_COUNT, max(CONCURRENCY, rules.rate_per_s * TAKEN_FOR_S)))

    def wake(self) -> None:
        """Note that something was recorded for this sink."""
        self._is_unread = True
        self._deps.wake()

    def offer(self) -> tuple[Turn, Callable[[Taken | None], None]] | None:
        """Return what may go along with what is recorded for this sink now, if nothing else is asked for it."""
        now = self._clock.monotonic()
        is_busy = self._asking.locked() or self._offered is not None or self._is_backlog or self._breaker.is_open
        if is_busy or not self._deps.is_trusted():
            return None
        self._is_unread = True
        request = self._request(now)
        if request is None:
            return None
        if self._answered or self._kept_back:  # it is not settled by this: it would be taken again
            request = replace(request, skip=request.skip | self._unsettled())
        self._is_unread = False  # what is recorded from now on wakes it
        self._offered = asyncio.get_running_loop().create_future()
        return Turn(self._store.lease, take=request), partial(self._take_offered, request=request)

    def _take_offered(self, taken: Taken | None, *, request: Take) -> None:
        """Send what was recorded; of what was not recorded after all nothing is known."""
        assert self._offered is not None
        self._offered.set_result(None)
        self._offered = None
        if taken is None:
            self.wake()
            return
        self._take_in(taken, request)
        self._start()
        if self._ready or self._kept_back or self._next_due_at is not None:  # a tick says when to go on
            self._deps.wake()

    async def tick(self) -> float:
        """Settle what was answered, start what is due and allowed; return in how many seconds to be called again.

        While the lease is not trusted, nothing is sent: the worker is woken once it is again.
        """
        self._is_lingering = False
        if not self._deps.is_trusted():
            self._give_back()
            self._state.trying_since = None  # nothing is tried, so that time is no failure of the sink
            return REST_S
        for batch in self._sending.values():
            self._state.trying(batch[0])
        if self._state.trying_since is not None:
            if not (self._sending or self._takes_writes()):  # the store is what holds it up
                self._state.trying_since = None
            self._state.check()
        now = self._clock.monotonic()
        if now >= self._store_retry_at:
            async with self._asking:
                if self._offered is not None:
                    await asyncio.wait([self._offered])  # who is cancelled meanwhile must not cancel it
                try:
                    if self._state.state != self._reporter.reported:
                        await self._reporter.report()
                    silences = self._silences()
                    if silences != self._released_under:
                        self._give_back()  # deliveries read before may be judged by an opening no longer silenced
                        await self._turn(None)  # so that those that were silenced until now are released, too
                        await self._store.release()
                        self._released_under, self._is_unread = silences, True
                    if now >= self._problems.next_at and not (self._stopped or now < self._state.held_until):
                        await self._problems.tick(now)
                    await self._turn(self._request(now))
                    if now >= self._reporter.report_dead_at:
                        await self._reporter.report_dead()
                    self._store_failures = 0
                except StoreError as error:
                    self._rest_store(error)
        self._start()
        return self._rest_s()

    async def flush(self) -> None:
        """Save how long the sink has been served and failing, and give up what waited too long, while something waits.

        And how it stands. A store that is in trouble is not asked, but at the end for what was answered.
        """
        if self._stopped or self._clock.monotonic() >= self._store_retry_at:
            async with self._asking:
                if self._offered is not None:
                    await asyncio.wait([self._offered])
                try:
                    if self._stopped or not self._is_at_rest():
                        await self._turn(None, saves=True)
                        await self._give_up()
                    await self._save_snapshot()
                except StoreError as error:
                    self._rest_store(error)

    async def enable(self) -> None:
        """Send again to a receiver that was gone, and have that recorded as done. Raises `StoreError`."""
        async with self._asking:
            if self._offered is not None:
                await asyncio.wait([self._offered])
            if self._state.state != self._reporter.reported:
                await self._reporter.report()
            await self._store.enable()
            self._state.enable()
            self._reporter.reported = self._state.state
        log.info("sink.enabled", sink=self.sink)
        self.wake()

    def take_slot(self) -> float:
        """Take the slot of one more request of what is being sent; return in how many seconds it may go."""
        self._state.trying_since = None
        now = self._clock.monotonic()
        at = max(now, self._pacer.ready_at, self._state.paused_until)
        self._pacer.spend(at)
        return at - now

    async def drain(self) -> None:
        """Start nothing more, wait for what is in flight, and settle it."""
        self._stopped = True
        while self._sending:
            await asyncio.wait(list(self._sending))
        await self.flush()

    async def cancel(self) -> None:
        """Break off what is in flight: it comes due again, under the same id."""
        self._stopped = True
        for task in (under_way := list(self._sending)):
            task.cancel()
        await asyncio.gather(self._problems.cancel(), *under_way, return_exceptions=True)

    # What is asked of the store

    def _rest_store(self, error: StoreError) -> None:
        """Let the store rest, longer each time.

        Two kinds of trouble will not pass: somebody else owns the sink by now, or the store cannot be used at all.
        """
        if isinstance(error, OwnershipLostError | StoreUnusableError):
            raise error
        self._give_back()
        self._store_failures += 1
        wait_s = doubling(self._store_failures, base_s=STORE_WAIT_S, cap_s=STORE_WAIT_CAP_S)
        self._store_retry_at = Monotonic(self._clock.monotonic() + wait_s)

    async def _give_up(self) -> None:
        """Make dead letters of what has waited for too long, now and then."""
        now, after_s = self._clock.monotonic(), self._rules.give_up_after_s
        if after_s is None or self._stopped or self._state.disabled or now < self._give_up_at:
            return
        self._give_up_at = Monotonic(now + min(GIVE_UP_EVERY_S, after_s * GIVE_UP_SHARE))
        skip = self._going() | self._unsettled()  # what was answered meanwhile is no dead letter
        count = await self._store.give_up(
            clock_s=self._state.clock_s(), after_s=after_s, skip=skip, group_wait_us=self._group_wait_us
        )
        self._store_failures = 0
        if count:
            self._deps.metrics.outcomes[DeliveryState.DEAD].inc(count)
            log.warning("deliveries.died", sink=self.sink, count=count, why="give_up_after has passed")
            self._reporter.note_dead()
            self.wake()

    async def _save_snapshot(self) -> None:
        """Let everybody know how the sink stands, if that has changed, or was not said for long."""
        state, now = self._state, self._clock.monotonic()
        waits_until = max(state.paused_until, self._breaker.trial_at() if self._breaker.is_open else EARLIEST)
        next_try_at = self._next_due_at
        if state.disabled or self._is_at_rest():
            next_try_at = None
        elif waits_until > now:
            next_try_at = Micros(self._clock.steady_us() + round((waits_until - now) * 1e6))
        snapshot = SinkSnapshot(state.answer, state.through_at or None, next_try_at, state.has_failed)
        if snapshot != self._snapshot or now - self._snapshot_at >= ALIVE_EVERY_S:
            await self._store.save_snapshot(snapshot)
            self._snapshot, self._snapshot_at = snapshot, now

    async def _turn(self, request: Take | None, *, saves: bool = False) -> None:
        """Settle what was answered or kept back, and take what is asked for: one transaction.

        That the sink's pause or failing has changed is written with it; if it `saves`, also how long it was served.
        """
        answered, kept_back, calls_forward = self._answered, self._kept_back, self._calls_forward
        lasting = self._state.paused_until, self._state.trying_since is not None
        is_moved = lasting != self._saved or (saves and self._state.clock_s() != self._saved_s)
        if not (answered or kept_back or is_moved or request):
            return
        attempts = kept_back.copy()
        messages: list[ProblemMessage] = []
        for answer in answered:
            attempts += answer.records
            messages += answer.result.messages
        turn = Turn(
            self._store.lease,
            tuple(attempts),
            tuple(messages),
            backoff=self._state.backoff() if is_moved else None,
            clock_s=self._state.clock_s() if is_moved else None,
            calls_forward=calls_forward,
            group_wait_us=self._group_wait_us,
            take=request,
        )
        self._answered, self._kept_back, self._calls_forward = [], [], False
        self._is_unread &= request is None
        try:
            taken = await self._store.record(turn)
        except StoreError:  # it is settled first once that can be written: not sent again, unless the process ends
            self._answered, self._kept_back = answered + self._answered, kept_back + self._kept_back
            self._calls_forward |= calls_forward
            self._is_unread = True
            raise
        self._store_failures = 0
        if is_moved:
            self._saved, self._saved_s = lasting, turn.clock_s
        for answer in answered:
            self._unsettled_count -= len(answer.records)
            if answer.result.outcome not in _TAKEN:
                self._failures.report(answer)
                self._reporter.note_remedy(answer.result)
                if any(each.state is DeliveryState.DEAD for each in answer.records):
                    self._reporter.note_dead()
                continue
            if self._failures.in_trouble:
                self._failures.recovered()
            self._deps.metrics.batched.observe(len(answer.records))
            for each in answer.records:
                delay_s = (each.delivery.tried_at - each.delivery.recorded_at) / 1e6
                self._deps.metrics.delivered(delay_s, state=each.state)
        if silenced_count := sum(each.state is DeliveryState.SILENCED for each in kept_back):
            self._deps.metrics.outcomes[DeliveryState.SILENCED].inc(silenced_count)
        if request is not None and taken is not None:
            self._take_in(taken, request)
        else:
            self._is_unread |= bool(attempts)  # what they leave waiting, and what waited for them

    def _request(self, now: Monotonic) -> Take | None:
        """Return what to take now, if it may be sent, there is room for it, and something may be due."""
        if len(self._ready) >= CONCURRENCY or self._stopped or now < self._state.held_until:
            return None
        trial = None
        if self._breaker.is_open:
            trial = None if self._breaker.is_trying or self._ready else self._breaker.trial(now)
            if trial is None:
                return None
        elif not (self._is_unread or self._is_backlog or self._answered or self._kept_back):
            is_due = self._next_due_at is not None and self._next_due_at <= self._clock.steady_us()
            if self._store.exclusive and not is_due:  # where others record too, it may have something
                return None
        group = self._rules.group
        skip = self._going() if self._ready or self._sending else frozenset[bytes]()
        if skip and self._answered:  # this turn settles it, though its task may not have ended yet
            skip -= self._ordering_keys(each.delivery for answer in self._answered for each in answer.records)
        return Take(
            now=self._clock.steady_us(),
            count=1 if trial else self._take_count,
            skip=skip,
            group_count=1 if group is None else group.max_count,
            trial=trial,
            with_messages=self._rules.keeps_messages,
            incidents=self._rules.incidents,
            defers_openings=self._rules.after_s > 0,
        )

    def _take_in(self, taken: Taken, request: Take) -> None:
        self._ready.extend(taken.batches)
        self._trial = request.trial
        if request.trial is not None:  # it looks at a part of what waits
            self._is_unread |= bool(taken.batches) or request.trial == "never_tried"
        if request.trial is not None and not taken.batches:
            self._breaker.nothing_waits(request.trial, now=self._clock.monotonic())
            if request.trial == "never_tried":  # then something else may be tried
                self._deps.wake()
                return
        self._is_backlog = request.trial is None and len(taken.batches) == request.count
        self._next_due_at = taken.next_due_at
        if self._state.trying_since is not None and self._is_at_rest():
            self._state.trying_since = None

    # What is sent

    def _start(self) -> None:
        if not self._ready:
            return
        is_stopped_by_breaker = self._breaker.is_open and self._trial is None  # since it was taken
        if is_stopped_by_breaker or not self._deps.is_trusted():
            self._give_back()
        now = self._clock.monotonic()
        if self._stopped or now < self._state.held_until or not self._takes_writes():
            return
        while self._ready and self._pacer.ready_at <= now:
            if len(self._sending) >= CONCURRENCY or self._unsettled_count >= UNSETTLED_COUNT:
                return
            batch = self._next_batch()
            if not batch:
                continue
            trial = self._trial if self._breaker.is_open else None
            if trial is not None:
                self._breaker.trial_begins(never_tried=trial == "never_tried", now=now)
            self._pacer.spend(now)
            self._unsettled_count += len(batch)
            task = asyncio.create_task(self._send(batch, trial))
            self._sending[task] = batch
            task.add_done_callback(self._ended)
            if trial is not None:
                return

    def _next_batch(self) -> Sequence[Delivery]:
        """Take what goes next, without what is kept back. What was tried before goes alone, or with its group."""
        batch = list(self._ready.popleft())
        count = min(self._receiver.batch_count, UNSETTLED_COUNT - self._unsettled_count)
        while len(batch) < count and self._ready and not (batch[0].attempts or self._ready[0][0].attempts):
            batch += self._ready.popleft()
        silences = self._silences()
        to_send: list[Delivery] = []
        unsent: dict[UUID | None, str | None] = {}  # the answers of openings that are not sent, by problem
        for each in batch:
            if each.problem in unsent:
                each = replace(each, is_opening_sent=False, silenced_as=unsent[each.problem])  # noqa: PLW2901
            judged = judge(
                each,
                silences,
                keeps_state=self._receiver.keeps_state,
                after_us=self._after_us,
                owned_from=self._owned_from,
                at=self._clock.now(),
                now=self._clock.steady_us(),
            )
            if isinstance(judged, Delivery):
                to_send.append(judged)
                continue
            self._kept_back.append(judged)
            if silences != self._released_under:  # they began since openings were let go, and may end before it is done
                self._released_under = None
            if each.problem is not None and each.opens and not judged.tried:
                unsent[each.problem] = judged.answer
        if unsent and batch[0].incident is not None:  # it was read with these in it: it is to be read again
            self._is_unread = True
            return []
        return to_send

    async def _send(self, batch: Sequence[Delivery], trial: Trial | None) -> None:
        began_at = self._clock.monotonic()
        try:
            result = await self._receiver.send(batch)
        except OutputClosedError:
            raise
        except LeaseExpiredError:  # it was not sent, or not in full: another process does that
            self._unsettled_count -= len(batch)
            self._is_unread = True
            return
        except Exception as error:  # noqa: BLE001 (one delivery's trouble must not stop the others)
            event_id, name = str(batch[0].event_id), type(error).__name__  # its text may hold secrets
            log.error("delivery.crashed", sink=self.sink, event_id=event_id, type=batch[0].type, error=name)  # noqa: TRY400
            result = SendResult(SendOutcome.RETRY, "error")
        finally:
            if trial is not None:
                self._breaker.is_trying = False
        took_s = self._clock.monotonic() - began_at
        at, was_open = self._clock.steady_us(), self._breaker.is_open
        state = _TAKEN.get(result.outcome)
        if state is None:
            waited = trial == "tried_longest_ago"
            self._answered.append(self._failed(batch, result, at=at, took_s=took_s, waited=waited))
        else:
            self._calls_forward |= was_open
            self._state.got_through(at, result.answer)
            if self._breaker.failures_count:
                self._breaker.works()
            records: list[AttemptRecord] = []
            for each in batch:
                self._state.own_trouble.discard(each.number)
                tried = replace(each, attempts=each.attempts + 1, due_at=at, tried_at=at)
                records.append(AttemptRecord(tried, state, result.answer))
            self._answered.append(Attempt(result, records))
        self._is_unread |= was_open and not self._breaker.is_open

    def _failed(
        self, batch: Sequence[Delivery], result: SendResult, *, at: Micros, took_s: float, waited: bool
    ) -> Attempt:
        """Take from what was not taken how the sink is. Return what follows for the deliveries."""
        before, jitter = self._breaker.failures_count, self._deps.jitter
        attempt = failed(
            batch, result, self._rules, self._state, at=at, took_s=took_s, failures_before=before, jitter=jitter
        )
        if result.outcome is SendOutcome.GONE:
            self._state.gone(result.answer)
            return attempt
        self._state.failed(batch[0], result.answer)
        dead = (each.delivery.number for each in attempt.records if each.state is DeliveryState.DEAD)
        self._state.own_trouble.difference_update(dead)
        if result.outcome is SendOutcome.REFUSED:
            self._breaker.works()
        else:
            self._breaker.failed(self._clock.monotonic(), waited=waited)
        if result.outcome is SendOutcome.BUSY:
            self._state.pause(result.retry_after_s)
        return attempt

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        if not task.cancelled() and (error := task.exception()):
            self._stopped = True
            self._deps.fatal(error)
        self._start()  # there is room for one more
        if self._stopped:
            return
        if not self._sending or (self._is_backlog and not self._ready):
            self._deps.wake()
        elif not self._is_lingering:
            self._is_lingering = True
            self._deps.wake(LINGER_S)

    # What is known

    def _silences(self) -> tuple[Silence, ...]:
        return self._deps.silences.on(self.sink, at=self._clock.now())

    def _takes_writes(self) -> bool:
        """Return whether what is sent now can be settled, as far as anybody knows."""
        return not self._store_failures and self._store.monitor.failing_since is None

    def _is_at_rest(self) -> bool:
        is_going = self._ready or self._sending or self._answered or self._kept_back
        return not (is_going or self._is_unread or self._is_backlog) and self._next_due_at is None

    def _going(self) -> frozenset[bytes]:
        return self._ordering_keys(chain.from_iterable((*self._ready, *self._sending.values())))

    def _unsettled(self) -> frozenset[bytes]:
        """Return the ordering keys of what was answered, or is kept back, and not settled."""
        settling = chain(self._kept_back, *(answer.records for answer in self._answered))
        return self._ordering_keys(each.delivery for each in settling)

    def _ordering_keys(self, deliveries: Iterable[Delivery]) -> frozenset[bytes]:
        """Return the keys of the lanes and of the incidents of these: nothing else of them is to be sent meanwhile."""
        if self._rules.incidents is None:
            return frozenset(each.lane for each in deliveries)
        both = ((each.lane, each.incident.key.bytes if each.incident else each.lane) for each in deliveries)
        return frozenset(chain.from_iterable(both))

    def _give_back(self) -> None:
        self._is_unread |= bool(self._ready)
        self._ready.clear()

    def _rest_s(self) -> float:
        """Return in how many seconds there is something to do, unless it is woken before."""
        now = self._clock.monotonic()
        longest_s = REST_S if self._store.exclusive and self._takes_writes() else SHARED_REST_S
        at = Monotonic(now + longest_s)
        if self._answered or self._kept_back:
            linger_s = LINGER_S if self._sending and self._problems.next_at > now else 0.0
            return min(longest_s, max(linger_s, self._store_retry_at - now))
        if self._stopped or self._state.disabled or not self._takes_writes():
            return longest_s
        if self._ready:
            is_full = len(self._sending) >= CONCURRENCY or self._unsettled_count >= UNSETTLED_COUNT
            at = at if is_full else self._pacer.ready_at  # an answer wakes it
        elif self._breaker.is_open:
            at = at if self._breaker.is_trying or self._is_at_rest() else self._breaker.trial_at()
        elif self._is_unread or self._is_backlog:
            at = now
        elif self._next_due_at is not None:
            at = Monotonic(now + (self._next_due_at - self._clock.steady_us()) / 1e6)
        at = min(self._reporter.report_dead_at, max(self._state.paused_until, min(at, self._problems.next_at)))
        return min(longest_s, max(0.0, at - now))
