"""What takes several requests: each waits for its slot, and the next attempt goes on behind what was taken."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import UUID

import structlog

from watcher.delivery.sinks.protocol import RETRY_AFTER_CAP_S, SendOutcome, SendResult, retry_after_s
from watcher.domain.delivery import Delivery, ProblemMessage
from watcher.domain.errors import LeaseExpiredError, OutputClosedError

TAKEN = frozenset({SendOutcome.DELIVERED, SendOutcome.ACCEPTED})
"""What became of a request that the receiver took."""

TAKEN_COUNT = 1000
"""Of so many deliveries and groups that were taken in part it is remembered; any other begins anew, under its ids."""

AT_ONCE_COUNT = 16
"""Of so many events, a few milliseconds' work, messages are made at once."""

Item = TypeVar("Item")
Made = TypeVar("Made")

log = structlog.get_logger()


def crashed(delivery: Delivery, error: Exception) -> SendResult:
    """Log a bug met in sending; return that it is to be tried again: it must not stop the other deliveries."""
    name = type(error).__name__  # texts may hold secrets
    log.error("delivery.crashed", sink=delivery.sink, event_id=str(delivery.event_id), type=delivery.type, error=name)
    return SendResult(SendOutcome.RETRY, "error")


async def make_messages(make: Callable[[Sequence[Item]], Made], items: Sequence[Item]) -> Made:
    """Return the messages for these items. Those for many are made in a thread: the event loop has others to serve."""
    return make(items) if len(items) <= AT_ONCE_COUNT else await asyncio.to_thread(make, items)


class RequestSlots:
    """The slots of the requests of one attempt, which go one after the other. The worker has taken the first."""

    def __init__(self, take_slot: Callable[[], float]) -> None:
        """Take none yet."""
        self._take_slot = take_slot
        self._is_first = True
        self._pause_s = 0.0

    def heed(self, result: SendResult) -> None:
        """Note for how long the receiver wants nothing more, as it said with the last one."""
        self._pause_s = max(retry_after_s(result), min(result.pause_s, RETRY_AFTER_CAP_S))

    async def wait(self) -> None:
        """Return once the next request may go."""
        if not self._is_first:
            await asyncio.sleep(max(self._take_slot(), self._pause_s))
        self._is_first = False


@dataclass(frozen=True, slots=True)
class _Taken:
    """How many parts of a delivery or a group were taken, and what has become of them: the least of it."""

    count: int = 0
    result: SendResult | None = None
    messages: tuple[ProblemMessage, ...] = ()

    def and_one(self, result: SendResult) -> "_Taken":
        is_less = self.result is None or self.result.outcome is not SendOutcome.ACCEPTED
        least = result if is_less else self.result
        return _Taken(self.count + 1, least, (*self.messages, *result.messages))


class TakenParts:
    """What was taken so far of deliveries and groups that are sent in parts."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._taken: dict[UUID, _Taken] = {}  # of what was taken in part, the oldest first

    async def send(
        self, batch: Sequence[Delivery], parts: Sequence[Item], send: Callable[[Item], Awaitable[SendResult]]
    ) -> SendResult:
        """Send all parts in their order; the first that is not taken ends it. There must be as many at each attempt.

        The next attempt goes on behind what was taken: of a large group no attempt may get all through. A part that
        raises is not taken, and what is known of the messages before it is kept.
        """
        key = batch[0].group_id or batch[0].event_id
        if batch[0].replayed and not batch[0].attempts:  # a replay begins anew
            self._taken.pop(key, None)
        taken = self._taken.get(key, _Taken())
        for part in parts[taken.count :]:
            try:
                result = await send(part)
            except (OutputClosedError, LeaseExpiredError):
                raise
            except Exception as error:  # noqa: BLE001 (as for a whole delivery)
                result = crashed(batch[0], error)
            if result.outcome not in TAKEN:
                if result.outcome is SendOutcome.REFUSED and not result.minimal_left:  # it goes on in halves
                    self._taken.pop(key, None)
                return replace(result, messages=(*taken.messages, *result.messages))
            taken = taken.and_one(result)
            self._remember(key, taken)  # now, for the next part may be cancelled
        self._taken.pop(key, None)
        assert taken.result is not None
        return replace(taken.result, messages=taken.messages)

    def _remember(self, key: UUID, taken: _Taken) -> None:
        self._taken[key] = taken
        if len(self._taken) > TAKEN_COUNT:  # such as those that died since
            del self._taken[next(iter(self._taken))]
