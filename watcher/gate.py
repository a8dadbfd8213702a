"""The gate in front of a sink: open, shut until a moment, then open for one, and for all once that one is through."""


class Gate:
    """Says whether one more may go. Moments are monotonic seconds."""

    def __init__(self) -> None:
        """Start open."""
        self._opens_at = float("-inf")
        self._one_first = False
        self._one_is_out = False

    @property
    def opens_at(self) -> float:
        """Return the moment before which nothing goes; in the past means now."""
        return self._opens_at

    def shut(self, until: float) -> None:
        """Let nothing go until then, and one first after that. An earlier wish for longer stays."""
        self._opens_at = max(self._opens_at, until)
        self._one_first = True

    def lets_go(self, now: float) -> bool:
        """Return whether one more may go now."""
        return now >= self._opens_at and not self._one_is_out

    def enter(self) -> bool:
        """Note that one goes; return whether it is the one that goes first."""
        self._one_is_out = self._one_first
        return self._one_is_out

    def leave(self, *, now: float, through: bool) -> None:
        """Note that the one that went first is back. If it got through, and nothing shut the gate since, open it."""
        self._one_is_out = False
        if through and now >= self._opens_at:
            self._one_first = False
