"""Deliveries: each is one event on its way to one sink. Frozen values."""

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
    """The state of a delivery. Every state but `waiting` is settled."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    """The receiver accepted the event, but has not processed it yet (202)."""
    SILENCED = "silenced"
    DEAD = "dead"


TAKEN = (DeliveryState.DELIVERED, DeliveryState.ACCEPTED)
"""The states of a delivery that its receiver took."""

TOGETHER_COUNT = 3
"""Failed attempts after which the events of a group may be sent one by one."""


class MessagePlace(NamedTuple):
    """The place of a message at its receiver: the channel and the number there, both as the receiver names them."""

    channel: str
    number: str


@dataclass(frozen=True, slots=True)
class ProblemMessage:
    """The message that shows a problem at a sink. The sink updates the message and replies in its thread."""

    problem: UUID
    place: MessagePlace | None
    """`None` once the message is deleted."""
    opening: bytes | None = None
    """The body of the event that opened the problem; `None` if the store no longer has it."""


class Part(StrEnum):
    """The part of an event that its receiver is sent."""

    WHOLE = "whole"
    CLOSING = "closing"
    """Only the end of the problem: the event is silenced, or the sink keeps state and did not ask for this type."""
    NEWS = "news"
    """All but the end of the problem: the receiver was not sent the opening."""


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one sink. Times are on the steady clock; exceptions stand at the field."""

    sink: str
    number: int
    """The number of the event in the order of recording."""
    ordering_key: bytes
    """One delivery of each ordering key is sent at a time, in the order of recording."""
    event_id: UUID
    type: str
    body: bytes
    recorded_at: Micros
    due_at: Micros
    attempts: int = 0
    rejections: int = 0
    """Answers in a row that refused the body itself."""
    tried_at: Micros = NEVER
    """The end of the last attempt."""
    first_due_at_s: float | None = None
    """The first due time, on the sink's own clock of the seconds in which the sink was served."""
    group_key: bytes | None = None
    """Deliveries with the same group key are sent together."""
    replayed: bool = False
    """Whether this is a dead letter that is sent again."""
    part: Part = Part.WHOLE
    account: str | None = None
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    problem: UUID | None = None
    """The problem that the event is about."""
    closes: bool = False
    """Whether the event closes its problem."""
    only_closes: bool = False
    """Whether the sink gets the event only because it closes a problem: the sink did not ask for this type."""
    is_opening_sent: bool = True
    """Whether the opening of the problem was sent to this sink, or may have been."""
    is_problem_open: bool = True
    acked_until: datetime | None = None
    """The end of the problem's acknowledgement (wall clock). No reminder is sent before it."""
    silenced_as: str | None = None
    """The answer that the problem's opening was settled with, if the opening was silenced."""
    incident: Incident | None = None
    """The incident that shows the problem, at a pager."""
    message: ProblemMessage | None = None
    """The message of the event's own problem, at a sink that keeps messages."""
    thread: ProblemMessage | None = None
    """The message of the problem that the pipeline is failing. Single failures go into the thread of this message."""

    @property
    def ordering_keys(self) -> tuple[bytes, ...]:
        """Return the keys that allow one delivery at a time: the ordering key, and at a pager that of the incident."""
        return (self.ordering_key,) if self.incident is None else (self.ordering_key, self.incident.key.bytes)

    @property
    def opens(self) -> bool:
        """Return whether the event opens its problem, or reports the open problem once more."""
        return self.type in PROBLEM_KINDS

    def is_acknowledged(self, at: datetime) -> bool:
        """Return whether the problem is acknowledged at that time (wall clock)."""
        return self.acked_until is not None and at < self.acked_until

    @cached_property
    def content(self) -> Json:
        """Return the event, parsed from the body once. Callers must not change it."""
        return json.loads(self.body)  # type: ignore[no-any-return] # an event is an object


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """The state of a delivery after an attempt, or after it was silenced or postponed."""

    delivery: Delivery
    state: DeliveryState
    answer: str | None = None
    """A word of ours, or the receiver's status code."""
    tried: bool = True
    """Whether the receiver may have got the event."""
