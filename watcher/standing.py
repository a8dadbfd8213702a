"""How one sink stands: well, failing or disabled, and its own clock. Pure; telling and recording it is the lane's."""

from watcher.ports import SinkRecord

FAILING = "failing"
DISABLED = "disabled"

FAILING_AFTER_S = 300.0
"""Nothing got through for so long while something was tried (SPEC 5, `sink.failing`)."""


class Standing:
    """The state of a sink as its attempts show it. Moments are monotonic seconds."""

    def __init__(self, record: SinkRecord, *, now: float) -> None:
        """Go on from what is recorded."""
        self.state = record.state
        self._served_s = record.clock_s
        self._served_since = now
        self._trying_since: float | None = None

    @property
    def disabled(self) -> bool:
        """Return whether the receiver wants nothing more."""
        return self.state == DISABLED

    def clock_s(self, now: float) -> float:
        """Return for how long this sink has been served, in all; it stands still while it is disabled."""
        return self._served_s if self.disabled else self._served_s + now - self._served_since

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
