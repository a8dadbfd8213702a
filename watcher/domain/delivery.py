"""Deliveries: an event on its way to a sink. Frozen values."""

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple
from uuid import UUID

from watcher.domain.event import EventKey
from watcher.domain.event_size import Json
from watcher.domain.timestamps import NEVER, Micros


class DeliveryState(StrEnum):
    """Where a delivery stands. Everything but `waiting` is settled."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    """The receiver took it and has yet to show it (202)."""
    SILENCED = "silenced"
    DEAD = "dead"


TAKEN = frozenset({DeliveryState.DELIVERED, DeliveryState.ACCEPTED})
"""The receiver has it."""


class Part(StrEnum):
    """How much of an event a sink is to hear."""

    WHOLE = "whole"
    CLOSING = "closing"
    """Only that its problem is closed: a silence keeps back the rest."""
    NEWS = "news"
    """Only the event itself: the sink was not sent the opening of the problem that it closes."""


class MessagePlace(NamedTuple):
    """Where a message is that a receiver took: in which channel, and its number there, in the receiver's words."""

    channel: str
    number: str


@dataclass(frozen=True, slots=True)
class ProblemMessage:
    """The message of a problem in a sink, which is updated and answered: `place` is `None` once it is gone.

    `opening` is the body of the event that opened the problem, as far as that is there still.
    """

    problem: UUID
    place: MessagePlace | None
    opening: bytes | None = None


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one sink.

    `recorded_at`, `due_at` and `tried_at`, when the last attempt ended (0: never tried), are microseconds UTC on the
    steady clock. `first_due_at_s` is the reading of the sink's own clock (seconds during which the sink was served)
    when it was first due, as far as that was noted. Of its `attempts` it took `steps` of its schedule, for the trouble
    was its own; `rejections` counts the answers in a row that said the body itself is unacceptable. Deliveries of one
    `group_id` are sent together; of the first, which stands for them all, `group_count` says how many. `replayed` marks
    what was a dead letter and is sent again. `part` says how much of the event the sink is to hear.
    Of a sink that keeps messages, `message` is that of the event's own problem, `thread` that of the problem that its
    pipeline keeps failing, in whose thread a single failure belongs.
    """

    sink: str
    event_id: UUID
    type: str
    stream: bytes
    sequence: int
    body: bytes
    recorded_at: Micros
    due_at: Micros
    attempts: int = 0
    steps: int = 0
    rejections: int = 0
    tried_at: Micros = NEVER
    first_due_at_s: float | None = None
    group_id: UUID | None = None
    group_count: int = 1
    replayed: bool = False
    part: Part = Part.WHOLE
    message: ProblemMessage | None = None
    thread: ProblemMessage | None = None

    @property
    def event(self) -> EventKey:
        """Return which event it carries."""
        return EventKey(self.stream, self.sequence)

    @cached_property
    def content(self) -> Json:
        """The event, read from its body once for all who look into it: they change nothing of it."""
        return json.loads(self.body)  # type: ignore[no-any-return] # an event is an object

    @property
    def data(self) -> Json:
        """What the event says."""
        return self.content.get("data", {})  # type: ignore[no-any-return] # so is its data

    def but(self, **fields: Any) -> "Delivery":
        """Return it with other values of these fields. What was read from its body is shared."""
        other = replace(self, **fields)
        other.__dict__["content"] = self.content
        return other
