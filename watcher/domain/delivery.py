"""Deliveries: a delivery is one event on its way to one sink. Frozen values."""

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
    """The state of a delivery: `waiting` while it is pending, any other state once it is settled."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    ACCEPTED = "accepted"
    """The receiver accepted the event, but has not processed it yet (202)."""
    SILENCED = "silenced"
    DEAD = "dead"


TAKEN = (DeliveryState.DELIVERED, DeliveryState.ACCEPTED)
"""The states of a delivery that its receiver took."""

TOGETHER_COUNT = 3
"""The number of failed attempts after which the events of a group may be sent one by one."""


class MessagePlace(NamedTuple):
    """The place of a message at its receiver: the channel and the message number, both as the receiver names them."""

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
    """Only the closing of the problem: the event is silenced, or the sink keeps state and did not ask for this type."""
    NEWS = "news"
    """All but the closing of the problem: the receiver was not sent the opening."""


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one sink. Times are microseconds UTC, steady, unless a field names another clock."""

    sink: str
    number: int
    """The number of the event in the order of recording."""
    ordering_key: bytes
    """Deliveries with the same ordering key are sent one at a time, in the order of recording."""
    event_id: UUID
    type: str
    body: bytes
    recorded_at: Micros
    due_at: Micros
    attempts: int = 0
    rejections: int = 0
    """The number of answers in a row that refused the body itself (400, 413, 422)."""
    tried_at: Micros = NEVER
    """The end of the last attempt."""
    first_due_at_s: float | None = None
    """The time from which the delivery could be sent: the seconds for which the sink had been served by then."""
    group_key: bytes | None = None
    """Deliveries with the same group key are sent together."""
    replayed: bool = False
    """Whether the delivery was a dead letter and is sent again."""
    part: Part = Part.WHOLE
    account: str | None = None
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    problem: UUID | None = None
    """The id of the problem that the event is about."""
    closes: bool = False
    """Whether the event closes its problem."""
    only_closes: bool = False
    """Whether the sink gets the event only because it closes a problem: the sink did not ask for this type."""
    is_opening_sent: bool = True
    """Whether the opening of the problem was sent to this sink, or may have been."""
    is_problem_open: bool = True
    problem_event_count: int = 0
    """The number of events in the problem's own stream; 0 for an opening that is sent for the first time."""
    acked_until: datetime | None = None
    """The end of the problem's acknowledgement (wall clock). No reminder is sent before that time."""
    silenced_as: str | None = None
    """The answer of the problem's opening in the store, if the opening was silenced."""
    incident: Incident | None = None
    """The incident that shows the problem, at a pager."""
    message: ProblemMessage | None = None
    """The message of the event's own problem, at a sink that keeps messages."""
    failing_opening: DeliveryState | None = None
    """The state in which the sink has the opening of the pipeline's open `pipeline.failing`, at a sink that `covers`.
    It is `WAITING` only while the opening waits for its group alone. Only an `execution.failed` has it."""
    thread: ProblemMessage | None = None
    """The message of the pipeline's open `pipeline.failing`. Single failures go into the thread of this message."""

    @property
    def ordering_keys(self) -> tuple[bytes, ...]:
        """Return the keys that block other deliveries: the ordering key, and at a pager the key of the incident."""
        return (self.ordering_key,) if self.incident is None else (self.ordering_key, self.incident.key.bytes)

    @property
    def opens(self) -> bool:
        """Return whether the event opens its problem, or reports a problem that is already open."""
        return self.type in PROBLEM_KINDS

    def is_acknowledged(self, at: datetime) -> bool:
        """Return whether the problem is acknowledged at that time (wall clock)."""
        return self.acked_until is not None and at < self.acked_until

    @cached_property
    def content(self) -> Json:
        """Return the event. It is parsed from the body once, so callers must not change it."""
        return json.loads(self.body)  # type: ignore[no-any-return] # an event is an object


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """The result of an attempt at a delivery, or of a judgement that silenced or postponed the delivery."""

    delivery: Delivery
    state: DeliveryState
    answer: str | None = None
    """The receiver's status code, or a fixed word of the program."""
    tried: bool = True
    """Whether the receiver may have got the event."""
