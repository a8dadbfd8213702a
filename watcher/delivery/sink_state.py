"""How one sink is: well, failing or disabled, and its own clock. Pure; the worker reports and records it."""

from watcher.delivery.sinks.protocol import RETRY_AFTER_CAP_S
from watcher.domain.timestamps import NEVER, Monotonic
from watcher.runtime.clock import Clock
from watcher.store.changes import BackoffState
from watcher.store.records import SinkRecord

FAILING = "failing"
DISABLED = "disabled"

NO_ANSWER = "none"
"""The answer of a sink that nothing came from since its last success: nobody reads stdout, or it was just started."""

FAILING_AFTER_S = 300.0
"""Nothing got through for so long while something was tried (SPEC 5, `sink.failing`)."""


class SinkState:
    """The state of a sink as its attempts show it.

    `paused_until` is the end of the last pause it asked for (monotonic seconds), `through_at` when anything last got
    through (microseconds UTC, steady; 0: not since the start), `answer` the last one to anything sent. Time in which
    the process was stopped does not count.
    """

    def __init__(self, record: SinkRecord, *, clock: Clock) -> None:
        """Go on from what is recorded. A pause longer than a receiver can ask for was written by a wrong clock."""
        backoff = record.backoff
        self.state = record.state
        self.paused_until = Monotonic(clock.monotonic() + min(backoff.pause_s or 0.0, RETRY_AFTER_CAP_S))
        self.through_at = NEVER
        self.answer = NO_ANSWER
        self._is_through = False  # whether the last answer was a success
        self._clock = clock
        self._served_s = record.clock_s
        self._served_since = now = clock.running()
        self._trying_since = None if backoff.failing_for_s is None else now - backoff.failing_for_s

    @property
    def disabled(self) -> bool:
        """Return whether the receiver is gone for good."""
        return self.state == DISABLED

    def clock_s(self) -> float:
        """Return for how long this sink has been served, in all; it stands still while it is disabled."""
        return self._served_s if self.disabled else self._served_s + self._clock.running() - self._served_since

    def backoff(self) -> BackoffState:
        """Return what a restart must not forget."""
        pause_s, since = self.paused_until - self._clock.monotonic(), self._trying_since
        failing_for_s = None if since is None else min(FAILING_AFTER_S, self._clock.running() - since)
        return BackoffState(pause_s if pause_s > 0 else None, failing_for_s)

    def pause(self, pause_s: float) -> None:
        """Note that the receiver asked for a pause. An earlier, longer one stays."""
        self.paused_until = max(self.paused_until, Monotonic(self._clock.monotonic() + pause_s))

    def answered(self, answer: str) -> None:
        """Note what came back. May be called from any thread."""
        self.answer, self._is_through = answer, False

    def tried(self) -> None:
        """Note that something is being tried and has not got through."""
        if self._trying_since is None:
            self._trying_since = self._clock.running()

    def got_through(self) -> None:
        """Note a success. A disabled sink stays disabled: only its configuration or a command ends that."""
        self._trying_since = None
        self._is_through = True
        self.through_at = self._clock.steady_us()
        if self.state == FAILING:
            self.state = None

    def went_on(self) -> None:
        """Note that part of what is being sent got through: the sink works, though nothing is settled yet."""
        self._trying_since = None

    def rested(self) -> None:
        """Note that nothing is left to try: last week's dead letter does not make today's first failure a long one."""
        self._trying_since = None

    def gone(self) -> None:
        """Note that the receiver is gone for good."""
        self._served_s = self.clock_s()
        self.state = DISABLED

    def check(self) -> None:
        """Find the sink failing if it has been for long enough."""
        since = self._trying_since
        if self.state is None and since is not None and self._clock.running() - since >= FAILING_AFTER_S:
            self.state = FAILING
            self.answer = NO_ANSWER if self._is_through else self.answer
