"""The interface between a sink and its delivery worker: one attempt, one result."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from watcher.domain.delivery import Delivery, ProblemMessage
from watcher.domain.problems import Press, SentOpening
from watcher.domain.routing import GroupRules, IncidentRules
from watcher.runtime.clock import Clock
from watcher.sinks.output import StdoutOutput


class SendOutcome(Enum):
    """The outcome of one attempt. The receiver has the delivery if the outcome `is_taken`."""

    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    """The receiver took the delivery, but has not shown it yet (202)."""
    RETRY = "retry"
    BUSY = "busy"
    """As `RETRY`, and the whole sink sends nothing for `retry_after_s` (429)."""
    REFUSED = "refused"
    """The receiver will not take this body (400, 413, 422)."""
    GONE = "gone"
    """The receiver is gone for good (410)."""

    def __init__(self, value: str) -> None:
        self.is_taken = value in {"delivered", "accepted"}


RETRY_AFTER_CAP_S = 3600.0
"""The longest wait that a receiver's `Retry-After` may cause."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """The result of one attempt."""

    outcome: SendOutcome
    answer: str
    """The answer as a word or a code, for people."""
    retry_after_s: float = 0.0
    remedy: str = ""
    """The action that a person should take, or an empty text."""
    messages: tuple[ProblemMessage, ...] = ()
    """The changed places of problems' messages at the receiver. The places are stored whatever the outcome."""
    minimal_left: bool = False
    """Whether the next attempt sends the refused message in its minimal form."""


GROUP_COUNT = 10_000
"""The most events in one group."""


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """The rules by which a worker sends to its sink."""

    schedule_s: tuple[float, ...]
    """The waits after the first failure of a delivery, the second, and so on. The last wait repeats."""
    give_up_after_s: float | None
    """The time from when a delivery is first due until it becomes a dead letter; `None`: never."""
    rate_per_s: float
    """The most requests per second; infinity: no limit."""
    breaks: bool = True
    """Whether failures may open the circuit breaker."""
    group: GroupRules | None = None
    """The rules of grouping; `None`: nothing is grouped."""
    problem_group: GroupRules | None = None
    """The rules of grouping for the openings, acknowledgements and closings of problems, at chats and mail."""
    covers: bool = False
    """Whether an open `pipeline.failing` that the sink was sent covers the single failures of its pipeline."""
    incidents: IncidentRules | None = None
    """The rules by which problems are joined to incidents; `None`: the sink has no incidents."""
    after_s: float = 0.0
    """The wait of an opening. The opening is sent only if its problem is still open then, and not acknowledged."""
    remind_every_s: float | None = None
    keeps_messages: bool = False
    """Whether deliveries come with the place of their problem's message at the receiver."""

    @property
    def group_wait_s(self) -> float:
        """Return the time that an event of a group waits at least, from its recording."""
        return min((rules.wait_s for rules in (self.group, self.problem_group) if rules is not None), default=0.0)

    @property
    def opening_wait_s(self) -> float:
        """Return the time that an opening waits, from its recording."""
        return max(self.after_s, self.incidents.wait_s if self.incidents else 0.0)


@dataclass(frozen=True, slots=True)
class SinkContext:
    """The dependencies of a sink.

    If a delivery takes several requests, the sink calls `take_slot` before each one but the first, and waits for the
    returned seconds. `before_request` is called right before each request. If it raises an error, the request is not
    sent, and `send` or `refresh` raises the same error. Only a stdout sink needs `output`. `public_url` is the address
    of the watcher's own pages, for links in messages; if it is empty, there are no such links.

    `press` records the press of a button and returns the answer for the presser: empty if the press is done, `None` if
    it must come again. It raises `StoreError`. Without `press` there are no buttons. `name` is that of the sink.
    """

    clock: Clock
    output: StdoutOutput | None = None
    take_slot: Callable[[], float] = lambda: 0.0
    before_request: Callable[[], None] = lambda: None
    public_url: str = ""
    press: Callable[[Press], Awaitable[str | None]] | None = None
    name: str = ""


class Sink:
    """The base class of sinks. A sink sends deliveries to one receiver.

    A batch is one group or at most `batch_count` deliveries, and is never empty. `refresh_every_s` is the time between
    refreshes of open problems at a receiver that forgets them; `None`: there are no refreshes. `keeps_state` says that
    the receiver shows a problem, as an incident, an alert or a message, until its closing arrives.
    """

    batch_count: int = 1
    trouble: str = ""
    """The reason, in a few words, why something other than sending does not work. It opens no problem."""
    refresh_every_s: float | None = None
    keeps_state: bool = False

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Send the batch once. A failure is a `SendResult`. Raises `OutputClosedError` if stdout is closed for good."""
        raise NotImplementedError

    async def refresh(self, openings: Sequence[SentOpening]) -> SendResult:
        """Send the state of these problems once more, whether open or closed. A failure is a `SendResult`."""
        raise AssertionError("it never asks for this")

    async def close(self) -> None:
        """Close the connections and end the threads of the sink, if it has any."""
