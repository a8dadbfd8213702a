"""A sink, as its worker sees it: one attempt, one result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from watcher.domain.delivery import Delivery, ProblemMessage
from watcher.domain.problems import SentOpening
from watcher.domain.routing import GroupRules, IncidentRules
from watcher.runtime.clock import Clock
from watcher.sinks.output import StdoutOutput


class SendOutcome(Enum):
    """What an attempt at a delivery means for it."""

    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    """The receiver took it and has yet to show it (202)."""
    RETRY = "retry"
    BUSY = "busy"
    """As `RETRY`, and nothing may be sent to the sink for as long as `Retry-After` says, if it does (429)."""
    REFUSED = "refused"
    """The receiver will not take this body (400, 413, 422)."""
    GONE = "gone"
    """The receiver is gone for good (410)."""


RETRY_AFTER_CAP_S = 3600.0
"""No receiver is left alone for longer, whatever it asks for."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """The answer to one attempt: the outcome, a word or code for people, and for how long it asked to be left alone.

    `remedy` says what a person has to do, where that is known. `messages` are where messages of problems are now,
    whatever the outcome; they are kept with it. `minimal_left` says of a refusal that the message has a minimal form,
    which the next attempt sends.
    """

    outcome: SendOutcome
    answer: str
    retry_after_s: float = 0.0
    remedy: str = ""
    messages: tuple[ProblemMessage, ...] = ()
    minimal_left: bool = False

    @property
    def is_taken(self) -> bool:
        """Whether the receiver has it."""
        return self.outcome in {SendOutcome.DELIVERED, SendOutcome.ACCEPTED}


GROUP_COUNT = 10_000
"""Events that are sent together at most."""


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """How to send to a sink, and when to try again.

    `schedule_s` has the wait after each failure, the last one repeating, until a delivery is given up (`None`: never).
    A rate of infinity is no limit; with `breaks` failures may open its circuit breaker. Without a `group` each delivery
    goes alone. With `incidents` problems are sent as incidents. What opens a problem waits `after_s` first, and goes
    only if the problem is still open then, and nobody has acknowledged it. A sink is reminded of open problems every
    `remind_every_s`, if ever. One that `keeps_messages` learns with each delivery where the message of its problem is.
    """

    schedule_s: tuple[float, ...]
    give_up_after_s: float | None
    rate_per_s: float
    breaks: bool = True
    group: GroupRules | None = None
    incidents: IncidentRules | None = None
    after_s: float = 0.0
    remind_every_s: float | None = None
    keeps_messages: bool = False

    @property
    def opening_wait_s(self) -> float:
        """Return how long an opening waits from its recording."""
        return max(self.after_s, self.incidents.wait_s if self.incidents else 0.0)


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink may work with.

    Where one delivery takes several requests, it calls `take_slot` before each further one, and waits for as many
    seconds as that returns. Without an `output` only what sends elsewhere can be opened. That calls `check` right
    before each request goes out; what it raises comes out of `send` or `refresh`, and that request was not sent.
    Messages link to our own pages at `public_url`, if there is one.
    """

    clock: Clock
    output: StdoutOutput | None = None
    take_slot: Callable[[], float] = lambda: 0.0
    check: Callable[[], None] = lambda: None
    public_url: str = ""


class Sink:
    """One place events are sent to. A batch has at most `batch_count` deliveries, or is one group, and is never empty.

    One that has to hear of open problems again and again asks for that every `refresh_every_s`; `None`: never. A
    receiver that `keeps_state` has something that lasts until a problem is closed: an incident, an alert or a message.
    """

    batch_count: int = 1
    refresh_every_s: float | None = None
    keeps_state: bool = False

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Try once, all together. Trouble is a `SendResult`; `OutputClosedError` ends the program."""
        raise NotImplementedError

    async def refresh(self, openings: Sequence[SentOpening]) -> SendResult:
        """Say once that these problems are still open, or closed. Trouble is a `SendResult`."""
        raise AssertionError("it never asks for this")

    async def close(self) -> None:
        """Let go of connections and threads, if it has any."""
