"""What takes several requests: each waits for its slot, and the next attempt goes on behind what was taken."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from watcher.domain.delivery import Delivery, ProblemMessage
from watcher.sinks.protocol import SendOutcome, SendResult

TAKEN = frozenset({SendOutcome.DELIVERED, SendOutcome.ACCEPTED})
"""What became of a request that the receiver took."""

TAKEN_COUNT = 1000
"""Of so many deliveries and groups that were taken in part it is remembered; any other begins anew, under its ids."""

AT_ONCE_COUNT = 16
"""Of so many events, a few milliseconds' work, messages are made at once."""

Item = TypeVar("Item")
Made = TypeVar("Made")


async def make_messages(make: Callable[[Sequence[Item]], Made], items: Sequence[Item]) -> Made:
    """Return the messages for these items. Those for many are made in a thread: the event loop has others to serve."""
    return make(items) if len(items) <= AT_ONCE_COUNT else await asyncio.to_thread(make, items)


class RequestSlots:
    """The slots of the requests of one attempt, which go one after the other. The worker has taken the first."""

    def __init__(self, take_slot: Callable[[], float]) -> None:
        """Take none yet."""
        self._take_slot = take_slot
        self._is_first = True

    async def wait(self) -> None:
        """Return once the next request may go."""
        if not self._is_first:
            await asyncio.sleep(self._take_slot())
        self._is_first = False


class TakenParts:
    """What was taken so far of deliveries and groups that are sent in parts."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._taken: dict[UUID, list[SendResult]] = {}  # of each part, the oldest delivery first

    async def send(
        self, batch: Sequence[Delivery], parts: Sequence[Item], send: Callable[[Item], Awaitable[SendResult]]
    ) -> SendResult:
        """Send all parts in their order; the first that is not taken ends it. There must be as many at each attempt.

        The next attempt goes on behind what was taken: of a large group no attempt may get all through. So it does
        after a part that raised or was cancelled.
        """
        key = batch[0].event_id
        if batch[0].replayed and not batch[0].attempts:  # a replay begins anew
            self._taken.pop(key, None)
        taken = self._taken.get(key, [])
        for part in parts[len(taken) :]:
            result = await send(part)
            if result.outcome not in TAKEN:
                if result.outcome is SendOutcome.REFUSED and not result.minimal_left:  # it goes on in halves
                    self._taken.pop(key, None)
                return replace(result, messages=_messages_of([*taken, result]))
            taken.append(result)
            self._taken[key] = taken
            if len(self._taken) > TAKEN_COUNT:  # such as those that died since
                del self._taken[next(iter(self._taken))]
        self._taken.pop(key, None)
        return replace(taken[-1], messages=_messages_of(taken))


def _messages_of(results: Sequence[SendResult]) -> tuple[ProblemMessage, ...]:
    return tuple(message for result in results for message in result.messages)
