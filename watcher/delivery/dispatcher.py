"""The decisions about the deliveries of one sink: what to settle, take and send, and until when to rest. No I/O."""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from watcher.delivery.retries import CircuitBreaker, Request, Unsettled, records_of
from watcher.delivery.sink_queue import CONCURRENCY, NOW, SinkQueue
from watcher.delivery.sink_state import DISABLED, SinkState, WorkerDependencies
from watcher.domain.delivery import AttemptRecord, DeliveryState, ProblemMessage
from watcher.domain.judgement import Receiver, judge_batch
from watcher.domain.routing import Silence, messages_of
from watcher.domain.timestamps import EARLIEST, LATEST, Micros, Monotonic
from watcher.runtime.pacing import Pacer
from watcher.sinks.protocol import SendResult, Sink
from watcher.store.changes import SinkRecord, Take, Taken, Turn

SETTLE_AFTER_S = 0.1
SETTLE_COUNT = 64
"""An answer waits for up to 0.1 s to be settled together with later ones, which saves commits. None waits while 64 or
more deliveries are unsettled."""

TAKEN_COUNT = 256
TAKEN_FOR_S = 10.0
"""The most batches that are taken from the store at once: as many as the rate limit allows in 10 s, but at least 16 and
at most 256. A batch is one delivery or one group."""

REST_S = 10.0
"""The longest time until the next tick if no other process uses the store: each new delivery wakes the worker."""

SHARED_REST_S = 1.0
"""The longest time until the next tick while writes fail, or if other replicas write to the store."""

Step = tuple[Turn, Sequence[Unsettled]]
"""A turn that is to be written, and the outcomes that it settles."""


class Hindrance(NamedTuple):
    """The reason why a sink may not send now, and the end of that (monotonic seconds).

    `until` is `LATEST` if only something that happens can end it: a renewed lease, a write that succeeds, an answer.
    """

    until: Monotonic
    reason: str
    """`trust`, `store`, `disabled`, `pause`, `breaker` or `rate`."""


