"""The store as the worker of a sink uses it beside the ordinary: groups, silences, reminders; and its dead letters."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from watcher.domain.delivery import Delivery, DeliveryState, ProblemMessage
from watcher.domain.event import EventKey
from watcher.domain.problems import Problem
from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease
from watcher.store.protocol import Store
from watcher.store.records import DueDeliveries


class GroupPosition(NamedTuple):
    """A place in the order in which deliveries come due."""

    due_at: Micros
    recorded_at: Micros
    stream: bytes
    sequence: int


BEGINNING = GroupPosition(Micros(-1), Micros(-1), b"", 0)
"""Before all deliveries."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A delivery that may join a group. `earlier` is the sequence of the last of its stream that waits before it."""

    delivery: Delivery
    earlier: int | None


@dataclass(frozen=True, slots=True)
class SentOpening:
    """A problem whose opening event, with this body, the sink took, and when it was reminded of it.

    `closed_at` is the wall clock, the others microseconds UTC, steady.
    """

    problem: Problem
    body: bytes
    recorded_at: Micros
    settled_at: Micros
    reminded_at: Micros | None
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Opening:
    """The event that opened a problem, and how its delivery to one sink stands: `due_at` if it waits (µs UTC, steady).

    `state` is `None` if it did not go there. What is silenced and `tried` an earlier owner may have sent.
    """

    event: EventKey
    state: DeliveryState | None
    due_at: Micros | None
    is_open: bool
    tried: bool

    @property
    def is_kept_back(self) -> bool:
        """Return whether the sink certainly does not know of it, for a silence kept it back."""
        return self.state is DeliveryState.SILENCED and not self.tried


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery that was given up, when (microseconds UTC, steady), and the last answer to it."""

    event: EventKey
    event_id: UUID
    type: str
    died_at: Micros
    attempts: int
    answer: str | None


class SinkStore(Store, Protocol):
    """All of a store. The rules of `Store` hold."""

    async def ungrouped(self, lease: Lease, *, now: Micros, after: GroupPosition, limit: int) -> Sequence[Candidate]:
        """Return what of the leased sink is due after that position, was never tried and is in no group yet."""
        ...

    async def fix_groups(self, lease: Lease, groups: Collection[tuple[UUID, Collection[EventKey]]]) -> None:
        """Have these go together from now on, as far as they wait and are in no group."""
        ...

    async def next_groups(
        self, lease: Lease, *, now: Micros, limit: int, skip: Collection[bytes] = ()
    ) -> DueDeliveries:
        """Return what stands for each group that may be sent, leaving out the groups and streams in `skip`.

        What was tried before its sink had groups is a group of its own, and has no `group_id`.
        """
        ...

    async def next_group_trial(
        self, lease: Lease, *, now: Micros, skip: Collection[bytes] = (), never_tried: bool = False
    ) -> Delivery | None:
        """Return what stands for the group that is to show whether the leased sink works again, as `next_trial`."""
        ...

    async def group_members(self, lease: Lease, group_id: UUID) -> Sequence[Delivery]:
        """Return all that waits in a group of the leased sink, in the order it was recorded."""
        ...

    async def silence(self, lease: Lease, events: Collection[EventKey], *, now: Micros, owned_from: Micros) -> None:
        """Settle as silenced what waits of these for the leased sink, which is served under this lease since then.

        What was recorded before that counts as tried: whoever served it may have been killed while sending it.
        """
        ...

    async def silenced_openings(self, lease: Lease) -> Sequence[Delivery]:
        """Return the openings of open problems that a silence kept from the leased sink."""
        ...

    async def release_silenced(self, lease: Lease, events: Collection[EventKey], *, now: Micros) -> None:
        """Have what was silenced of these wait again."""
        ...

    async def sent_openings(self, lease: Lease, *, closed_from: datetime | None = None) -> Sequence[SentOpening]:
        """Return the open problems whose opening the leased sink took, and those closed since that moment, if given."""
        ...

    async def openings(self, lease: Lease, problem_ids: Collection[UUID]) -> Mapping[UUID, Opening]:
        """Return how the openings of these problems stand at the leased sink, without problems that are not there."""
        ...

    async def messages_of_problems(self, lease: Lease, problem_ids: Collection[UUID]) -> Mapping[UUID, ProblemMessage]:
        """Return the messages of these problems in the leased sink, of those that have one."""
        ...

    async def messages_of_failing(
        self, lease: Lease, pipelines: Collection[tuple[str, str]]
    ) -> Mapping[tuple[str, str], ProblemMessage]:
        """Return the leased sink's messages of open `pipeline.failing` problems of these, by account and pipeline."""
        ...

    async def put_off(self, lease: Lease, due_at: Mapping[EventKey, Micros]) -> None:
        """Have what waits of these for the leased sink come due at those times."""
        ...

    async def dead_letters(
        self, sink: str, *, after: tuple[Micros, EventKey] | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Return a page of a sink's dead letters, the oldest death first; `after` is the last one's death and event."""
        ...

    async def count_dead_letters(self) -> Mapping[str, int]:
        """Return how many dead letters there are, by sink."""
        ...

    async def replay(self, sink: str, event: EventKey) -> bool:
        """Have a dead letter wait again. Return `False`, with nothing changed, if it is none: it may wait already."""
        ...

    async def replay_all(self, sink: str) -> int:
        """Have all dead letters of a sink wait again; return how many."""
        ...
