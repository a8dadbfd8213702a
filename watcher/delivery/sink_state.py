"""The state of one sink (well, failing or disabled), and the recording of events about the sink."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import Json, sink_source
from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.event_factory import EventFactory, Reported
from watcher.domain.problems import Problem, SentOpening
from watcher.domain.routing import Silences
from watcher.domain.timestamps import LATEST, NEVER, Micros, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.runtime.pacing import Jitter
from watcher.runtime.scheduler import WakeIn
from watcher.sinks.protocol import RETRY_AFTER_CAP_S, SendOutcome, SendResult, WorkerRules
from watcher.store.changes import BackoffState, SinkRecord, SourceChange
from watcher.store.sink_store import SinkStore

FAILING = "failing"
DISABLED = "disabled"

NO_ANSWER = "none"
"""The answer that is shown for a sink without an answer since its last success or since the start, such as a stdout
that nobody reads."""

FAILING_AFTER_S = 300.0
"""The running time without a success, while deliveries are tried, after which a sink counts as failing."""

DEAD_EVERY_S = 60.0
"""The shortest time between two `delivery.dead` events about one sink."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerDependencies:
    """The dependencies of a delivery worker.

    `fatal` is called with an error after which the worker cannot go on: a lost lease, a closed stdout, an unusable
    store, a bug. `is_trusted` returns whether the sink's lease is trusted; while it is not, nothing is sent.
    """

    store: SinkStore
    rules: WorkerRules
    is_trusted: Callable[[], bool]
    clock: Clock
    jitter: Jitter
    wake: WakeIn
    events: EventFactory
    silences: Silences
    fatal: Callable[[BaseException], None]
    metrics: SinkMetrics


class SinkState:
    """The state of a sink, by the answers to its attempts. No I/O.

    `state` is `FAILING`, `DISABLED`, or `None` while the sink is well. `paused_until` is the end of the last pause that
    the receiver asked for. Nothing is sent before `held_until`. Both are monotonic seconds. `last_success_at` is in
    microseconds UTC, steady; 0 if there was no success since the start. `answer` is the last answer.

    `trying_since` (running time) is when deliveries were first tried after the last success. It is `None` after a
    success, and while nothing is left to try: otherwise a dead letter of last week would make today's first failure a
    long one.
    """

    def __init__(self, record: SinkRecord, *, clock: Clock) -> None:
        """Start with the recorded state. A pause above `RETRY_AFTER_CAP_S` came from a wrong clock and is cut."""
        backoff = record.backoff
        self.state = record.state
        self.paused_until = Monotonic(clock.monotonic() + min(backoff.pause_s or 0.0, RETRY_AFTER_CAP_S))
        self.held_until = LATEST if self.state == DISABLED else self.paused_until
        self.last_success_at = NEVER
        self.answer = NO_ANSWER
        self.has_failed = backoff.failing_for_s is not None  # since the last success
        # The numbers of deliveries that failed while others succeeded, until they are settled.
        self.failed_alone: set[int] = set()
        self._clock = clock
        self._served_s = record.clock_s
        self._served_since = now = clock.running()
        self.trying_since = None if backoff.failing_for_s is None else now - backoff.failing_for_s

    def clock_s(self) -> float:
        """Return the sink's own clock: the seconds in which it was served. It stops while the sink is disabled."""
        return self._served_s if self.state == DISABLED else self._served_s + self._clock.running() - self._served_since

    def backoff(self) -> BackoffState:
        """Return the rest of the pause and the time without a success, which a restart must not forget."""
        pause_s, since = self.paused_until - self._clock.monotonic(), self.trying_since
        failing_for_s = None if since is None else min(FAILING_AFTER_S, self._clock.running() - since)
        return BackoffState(pause_s if pause_s > 0 else None, failing_for_s)

    def note_attempt(self, delivery: Delivery) -> None:
        """Note that a delivery is tried. A delivery that failed while others succeeded says nothing about the sink."""
        if self.trying_since is None and delivery.number not in self.failed_alone:
            self.trying_since = self._clock.running()

    def note_answer(self, delivery: Delivery, result: SendResult, *, at: Micros) -> None:
        """Note the answer to a request, `at` a time (microseconds UTC, steady). `delivery` is the first of the request.

        A disabled sink stays disabled. If a pause is in progress, the later end counts.
        """
        is_taken = result.outcome.is_taken
        self.answer, self.has_failed = result.answer, not is_taken
        if is_taken:
            self.trying_since, self.last_success_at = None, at
            self.state = None if self.state == FAILING else self.state
        elif result.outcome is SendOutcome.GONE:
            self._served_s = self.clock_s()
            self.state, self.held_until = DISABLED, LATEST
        else:
            if delivery.attempts and self.last_success_at > delivery.tried_at:
                self.failed_alone.add(delivery.number)
            self.note_attempt(delivery)
        if result.outcome is SendOutcome.BUSY:
            until = Monotonic(self._clock.monotonic() + result.retry_after_s)
            self.paused_until = max(self.paused_until, until)
            self.held_until = max(self.held_until, until)

    def enable(self) -> None:
        """Let deliveries be sent to a disabled sink again. The sink counts as failing until its first success."""
        if self.state == DISABLED:
            self.state, self.held_until = FAILING, self.paused_until
            self._served_since = self._clock.running()

    def check(self) -> None:
        """Mark the sink as failing once deliveries have been tried for 5 minutes of running time without a success."""
        since = self.trying_since
        if self.state is None and since is not None and self._clock.running() - since >= FAILING_AFTER_S:
            self.state = FAILING
            self.answer = self.answer if self.has_failed else NO_ANSWER


