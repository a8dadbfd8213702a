"""The state of one sink: well, failing or disabled."""

from collections.abc import Callable
from dataclasses import dataclass

from watcher.domain.delivery import Delivery
from watcher.domain.event_factory import EventFactory
from watcher.domain.routing import Silences
from watcher.domain.timestamps import LATEST, NEVER, Micros, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import SinkMetrics
from watcher.runtime.pacing import Jitter
from watcher.runtime.scheduler import WakeIn
from watcher.sinks.protocol import RETRY_AFTER_CAP_S, SendOutcome, SendResult, WorkerRules
from watcher.store.changes import BackoffState, SinkRecord
from watcher.store.sink_store import SinkStore

FAILING = "failing"
DISABLED = "disabled"

NO_ANSWER = "none"
"""The answer that is shown for a sink without an answer since its last success or since the start, such as a stdout
that nobody reads."""

FAILING_AFTER_S = 300.0
"""The running time without a success, while deliveries are tried, after which a sink counts as failing."""


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

    `state` is `FAILING`, `DISABLED`, or `None` while the sink is well. `is_stopped` is set at the end of the worker.
    `paused_until` is the end of the last pause that the receiver asked for. Nothing is sent before `held_until`. Both
    are monotonic seconds. `last_success_at` is in microseconds UTC, steady; 0 if there was no success since the start.
    `answer` is the last answer.

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
        self.is_stopped = False
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

    def stop(self) -> None:
        """Let nothing more be sent, because the worker ends."""
        self.is_stopped, self.held_until = True, LATEST

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