class Dispatcher:
    """The decisions about the deliveries of one sink.

    A turn settles outcomes and takes deliveries in one transaction. It takes only the first pending delivery of each
    ordering key, so the events of one execution, or of one problem, arrive in order.

    `turn` returns the turn that is due; call `recorded` once it is written. `requests` returns the requests to start;
    call `ended` with each answer. Both are due again after `rest_s`.

    The store is not used before `store_retry_at`. `released_under` are the silences that were active when openings were
    last released; `None` if that must be repeated.
    """

    def __init__(self, sink: Sink, record: SinkRecord, deps: WorkerDependencies) -> None:
        """Start without deliveries, and go on with the recorded state."""
        now, rules = deps.clock.monotonic(), deps.rules
        self.queue = SinkQueue()
        self.state = SinkState(record, clock=deps.clock)
        self.store_retry_at = EARLIEST
        self.released_under: tuple[Silence, ...] | None = None
        self._saved = record.backoff
        failures_count = 0 if self.state.trying_since is None else record.failures_count
        self._breaker = CircuitBreaker(failures_count, opens=rules.breaks, now=now)
        self._pacer = Pacer(rules.rate_per_s, now=now)
        self._sink = sink
        self._deps = deps
        self._owned_from = deps.clock.steady_us()
        self._take_count = round(min(TAKEN_COUNT, max(CONCURRENCY, rules.rate_per_s * TAKEN_FOR_S)))
        self._group_wait_s = rules.group_wait_s
        self._group_count = max([each.max_count for each in (rules.group, rules.problem_group) if each], default=1)

    # Settling and taking

    def begin(self) -> bool:
        """Note whether deliveries are being tried; return whether the lease is trusted. Else nothing is written."""
        state, queue = self.state, self.queue
        if not self._deps.is_trusted():
            queue.take_again()
            state.trying_since = None  # nothing is tried, so the sink does not fail meanwhile
            return False
        for request in queue.sending:
            state.note_attempt(request.batch[0])
        if not queue.sending and self._deps.store.monitor.failing_since is not None:
            state.trying_since = None  # the store fails, not the sink
        state.check()
        return True

    def turn(self, now: Monotonic) -> Step | None:
        """Return the turn that is due now; `None` if nothing is to be settled or taken."""
        settles = bool(self.queue.unsettled) and now >= self._settle_at()
        take = None if now < self.state.held_until else self._take(now, frees_some=settles and self.queue.frees_some)
        return self.settle(take) if settles or take else None

    def settle(self, take: Take | None = None, *, saves: bool = False) -> Step | None:
        """Return a turn that settles all outcomes and takes these deliveries; `None` if there is nothing to write.

        The pause, the time without a success and the own clock of the sink are saved, too, if deliveries are settled or
        `saves` is set.
        """
        settled, state = self.queue.unsettled.copy(), self.state
        saves = saves or bool(settled)
        if not (saves or take):
            return None
        records: list[AttemptRecord] = []
        messages: list[ProblemMessage] = []
        calls_forward = False
        for each in settled:
            records += each.records
            messages += each.result.messages if each.result else ()
            calls_forward |= each.closes_breaker
        if take or self.queue.frees_some:
            self.queue.due_at = inf if take else NOW
        turn = Turn(
            self._deps.store.lease,
            tuple(records),
            tuple(messages),
            backoff=state.backoff() if saves else None,
            clock_s=state.clock_s() if saves else None,
            calls_forward=calls_forward,
            group_wait_s=self._group_wait_s,
            take=take,
        )
        return turn, settled

    def recorded(self, step: Step, taken: Taken | None) -> None:
        """Note that a turn is written, and add the deliveries that it took."""
        (turn, settled), queue, blocking = step, self.queue, self.queue.blocking
        self._saved = turn.backoff or self._saved
        if turn.take and taken:
            batches, blocking = taken.batches, taken.blocking
            if self._deps.rules.problem_group is not None:
                batches = [message for batch in batches for message in messages_of(batch)]
            queue.take_in(taken, turn.take, batches)
            if turn.take.trial is not None and not batches:
                self._breaker.note_trial(turn.take.trial, begins=False, now=self._deps.clock.monotonic())
        if settled or blocking != queue.blocking:
            queue.remove_settled(len(settled), blocking=blocking)
        if self.state.trying_since is not None and queue.is_at_rest:
            self.state.trying_since = None

    def must_save(self) -> bool:
        """Return whether a flush has to save the state of the sink."""
        state, queue = self.state, self.queue
        has_changed = (state.trying_since is None) is not (self._saved.failing_for_s is None)
        return state.is_stopped or has_changed or (state.state != DISABLED and not queue.is_at_rest)

    # Sending

    def requests(self, now: Monotonic) -> list[Request]:
        """Return the requests to start now, as far as nothing hinders them and the bounds of the queue allow."""
        queue, found = self.queue, list[Request]()
        while queue.ready:
            if (hindrance := self.hindrance(now)) is not None:
                if hindrance.reason != "rate":  # what the deliveries are about may change meanwhile
                    queue.take_again()
                break
            if not (count := queue.free_count):
                break
            silences, at = self.silences() if self._deps.silences.all else (), self._deps.clock.now()
            receiver = Receiver(self._sink.keeps_state, round(self._deps.rules.after_s * 1e6), self._owned_from)
            batch = queue.next_batch(min(self._sink.batch_count, count))
            to_send, kept, is_stale = judge_batch(batch, receiver, silences, at=at, now=self._deps.clock.steady_us())
            if kept:
                queue.add(Unsettled(now, kept))
                if silences != self.released_under:  # a silence has begun, and may end before this is settled
                    self.released_under = None
            if is_stale:
                queue.due_at = NOW
            if to_send:
                trial = queue.trial if self._breaker.is_open else None
                if trial is not None:
                    self._breaker.note_trial(trial, begins=True, now=now)
                self._pacer.spend(now)
                found.append(request := Request(to_send, trial, now))
                queue.sending.add(request)
        return found

    def ended(self, request: Request, result: SendResult | None) -> None:
        """Note the end of a request, and keep the outcome of its deliveries to be settled.

        `result` is `None` if the request was not sent, because the lease is lost: the new owner sends the deliveries.
        """
        queue, breaker, state = self.queue, self._breaker, self.state
        queue.sending.remove(request)
        if request.trial is not None:
            breaker.is_trying = False
        if result is None:
            queue.due_at = NOW
            return
        now, at, was_open = self._deps.clock.monotonic(), self._deps.clock.steady_us(), breaker.is_open
        records = records_of(request, result, self._deps, state, at=at, failures_before=breaker.failures_count)
        state.note_answer(request.batch[0], result, at=at)
        if state.failed_alone:
            settled = (each.delivery.number for each in records if each.state is not DeliveryState.WAITING)
            state.failed_alone.difference_update(settled)
        breaker.note_answer(result.outcome, now=now, waited=request.trial == "tried_longest_ago")
        queue.add(Unsettled(now, records, result, closes_breaker=was_open and result.outcome.is_taken))
        if was_open and not breaker.is_open:
            queue.due_at = NOW

    def take_slot(self) -> float:
        """Take a slot of the rate limit for a further request of a delivery; return the seconds until that slot."""
        self.state.trying_since = None
        now = self._deps.clock.monotonic()
        at = max(now, self._pacer.ready_at, self.state.paused_until)
        self._pacer.spend(at)
        return at - now

    def silences(self) -> tuple[Silence, ...]:
        """Return the silences of this sink that are active now."""
        return self._deps.silences.active(self._deps.store.lease.name, at=self._deps.clock.now())

    # Resting

    def hindrance(self, now: Monotonic) -> Hindrance | None:
        """Return why the sink may not send now, of several reasons the one that lasts longest; `None` if it may.

        The rate limit counts only if no other reason does, and only while deliveries are ready: it does not delay the
        taking.
        """
        state, store = self.state, self._deps.store
        until, reason = max(
            (EARLIEST if self._deps.is_trusted() else LATEST, "trust"),
            (self.store_retry_at if store.monitor.failing_since is None else LATEST, "store"),
            (state.held_until, "disabled" if state.state == DISABLED else "pause"),
            (self._trial_at() if self._breaker.is_open else EARLIEST, "breaker"),
        )
        if until <= now and self.queue.ready:
            until, reason = self._pacer.ready_at, "rate"
        return Hindrance(until, reason) if until > now else None

    def rest_s(self, now: Monotonic, report_at: Monotonic, remind_at: Monotonic) -> float:
        """Return the seconds until the next turn, request, report of dead letters or reminder is due."""
        store = self._deps.store
        is_well = now >= self.store_retry_at and store.monitor.failing_since is None
        settle_at = self._settle_at() if self.queue.unsettled else LATEST
        at = min(settle_at, self._send_at(now), report_at, max(self.state.held_until, remind_at))
        return min(REST_S if store.exclusive and is_well else SHARED_REST_S, max(now, self.store_retry_at, at) - now)

    def next_try_at(self) -> Micros | None:
        """Return when the next attempt is due, for the page and the API; `None` if none is expected."""
        now = self._deps.clock.monotonic()
        at = self._send_at(now)
        return None if at == LATEST else Micros(self._deps.clock.steady_us() + round((at - now) * 1e6))

    def _send_at(self, now: Monotonic) -> Monotonic:
        """Return when the next delivery may be sent or taken, as far as no answer changes that."""
        queue = self.queue
        if not queue.free_count if queue.ready else queue.due_at == inf and not self._breaker.is_open:
            return LATEST  # an answer, or what is recorded, changes that
        hindrance = self.hindrance(now)
        until = self.state.held_until if hindrance is None else hindrance.until
        if queue.ready or self._breaker.is_open:  # a trial goes by no due time
            return until
        return max(until, Monotonic(now + (queue.due_at - self._deps.clock.steady_us()) / 1e6))

    def _settle_at(self) -> Monotonic:
        """Return when to settle the unsettled outcomes: at once, or with later ones if more requests go out soon.

        An outcome waits for 0.1 s at most. It does not wait if 64 deliveries are unsettled, or if it blocks another
        delivery and fewer than 16 batches are ready.
        """
        queue, ready_count = self.queue, len(self.queue.ready)
        if queue.unsettled_count >= SETTLE_COUNT or (queue.is_blocking and ready_count < CONCURRENCY):
            return EARLIEST
        until = Monotonic(queue.unsettled[0].at + SETTLE_AFTER_S)
        return until if queue.sending or (ready_count and self._pacer.ready_at <= until) else EARLIEST

    def _trial_at(self) -> Monotonic:
        """Return when the open circuit breaker lets the next request through."""
        queue = self.queue
        if queue.ready:  # deliveries that were taken before the breaker opened never go
            return LATEST if queue.trial is None else EARLIEST
        return LATEST if self._breaker.is_trying or queue.is_at_rest else self._breaker.trial_at()

    def _take(self, now: Monotonic, *, frees_some: bool) -> Take | None:
        """Return the request for the deliveries to take now; `None` if enough are ready or none may be due.

        More deliveries may be due if `due_at` has passed or if this turn `frees_some`; where other replicas write to
        the store, also whenever none is ready. While the circuit breaker is open, only the delivery of a trial is
        taken.
        """
        queue, breaker, rules, at = self.queue, self._breaker, self._deps.rules, self._deps.clock.steady_us()
        # A trial goes by no due time: a delivery that was never tried is not among those that the last one read.
        trial = breaker.trial(now) if breaker.is_open and not (breaker.is_trying or queue.ready) else None
        is_due = frees_some or queue.due_at <= at or not (self._deps.store.exclusive or queue.ready)
        if trial is None and (breaker.is_open or not is_due or len(queue.ready) >= CONCURRENCY):
            return None
        return Take(
            now=at,
            count=1 if trial else self._take_count,
            skip=queue.sending_keys(),
            group_count=self._group_count,
            trial=trial,
            with_messages=rules.keeps_messages,
            incidents=rules.incidents,
            after_s=rules.after_s,
            covers=rules.covers,
        )