class SinkReporter:
    """Records events about one sink: changes of its state and dead letters for the other sinks, and its own reminders.

    `reported` is the state that was last recorded. `report_dead` is due at `report_dead_at` (monotonic seconds).
    """

    def __init__(self, state: SinkState, record: SinkRecord, deps: WorkerDependencies) -> None:
        """Start with the recorded state. Log a warning if the sink is disabled."""
        self._state = state
        self._name = deps.store.lease.name
        self._deps = deps
        self.reported, self._sequence, self._problem = record.state, record.sequence, record.problem
        self._dead_reported_until = record.dead_from
        self._remedies: dict[str, str] = {}  # by answer
        self.note_dead()  # a killed process may not have reported its last dead letters
        deps.metrics.up.set(record.state is None)
        if state.state == DISABLED:
            note = "it answered 410 Gone, so deliveries wait; enable it, or change its block in the configuration"
            log.warning("sink.disabled", sink=self._name, note=note)

    async def report(self) -> None:
        """Record a change of the sink's state, as an event for the other sinks. Raises `StoreError`."""
        state, answer = self._state.state, self._state.answer
        type_ = EventType(f"sink.{state or 'recovered'}")
        entry, problem = self._event(type_, {"answer": answer}, self._problem)
        problems = () if problem is None else (problem,)
        change = SourceChange(self._deps.store.lease, self._sequence, entry.event.sequence, state, (entry,), problems)
        await self._deps.store.record(change)
        self.reported, self._sequence = state, change.sequence
        self._problem = problem.problem if problem is not None and state else None
        self._deps.metrics.report_state(type_, well=state is None, answer=answer)
        (log.info if state is None else log.warning)(type_.value, sink=self._name, answer=answer)

    async def remind(self, openings: Sequence[SentOpening], *, due_at: Micros) -> None:
        """Record one reminder of these open problems for this sink, due at `due_at`. Raises `StoreError`.

        Its text is about the first problem.
        """
        at = self._deps.clock.now()
        entry = self._deps.events.reminder(openings[0], sink=self._name, after=self._sequence, at=at)
        await self._record(entry, {each.problem.id: due_at for each in openings})

    def note_remedy(self, result: SendResult) -> None:
        """Keep the remedy of a failed request for reports of dead letters with the same answer."""
        if not result.minimal_left:
            self._remedies[result.answer] = result.remedy

    def note_dead(self) -> None:
        """Note that there may be new dead letters. They are reported at once, or one minute after the last report."""
        since_s = (self._deps.clock.steady_us() - self._dead_reported_until) / 1e6
        self.report_dead_at = Monotonic(self._deps.clock.monotonic() + max(0.0, DEAD_EVERY_S - since_s))

    async def report_dead(self) -> None:
        """Record `delivery.dead` for the other sinks, if there are new dead letters. Raises `StoreError`."""
        now = self._deps.clock.steady_us()
        if dead := await self._deps.store.dead_since(self._dead_reported_until):
            newest = {"type": dead.type, "id": str(UUID(bytes=dead.event_id)), "answer": dead.answer}
            data = {"count": dead.dead_count, "newest": newest, "answer": dead.answer}
            data["remedy"] = self._remedies.get(dead.answer) or None
            entry, _ = self._event(EventType.DELIVERY_DEAD, data, None)
            await self._record(entry, {})
            self._dead_reported_until = now
        self.report_dead_at = LATEST

    def _event(self, type_: EventType, data: Json, problem: Problem | None) -> Reported:
        """Return the next event about this sink, for the other sinks."""
        name, at = self._name, self._deps.clock.now()
        data = {"sink": name, **data}
        return self._deps.events.of_source(
            type_, sink_source(name), data, problem, after=self._sequence, at=at, without_sink=name
        )

    async def _record(self, entry: OutboxEntry, reminders: Mapping[UUID, Micros]) -> None:
        """Record an event that does not change the state of the sink, and the due times of reminders."""
        lease, sequence = self._deps.store.lease, entry.event.sequence
        await self._deps.store.record(
            SourceChange(lease, self._sequence, sequence, self.reported, (entry,), reminders=reminders)
        )
        self._sequence = sequence
        self._deps.metrics.events.labels(entry.event.type).inc()
