"""The interface between a sink and its delivery worker: one attempt, one result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from watcher.domain.delivery import Delivery, ProblemMessage
from watcher.domain.problems import SentOpening
from watcher.domain.routing import GroupRules, IncidentRules
from watcher.runtime.clock import Clock
from watcher.sinks.output import StdoutOutput


class SendOutcome(Enum):
    """The outcome of one attempt. The receiver has the delivery if the outcome `is_taken`."""

    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    """The receiver took it and has yet to show it (202)."""
    RETRY = "retry"
    BUSY = "busy"
    """As `RETRY`, and nothing may be sent to the sink for the time of `Retry-After`, if there is one (429)."""
    REFUSED = "refused"
    """The receiver will not take this body (400, 413, 422)."""
    GONE = "gone"
    """The receiver is gone for good (410)."""

    def __init__(self, value: str) -> None:
        self.is_taken = value in {"delivered", "accepted"}


RETRY_AFTER_CAP_S = 3600.0
"""The longest time for which a receiver is left alone, whatever it asks for."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """The answer to one attempt."""

    outcome: SendOutcome
    answer: str
    """A word or code for people."""
    retry_after_s: float = 0.0
    remedy: str = ""
    """The action that a person has to take, where it is known."""
    messages: tuple[ProblemMessage, ...] = ()
    """The places of problems' messages at the receiver, which are stored whatever the outcome."""
    minimal_left: bool = False
    """Whether a refused message has a minimal form, which the next attempt sends."""


GROUP_COUNT = 10_000
"""The most events that are sent together."""


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """The rules by which a worker sends to its sink."""

    schedule_s: tuple[float, ...]
    """The wait after each failure in a row; the last one repeats."""
    give_up_after_s: float | None
    """The time after which a delivery becomes a dead letter; `None`: never."""
    rate_per_s: float
    """The rate limit; infinity is none."""
    breaks: bool = True
    """Whether failures may open the circuit breaker."""
    group: GroupRules | None = None
    """The rules of grouping; `None`: each delivery goes alone."""
    incidents: IncidentRules | None = None
    """The rules by which problems become incidents; `None`: they do not."""
    after_s: float = 0.0
    """The wait of an opening. It goes only if its problem is still open then, and not acknowledged."""
    remind_every_s: float | None = None
    keeps_messages: bool = False
    """Whether each delivery is given the place of its problem's message at the receiver."""

    @property
    def opening_wait_s(self) -> float:
        """The wait of an opening from its recording."""
        return max(self.after_s, self.incidents.wait_s if self.incidents else 0.0)


@dataclass(frozen=True, slots=True)
class SinkContext:
    """The dependencies of a sink.

    Where one delivery takes several requests, the sink calls `take_slot` before each further one and waits for the
    seconds that it returns. `check` is called right before each request goes out; what it raises comes out of `send` or
    `refresh`, and that request was not sent. Only a sink on stdout needs an `output`. Messages link to the watcher's
    own pages at `public_url`, if there is one.
    """

    clock: Clock
    output: StdoutOutput | None = None
    take_slot: Callable[[], float] = lambda: 0.0
    check: Callable[[], None] = lambda: None
    public_url: str = ""


class Sink:
    """A place that events are sent to.

    A batch has at most `batch_count` deliveries, or is one group, and is never empty. Open problems are refreshed every
    `refresh_every_s` at a receiver that forgets them; `None`: never. A receiver that `keeps_state` has an incident, an
    alert or a message that lasts until its problem is closed.
    """

    batch_count: int = 1
    refresh_every_s: float | None = None
    keeps_state: bool = False

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Send all of them once. A failure is a `SendResult`, but `OutputClosedError`, which ends the program."""
        raise NotImplementedError

    async def refresh(self, openings: Sequence[SentOpening]) -> SendResult:
        """Send once that these problems are still open, or closed. A failure is a `SendResult`."""
        raise AssertionError("it never asks for this")

    async def close(self) -> None:
        """Close connections and end threads, if it has any."""
