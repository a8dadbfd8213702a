"""What can go wrong with an answer, and when it does: by chance, or in a window of time. Knows no HTTP."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random


class Fault(StrEnum):
    """One way to misbehave."""

    RATE_LIMITED = "rate_limited"
    """429 without a word on when to come back."""
    RATE_LIMITED_SECONDS = "rate_limited_seconds"
    """429 with `Retry-After` in seconds."""
    RATE_LIMITED_DATE = "rate_limited_date"
    """429 with `Retry-After` as an HTTP date."""
    SERVER_ERROR = "server_error"
    """500 with JSON."""
    BAD_GATEWAY = "bad_gateway"
    """502 with a proxy's HTML."""
    UNAVAILABLE = "unavailable"
    """503 with `Retry-After` in seconds and no body."""
    GATEWAY_TIMEOUT = "gateway_timeout"
    """504 with a proxy's HTML."""
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    BAD_REQUEST = "bad_request"
    REDIRECT = "redirect"
    """302 to a path of this server, where the request log shows who followed."""
    HTML = "html"
    """200 with a page for people."""
    TRUNCATED = "truncated"
    """A whole HTTP answer with half of the JSON."""
    WRONG_EXECUTION = "wrong_execution"
    """The answer about another execution."""
    SLOW = "slow"
    """The right answer after `slow_s`."""
    DRIP = "drip"
    """The right answer, a sixteenth at a time over `slow_s`."""
    HANG = "hang"
    """No answer until the client leaves."""
    RESET = "reset"
    """A TCP reset instead of an answer."""
    DROPPED = "dropped"
    """The connection closes in the middle of the body."""
    OVERSIZE = "oversize"
    """The right answer and more than 8 MiB of blanks, of unannounced length."""
    BOMB = "bomb"
    """The same, deflated to a few kilobytes."""


class Total(StrEnum):
    """What a list says its `total` is, other than the truth."""

    NULL = "null"
    MISSING = "missing"
    ZERO = "zero"
    PAGE = "page"
    """The rows of this page alone."""
    HALF = "half"
    DOUBLE = "double"


@dataclass(frozen=True, slots=True)
class Window:
    """A time, in seconds of the world, in which answers have the same fault.

    All of them, or those about `execution`, or those of `endpoint` (`get` or `list`).
    """

    fault: Fault
    from_s: float = 0.0
    until_s: float = math.inf
    execution: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Faults:
    """How to misbehave. `odds` are probabilities per answer and add up to at most 1; windows go before them.

    `total` is what lists lie about their length.
    """

    odds: Mapping[Fault, float] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    retry_after_s: int = 2
    slow_s: float = 3.0
    total: Total | None = None


class Dice:
    """Decides, answer by answer, what goes wrong; the same seed decides the same."""

    def __init__(self, faults: Faults, *, seed: int) -> None:
        """Begin a new row of throws."""
        self.faults = faults
        self._random = Random(f"{seed}/dice")

    def throw(self, now_s: float, *, execution: str | None, endpoint: str) -> Fault | None:
        """Return what goes wrong with an answer at `now_s`, if anything does."""
        for window in self.faults.windows:
            is_meant = window.execution in {None, execution} and window.endpoint in {None, endpoint}
            if is_meant and window.from_s <= now_s < window.until_s:
                return window.fault
        left = self._random.random() if self.faults.odds else 0.0
        for fault, odds in self.faults.odds.items():
            left -= odds
            if left < 0:
                return fault
        return None
