"""A sink, as its worker sees it: one attempt, one result."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from watcher.domain.models import Delivery
from watcher.runtime.clock import Clock


class SendOutcome(Enum):
    """What an attempt at a delivery means for it."""

    DELIVERED = "delivered"
    RETRY = "retry"
    BUSY = "busy"
    """As `RETRY`, and nothing may be sent to the sink for as long as `Retry-After` says, if it does (429)."""
    REFUSED = "refused"
    """The receiver will not take this body (400, 413, 422)."""
    GONE = "gone"
    """The receiver is gone for good (410)."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """The answer to one attempt: the outcome, a word or code for people, and the receiver's `Retry-After` in s."""

    outcome: SendOutcome
    answer: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When to try again: the wait after each step, the last one repeating, and when to stop (`None`: never)."""

    schedule_s: tuple[float, ...]
    give_up_after_s: float | None


@dataclass(frozen=True, slots=True)
class WorkerRules:
    """How to send to a sink. A rate of infinity is no limit; with `breaks` failures may open its circuit breaker."""

    retry: RetryRules
    rate_per_s: float
    breaks: bool = True


class Output(Protocol):
    """The program's own output, which all sinks that write to it share. `fd` is its file descriptor."""

    fd: int

    @property
    def is_terminal(self) -> bool:
        """Whether people read it."""
        ...

    async def write(self, lines: Iterable[bytes], *, sink: str, retried: Callable[[str], None]) -> None:
        """Return once the lines are written in full. Raises `OutputClosedError` if nobody will ever read them.

        Where making them takes long, they are made one by one in the thread that writes.
        """
        ...


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What a sink may work with. It calls `retried`, from any thread, with why it tries again by itself.

    Without an `output` only what sends elsewhere can be opened.
    """

    clock: Clock
    output: Output | None = None
    retried: Callable[[str], None] = lambda _why: None


class Sink(Protocol):
    """One place events are sent to. A batch has at most `batch_count` deliveries, and at least one."""

    batch_count: int

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Try once, all together. Trouble is a `SendResult`; `OutputClosedError` ends the program."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...
