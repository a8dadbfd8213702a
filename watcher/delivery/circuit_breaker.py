"""The circuit breaker of a sink: whether its failures may be the sink's own, and what is tried meanwhile (SPEC 5).

Pure. It decides when something may be tried; which delivery that is, the worker asks the store.
"""

from collections.abc import Hashable

from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.backoff import doubling

FAILURES_COUNT = 5
DELIVERIES_COUNT = 2
"""So many failures in a row, of so many deliveries at least, and it opens: one alone may be to blame for its own."""

WAIT_S = 1.0
WAIT_CAP_S = 30.0
NEVER_TRIED_EVERY_S = 1.0


class CircuitBreaker:
    """Open while a sink takes nothing. Moments are monotonic seconds.

    While it is open one delivery at a time is tried, and `is_trying` meanwhile. A restart forgets it.
    """

    def __init__(self, *, opens: bool = True) -> None:
        """Start closed; one that never `opens` stays so."""
        self.is_trying = False
        self._opens = opens
        self._failures_count = 0
        self._failed: set[Hashable] = set()  # which deliveries, as many as are needed to open it
        self._asked_s = 0.0
        self._waits_count = 0
        self._tried_from = EARLIEST
        self._never_tried_from = EARLIEST

    @property
    def is_open(self) -> bool:
        """Whether what is due has to wait."""
        return self._waits_count > 0

    def opens_at(self, *, never_tried: bool) -> Monotonic:
        """Return the moment from which a delivery may be tried that never was, or one that was."""
        return self._never_tried_from if never_tried else self._tried_from

    def trial_begins(self, *, never_tried: bool, now: Monotonic) -> None:
        """Note that a delivery is tried while it is open."""
        self.is_trying = True
        if never_tried:
            self._never_tried_from = Monotonic(now + NEVER_TRIED_EVERY_S)

    def trial_ends(self) -> None:
        """Note that its answer is there, or will never be."""
        self.is_trying = False

    def failed(self, delivery: Hashable, *, now: Monotonic, retry_after_s: float, waited: bool) -> None:
        """Note a failure. `waited` says it is that of a trial which had to wait, so that the next waits longer.

        `retry_after_s` is what the answer asked for, 0 if nothing.
        """
        self._failures_count += 1
        self._asked_s = max(self._asked_s, retry_after_s)
        if len(self._failed) < DELIVERIES_COUNT:
            self._failed.add(delivery)
        is_row = self._failures_count >= FAILURES_COUNT and len(self._failed) >= DELIVERIES_COUNT
        if (waited and self.is_open) or (is_row and self._opens and not self.is_open):
            self._waits_count += 1
            wait_s = doubling(self._waits_count, base_s=WAIT_S, cap_s=WAIT_CAP_S)
            self._tried_from = Monotonic(now + max(wait_s, self._asked_s))

    def works(self) -> None:
        """Close: the sink took something, or refused a body, which shows that it works."""
        self._failures_count, self._waits_count, self._asked_s = 0, 0, 0.0
        self._failed.clear()
