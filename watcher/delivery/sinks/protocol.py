"""A sink that is told, as its lane sees it: one attempt, one receipt."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from watcher.domain.models import Delivery


class Verdict(Enum):
    """What an attempt at a delivery means for it."""

    DELIVERED = "delivered"
    RETRY = "retry"
    BUSY = "busy"
    """As `RETRY`, and the whole sink wants a pause for as long as `Retry-After` says, if it does (429)."""
    REFUSED = "refused"
    """The receiver will not take this body (400, 413, 422)."""
    GONE = "gone"
    """The receiver wants nothing more (410)."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to one attempt: the verdict, a word or code for people, and the receiver's `Retry-After` in s."""

    verdict: Verdict
    answer: str
    retry_after_s: float | None = None


class Sink(Protocol):
    """One place events are sent to. A batch has at most `batch_count` deliveries, and at least one."""

    batch_count: int

    async def send(self, batch: Sequence[Delivery]) -> Receipt:
        """Try once, all together. Trouble is a `Receipt`; `OutputClosedError` ends the program."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads."""
        ...
