"""Deliveries: an event on its way to a sink. Frozen values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from watcher.domain.envelope import Json
from watcher.domain.problems import PROBLEM_KINDS, Incident
from watcher.domain.timestamps import NEVER, Micros


class DeliveryState(StrEnum):
    """Where a delivery stands. Everything but `waiting` is settled."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    """The receiver took it and has yet to show it (202)."""
    SILENCED = "silenced"
    DEAD = "dead"


TAKEN = (DeliveryState.DELIVERED, DeliveryState.ACCEPTED)
"""The states of what a receiver took."""

TOGETHER_COUNT = 3
"""An event that failed so often with its group may go alone."""


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


class Part(StrEnum):
    """What of an event is for its receiver."""

    WHOLE = "whole"
    CLOSING = "closing"
    """Only that a problem is over: a silence keeps the rest back, or a receiver that keeps state did not ask for it."""
    NEWS = "news"
    """All but that a problem is over: the receiver was not sent its opening."""


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one sink.

    `number` is that of its event in the order of recording; of one `lane` only the first that waits is sent.
    `recorded_at`, `due_at` and `tried_at`, when the last attempt ended (0: never tried), are microseconds UTC on the
    steady clock. `first_due_at_s` is the reading of the sink's own clock (seconds during which the sink was served)
    when it was first due, as far as that was noted. `rejections` counts the answers in a row that said the body itself
    is unacceptable. What has a `group_key` goes with others of that. `replayed` marks what was a dead letter and is
    sent again. `part` is what of it is to be sent. `account`, `pipeline` and `labels` are the event's. Of the `problem`
    that it `closes` (`only_closes` it, where the sink asked for no such event) or reminds of it is known whether the
    opening was sent to this sink, or may have been, whether it is open still, and until when nobody is to be reminded
    of it (`acked_until`, wall clock), if somebody took it. If the opening was not sent, `silenced_as` is the answer
    that it was settled with. At a pager `incident` is the one that shows the problem. Of a sink that keeps messages,
    `message` is that of the event's own problem, `thread` that of the problem that its pipeline keeps failing, in whose
    thread a single failure belongs.
    """

    sink: str
    number: int
    lane: bytes
    event_id: UUID
    type: str
    body: bytes
    recorded_at: Micros
    due_at: Micros
    attempts: int = 0
    rejections: int = 0
    tried_at: Micros = NEVER
    first_due_at_s: float | None = None
    group_key: bytes | None = None
    replayed: bool = False
    part: Part = Part.WHOLE
    account: str | None = None
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    problem: UUID | None = None
    closes: bool = False
    only_closes: bool = False
    is_opening_sent: bool = True
    is_problem_open: bool = True
    acked_until: datetime | None = None
    silenced_as: str | None = None
    incident: Incident | None = None
    message: ProblemMessage | None = None
    thread: ProblemMessage | None = None

    @property
    def ordering_keys(self) -> tuple[bytes, ...]:
        """The keys of which only one delivery is sent at a time: its lane, and at a pager its incident."""
        return (self.lane,) if self.incident is None else (self.lane, self.incident.key.bytes)

    @property
    def opens(self) -> bool:
        """Return whether it opens its problem, or says again that it is open."""
        return self.type in PROBLEM_KINDS

    def is_acknowledged(self, at: datetime) -> bool:
        """Return whether its problem is acknowledged at that time (wall clock)."""
        return self.acked_until is not None and at < self.acked_until

    @cached_property
    def content(self) -> Json:
        """The event, read from its body once for all who look into it: they change nothing of it."""
        return json.loads(self.body)  # type: ignore[no-any-return] # an event is an object


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """How one delivery stands after an attempt, or after a silence kept it back.

    `answer` is a word or code. With `tried` the receiver may have got it.
    """

    delivery: Delivery
    state: DeliveryState
    answer: str | None = None
    tried: bool = True
