"""The pacer of one key or sink: when may the next request go."""

from watcher.domain.timestamps import Monotonic

SHARE = 0.98
"""The part of a rate that is used."""

LATENESS_S = 0.02
"""How late a timer may wake and still have its slots: above this, unused time is lost.

In any second at most 0.98 rate + 0.02 rate + 1 requests leave, which keeps rate x 1.05 + 2 even when the network
bunches a few of them.
"""


class Pacer:
    """Spaces requests evenly at 98 % of a rate; time that goes unused is lost, so there is never a burst.

    `ready_at` is the monotonic moment from which the next request may go; in the past means now.
    """

    def __init__(self, rate_per_s: float, *, now: Monotonic) -> None:
        """Start with the first request one gap from `now`: an earlier life may have sent one a moment ago."""
        self._gap_s = 1 / (rate_per_s * SHARE)
        self.ready_at = Monotonic(now + self._gap_s)

    def spend(self, now: Monotonic) -> Monotonic:
        """Take the slot of a request that goes out at `now` (monotonic seconds); return it for `give_back`."""
        self.ready_at = Monotonic(max(self.ready_at, now - LATENESS_S) + self._gap_s)
        return self.ready_at

    def give_back(self, slot: Monotonic) -> None:
        """Let go of a slot that nothing went out in, unless one was taken since: that one is spaced from it."""
        if self.ready_at == slot:
            self.ready_at = Monotonic(slot - self._gap_s)
