"""Whether work waits for the processor, so that others start less at once. Knows nothing of what that work is."""

SLOW_TURN_S = 0.002
"""A turn of the event loop that takes longer holds up whatever needs many of them."""


class Backpressure:
    """Who has a backlog although nothing but the event loop holds it up: the names in `waiting`."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.waiting: set[str] = set()

    def note(self, name: str, *, has_backlog: bool, turn_s: float) -> None:
        """Note whether somebody has a backlog, and how long a turn of the event loop took (seconds)."""
        if has_backlog and turn_s > SLOW_TURN_S:
            self.waiting.add(name)
        else:
            self.waiting.discard(name)
