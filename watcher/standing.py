"""How one sink stands: well, failing or disabled, and its own clock. Pure; telling and recording it is the lane's."""

from watcher.attempts import RETRY_AFTER_CAP_S
from watcher.ports.store import SinkRecord, Strain

FAILING = "failing"
DISABLED = "disabled"

FAILING_AFTER_S = 300.0
"""Nothing got through for so long while something was tried (SPEC 5, `sink.failing`)."""


class Standing:
    """The state of a sink as its attempts show it. Moments are monotonic seconds.

    `paused_until` is the end of the pause it asked for last, until an answer shows that the pause is over.
    """

    def __init__(self, record: SinkRecord, *, now: float) -> None:
        """Go on from what is recorded. A pause longer than a receiver can ask for was written by a wrong clock."""
        strain = record.strain
        self.state = record.state
        self.paused_until = None if strain.pause_s is None else now + min(strain.pause_s, RETRY_AFTER_CAP_S)
        self._served_s = record.clock_s
        self._served_since = now
        self._trying_since = None if strain.failing_for_s is None else now - strain.failing_for_s

    @property
    def disabled(self) -> bool:
        """Return whether the receiver wants nothing more."""
        return self.state == DISABLED

    def clock_s(self, now: float) -> float:
        """Return for how long this sink has been served, in all; it stands still while it is disabled."""
        return self._served_s if self.disabled else self._served_s + now - self._served_since

    def strain(self, now: float) -> Strain:
        """Return what a restart must not forget."""
        return Strain(
            None if self.paused_until is None else self.paused_until - now,
            None if self._trying_since is None else min(FAILING_AFTER_S, now - self._trying_since),
        )

    def pause(self, until: float) -> None:
        """Note that the receiver wants a pause."""
        self.paused_until = until if self.paused_until is None else max(until, self.paused_until)

    def answered(self, now: float) -> None:
        """Note an answer that asks for no pause; while one lasts, it belongs to what was sent before."""
        if self.paused_until is not None and now >= self.paused_until:
            self.paused_until = None

    def tried(self, now: float) -> None:
        """Note that something is being tried and has not got through."""
        if self._trying_since is None:
            self._trying_since = now

    def got_through(self) -> None:
        """Note a success. A disabled sink stays disabled: only its configuration or a command ends that."""
        self._trying_since = None
        if self.state == FAILING:
            self.state = None

    def rested(self) -> None:
        """Note that nothing is left to try: last week's dead letter does not make today's first failure a long one."""
        self._trying_since = None

    def gone(self, now: float) -> None:
        """Note that the receiver wants nothing more."""
        self._served_s = self.clock_s(now)
        self.state = DISABLED

    def look(self, now: float) -> None:
        """Find the sink failing if it has been for long enough."""
        if self.state is None and self._trying_since is not None and now - self._trying_since >= FAILING_AFTER_S:
            self.state = FAILING
