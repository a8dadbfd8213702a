"""The delivery worker of one sink: it takes due deliveries from the store, sends them, and settles them.

A turn is one transaction: it settles the answered deliveries and takes the next ones. It takes only the first pending
delivery of each ordering key, so the events of one execution, or of one problem, arrive in order.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from operator import attrgetter
from uuid import UUID

import structlog

from watcher.delivery.in_flight import CONCURRENCY, SETTLE_AFTER_S, SETTLE_COUNT, InFlight
from watcher.delivery.intake import NOW, Intake
from watcher.delivery.open_problems import OpenProblems
from watcher.delivery.retries import AttemptLog, CircuitBreaker, Unsettled, records_of
from watcher.delivery.sink_state import DISABLED, SinkReporter, SinkState, WorkerDependencies
from watcher.delivery.upkeep import Upkeep
from watcher.domain.delivery import AttemptRecord, Delivery, DeliveryState, ProblemMessage
from watcher.domain.errors import (
    LeaseExpiredError,
    OutputClosedError,
    OwnershipLostError,
    StoreError,
    StoreUnusableError,
)
from watcher.domain.judgement import AFTER, Receiver, judge_delivery
from watcher.domain.routing import Silence
from watcher.domain.timestamps import EARLIEST, LATEST, Micros, Monotonic
from watcher.runtime.pacing import Pacer
from watcher.sinks.protocol import SendOutcome, SendResult, Sink
from watcher.store.changes import SinkRecord, Take, Trial, Turn

REST_S = 10.0
"""The longest time until the next tick if no other process uses the store: each new delivery wakes the worker."""

SHARED_REST_S = 1.0
"""The longest time until the next tick while writes fail, or if other replicas write to the store."""

STORE_RETRY_S = 1.0
"""The wait after a failure of the store."""

CLOSES_BREAKER = attrgetter("closes_breaker")

log = structlog.get_logger()


class DeliveryWorker:
    """The worker of one sink, whose lease this process holds.

    Call `tick` again after the seconds that it returned, or earlier if the worker calls `wake` of its `deps`.
    """

    def __init__(self, sink: Sink, record: SinkRecord, deps: WorkerDependencies) -> None:
        self.sink = deps.store.lease.name
        self._sink = sink
        self._deps = deps
        self._clock = deps.clock
        now = deps.clock.monotonic()
        self._state = SinkState(record, clock=deps.clock)
        self._reporter = SinkReporter(self._state, record, deps)
        self._attempt_log = AttemptLog(self._reporter, deps)
        self._problems = OpenProblems(sink, self._state, self._reporter, deps)
        is_trying = self._state.trying_since is not None
        failures_count = record.failures_count if is_trying else 0
        self._breaker = CircuitBreaker(failures_count, opens=deps.rules.breaks, now=now)
        self._pacer = Pacer(deps.rules.rate_per_s, now=now)
        self._owned_from = deps.clock.steady_us()
        self._intake = Intake(self._breaker, deps)
        self._in_flight = InFlight()
        self._upkeep = Upkeep(self._state, self._reporter, deps)
        self._lock = asyncio.Lock()  # held for each write to the store
        self._store_retry_at = EARLIEST
        self._next_tick_at = now
        self._saved_trying = is_trying
        self._stopped = False

    def wake(self) -> None:
        """Request a tick that takes deliveries, because new ones may be due."""
        self._intake.due_at = NOW
        self._deps.wake()

    async def tick(self) -> float:
        """Settle the answered deliveries and start those that are due; return the seconds until the next call.

        While the lease is not trusted, nothing is sent. The schedule calls this at least every 2 s, also without a
        wake-up, so sending continues once the lease is trusted again.
        """
        if not self._deps.is_trusted():
            self._intake.give_back()
            self._state.trying_since = None  # nothing is tried, so the sink does not fail meanwhile
            return REST_S
        for batch in self._in_flight.sending.values():
            self._state.note_attempt(batch[0])
        if self._state.trying_since is not None:
            if not self._in_flight.sending and self._deps.store.monitor.failing_since is not None:
                self._state.trying_since = None  # the store fails, not the sink
            self._state.check()
        now = self._clock.monotonic()
        if now >= self._store_retry_at:
            async with self._lock:
                try:
                    if self._state.state != self._reporter.reported:
                        await self._reporter.report()
                    silences = self._silences() if self._deps.silences.all else ()
                    if silences != self._upkeep.released_under:
                        await self._release(silences)
                    is_held, request = now < self._state.held_until, None
                    if now >= self._problems.next_at and not is_held:
                        await self._problems.tick(now)
                    settles = bool(self._in_flight.unsettled) and now >= self._settle_at()
                    if not is_held:
                        frees_some = settles and self._in_flight.frees_some
                        request = self._intake.request(self._in_flight, frees_some=frees_some)
                    if request or settles:
                        await self._turn(request)
                    if now >= self._reporter.report_dead_at:
                        await self._reporter.report_dead()
                except StoreError as error:
                    self._store_failed(error)
        if self._intake.ready:
            self._start()
        rest_s = self._rest_s()
        self._next_tick_at = Monotonic(self._clock.monotonic() + rest_s)
        return rest_s

    async def flush(self) -> None:
        """Settle the answered deliveries, make dead letters of old ones, and save state and snapshot of the sink.

        While the store is in trouble, only the last flush is tried: it settles the deliveries that were answered.
        """
        if not self._stopped and self._clock.monotonic() < self._store_retry_at:
            return
        async with self._lock:
            try:
                is_served = self._state.state != DISABLED and not self._is_at_rest()
                is_trying = self._state.trying_since is not None
                if self._stopped or is_served or is_trying != self._saved_trying:
                    await self._turn(None, saves=True)
                    skip = self._in_flight.sending_keys(self._intake.ready) | self._in_flight.unsettled_keys()
                    if not self._stopped and await self._upkeep.give_up(skip=skip):
                        self.wake()
                await self._upkeep.save_snapshot(self._next_try_at())
            except StoreError as error:
                self._store_failed(error)

    async def enable(self) -> None:
        """Let deliveries be sent to a disabled sink again, and delete the request for that. Raises `StoreError`."""
        async with self._lock:
            if self._state.state != self._reporter.reported:
                await self._reporter.report()
            await self._deps.store.enable()
            self._state.enable()
            self._reporter.reported = self._state.state
        log.info("sink.enabled", sink=self.sink)
        self.wake()

    def take_slot(self) -> float:
        """Take a slot of the rate limit for a further request of a delivery; return the seconds until that slot."""
        self._state.trying_since = None
        now = self._clock.monotonic()
        at = max(now, self._pacer.ready_at, self._state.paused_until)
        self._pacer.spend(at)
        return at - now

    async def drain(self) -> None:
        """Start no more requests, wait for those in flight, and settle their deliveries."""
        self._stop()
        while self._in_flight.sending:
            await asyncio.wait(list(self._in_flight.sending))
        await self.flush()

    async def cancel(self) -> None:
        """Cancel the requests in flight. Their deliveries come due again, under the same ids."""
        self._stop()
        for task in (under_way := list(self._in_flight.sending)):
            task.cancel()
        await asyncio.gather(self._problems.cancel(), *under_way, return_exceptions=True)
        self._in_flight.sending.clear()

    async def _release(self, silences: tuple[Silence, ...]) -> None:
        """Release all silenced openings, to be judged again under these silences."""
        self._intake.give_back()  # a closing may have been taken while its opening was still silenced
        await self._turn(None)  # settle openings that were just silenced, so that they are released, too
        await self._upkeep.release(silences)
        self._intake.due_at = NOW

    def _store_failed(self, error: StoreError) -> None:
        """Wait before the store is used again. Raise an error that will not pass: a lost lease, an unusable store."""
        if isinstance(error, OwnershipLostError | StoreUnusableError):
            raise error
        self._store_retry_at = Monotonic(self._clock.monotonic() + STORE_RETRY_S)

    def _stop(self) -> None:
        self._stopped, self._state.held_until = True, LATEST

    async def _turn(self, request: Take | None, *, saves: bool = False) -> None:
        """Settle the answered, postponed and silenced deliveries and take the requested ones, in one transaction.

        The pause, the time without a success and the own clock of the sink are saved, too, if deliveries are settled or
        `saves` is set.
        """
        unsettled, state = self._in_flight.unsettled.copy(), self._state
        saves = saves or bool(unsettled)
        if not (saves or request):
            return
        records: list[AttemptRecord] = []
        messages: list[ProblemMessage] = []
        for each in unsettled:
            records += each.records
            messages += each.result.messages if each.result else ()
        turn = Turn(
            self._deps.store.lease,
            tuple(records),
            tuple(messages),
            backoff=state.backoff() if saves else None,
            clock_s=state.clock_s() if saves else None,
            calls_forward=any(map(CLOSES_BREAKER, unsettled)),
            group_wait_s=self._deps.rules.group_wait_s,
            take=request,
        )
        if request or self._in_flight.frees_some:
            self._intake.due_at = inf if request else NOW
        is_trying = state.trying_since is not None
        try:
            taken = await self._deps.store.record(turn)
        except StoreError:
            self._intake.give_back()
            raise
        self._saved_trying = is_trying if saves else self._saved_trying
        blocking = self._in_flight.blocking
        if request and taken:
            self._intake.take_in(taken, request)
            blocking = taken.blocking
        if unsettled or blocking != self._in_flight.blocking:
            self._in_flight.remove_settled(len(unsettled), blocking=blocking)
        for each in unsettled:
            self._attempt_log.log_settled(each)
        if state.trying_since is not None and self._is_at_rest():
            state.trying_since = None

    def _start(self) -> None:
        """Start requests for the ready deliveries, as far as rate limit, breaker and the bounds of `InFlight` allow."""
        now, monitor = self._clock.monotonic(), self._deps.store.monitor
        is_stopped = self._breaker.is_open and self._intake.trial is None  # the breaker opened after the taking
        takes_writes = now >= self._store_retry_at and monitor.failing_since is None  # else they could not be settled
        is_held = now < self._state.held_until  # a pause: what they are about may change meanwhile
        if is_stopped or is_held or not (takes_writes and self._deps.is_trusted()):
            self._intake.give_back()
        while self._intake.ready and (count := self._in_flight.free_count):
            if self._pacer.ready_at > now:
                return
            if batch := self._next_batch(min(self._sink.batch_count, count), now):
                trial = self._intake.trial if self._breaker.is_open else None
                if trial is not None:
                    self._breaker.note_trial(trial, begins=True, now=now)
                self._pacer.spend(now)
                task = asyncio.create_task(self._send(batch, trial))
                task.add_done_callback(self._ended)
                self._in_flight.sending[task] = batch

    def _next_batch(self, count: int, now: Monotonic) -> Sequence[Delivery]:
        """Return the deliveries of the next request (at most `count`), without those that are postponed or silenced."""
        batch = self._intake.next_batch(count)
        receiver = Receiver(self._sink.keeps_state, round(self._deps.rules.after_s * 1e6), self._owned_from)
        silences = self._silences() if self._deps.silences.all else ()
        to_send: list[Delivery] = []
        kept: list[AttemptRecord] = []
        unsent: dict[UUID | None, str] = {}  # the answers of openings that are not sent, by problem
        for each in batch:
            if each.problem in unsent:
                each = replace(each, is_opening_sent=False, silenced_as=unsent[each.problem])  # noqa: PLW2901
            judged = judge_delivery(each, receiver, silences, at=self._clock.now(), now=self._clock.steady_us())
            if isinstance(judged, Delivery):
                to_send.append(judged)
                continue
            kept.append(judged)
            if each.problem is not None and each.opens and not judged.tried:
                unsent[each.problem] = judged.answer or AFTER
        if kept:
            self._in_flight.add(Unsettled(now, kept))
            if silences != self._upkeep.released_under:  # a silence has begun, and may end before this is settled
                self._upkeep.released_under = None
        if unsent and batch[0].incident is not None:  # read with these openings: take it again
            self._intake.due_at = NOW
            return []
        return to_send

    async def _send(self, batch: Sequence[Delivery], trial: Trial | None) -> None:
        task, began_at = asyncio.current_task(), self._clock.monotonic()
        assert task is not None
        result: SendResult | None = None
        try:
            result = await self._sink.send(batch)
        except OutputClosedError:
            raise
        except LeaseExpiredError:  # the new owner sends the batch, or the rest of it
            self._intake.due_at = NOW
        except Exception as error:  # noqa: BLE001 (an error of one batch must not stop the others)
            event_id, name = str(batch[0].event_id), type(error).__name__  # the error's text may hold secrets
            log.error("delivery.crashed", sink=self.sink, event_id=event_id, type=batch[0].type, error=name)  # noqa: TRY400
            result = SendResult(SendOutcome.RETRY, "error")
        finally:
            del self._in_flight.sending[task]
            if trial is not None:
                self._breaker.is_trying = False
        if result is not None:
            self._answered(batch, result, took_s=self._clock.monotonic() - began_at, trial=trial)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Start the next requests after one has ended, and request a tick if one is needed before the expected one."""
        if not task.cancelled() and (error := task.exception()):
            self._stop()
            self._deps.fatal(error)
        if self._intake.ready:
            self._start()
        now = self._clock.monotonic()
        next_tick_at = Monotonic(now + self._rest_s())
        if next_tick_at < self._next_tick_at and not self._stopped:
            self._next_tick_at = next_tick_at
            self._deps.wake(next_tick_at - now)

    def _answered(self, batch: Sequence[Delivery], result: SendResult, *, took_s: float, trial: Trial | None) -> None:
        """Update sink and circuit breaker by an answer, and keep the outcome of its deliveries to be settled."""
        now, at, was_open = self._clock.monotonic(), self._clock.steady_us(), self._breaker.is_open
        rules, count, jitter = self._deps.rules, self._breaker.failures_count, self._deps.jitter
        records = records_of(
            batch, result, rules, self._state, at=at, took_s=took_s, failures_before=count, jitter=jitter
        )
        self._state.note_answer(batch[0], result, at=at)
        if self._state.failed_alone:
            settled = (each.delivery.number for each in records if each.state is not DeliveryState.WAITING)
            self._state.failed_alone.difference_update(settled)
        self._breaker.note_answer(result.outcome, now=now, waited=trial == "tried_longest_ago")
        self._in_flight.add(Unsettled(now, records, result, closes_breaker=was_open and result.outcome.is_taken))
        if was_open and not self._breaker.is_open:
            self._intake.due_at = NOW

    def _silences(self) -> tuple[Silence, ...]:
        return self._deps.silences.active(self.sink, at=self._clock.now())

    def _is_at_rest(self) -> bool:
        in_flight, intake = self._in_flight, self._intake
        return intake.due_at == inf and not (intake.ready or in_flight.sending or in_flight.unsettled)

    def _settle_at(self) -> Monotonic:
        """Return when to settle the unsettled outcomes: at once, or with later ones if more requests go out soon.

        An outcome waits for 0.1 s at most. It does not wait if 64 deliveries are unsettled, or if it blocks another
        delivery and fewer than 16 batches are ready.
        """
        in_flight, ready_count = self._in_flight, len(self._intake.ready)
        if in_flight.unsettled_count >= SETTLE_COUNT or (in_flight.is_blocking and ready_count < CONCURRENCY):
            return EARLIEST
        until = Monotonic(in_flight.unsettled[0].at + SETTLE_AFTER_S)
        return until if in_flight.sending or (ready_count and self._pacer.ready_at <= until) else EARLIEST

    def _next_try_at(self) -> Micros | None:
        """Return when the next attempt is due, for the page and the API; `None` if none is expected."""
        now = self._clock.monotonic()
        at = max(self._state.held_until, self._due_at(now))
        return None if at == LATEST else Micros(self._clock.steady_us() + round((at - now) * 1e6))

    def _rest_s(self) -> float:
        """Return the seconds until the next tick is needed, unless the worker is woken before."""
        now, store = self._clock.monotonic(), self._deps.store
        is_well = now >= self._store_retry_at and store.monitor.failing_since is None
        settle_at = self._settle_at() if self._in_flight.unsettled else LATEST
        at = max(settle_at, self._store_retry_at)
        if is_well and not self._stopped:
            due_at = min(self._due_at(now), self._problems.next_at)
            at = min(at, self._reporter.report_dead_at, max(self._state.held_until, due_at))
        return min(REST_S if store.exclusive and is_well else SHARED_REST_S, max(0.0, at - now))

    def _due_at(self, now: Monotonic) -> Monotonic:
        """Return when the next delivery may be sent or taken, as far as no answer changes that."""
        if self._intake.ready:
            return self._pacer.ready_at if self._in_flight.free_count else LATEST  # the next answer frees a slot
        if self._breaker.is_open:
            return LATEST if self._breaker.is_trying or self._is_at_rest() else self._breaker.trial_at()
        due_at = self._intake.due_at
        return LATEST if due_at == inf else Monotonic(now + (due_at - self._clock.steady_us()) / 1e6)
