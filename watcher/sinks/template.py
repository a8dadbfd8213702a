"""What a sink posts for an event or a group, in which requests, and what the answer to each means."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from yarl import URL

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import group_id
from watcher.domain.event import EventType
from watcher.domain.problems import SentOpening
from watcher.runtime.clock import Clock
from watcher.sinks.protocol import GROUP_COUNT, SendOutcome, SendResult

MINIMAL_NEXT = "a minimal message is tried next; check that url is this receiver's, else report a bug"

ALERT_EVENTS = (
    *(EventType.EXECUTION_FAILED, EventType.EXECUTION_LOST),
    *(EventType.EXECUTION_OVERDUE, EventType.EXECUTION_UNRECOGNIZED),
    *("pipeline.*", "account.*", "sink.*", "delivery.*", "problem.*", "watcher.*"),
)
"""What chats and Alertmanager get by default: all but the statuses an execution is meant to pass through."""

_OUTCOMES = {
    400: SendOutcome.REFUSED,
    410: SendOutcome.GONE,
    413: SendOutcome.REFUSED,
    422: SendOutcome.REFUSED,
    429: SendOutcome.BUSY,
}
REDIRECTED = "no redirect is ever followed: set url to where it leads"
"""What a person has to do if the answer is 3xx. Where it leads may hold a secret, so it is not said."""

_REMEDIES = {
    3: REDIRECTED,
    4: "it does not take what is sent to it: correct url, or template",
    5: "it has trouble of its own: wait, or ask who runs it",
    401: "correct headers or secret",
    403: "correct headers or secret",
    404: "nothing takes messages at this url: correct it, or make a new webhook if that one was deleted",
    410: "the receiver says that this is gone for good: set url to a new one",
    429: "it gets too many requests: wait, or lower rate_limit",
}
"""What a person has to do, by the status code, else by its first digit. What a template knows of its receiver goes
before it."""


class TemplateFailure(NamedTuple):
    """What is wrong with an operator's own template, in which line (0: not known), and what a person has to do."""

    line: int
    reason: str
    remedy: str = "correct the template"


@dataclass(frozen=True, slots=True)
class Message:
    """One request. `id` is the same on every attempt."""

    id: str
    body: bytes
    content_type: str = "application/json; charset=utf-8"


def minimal_next(batch: Sequence[Delivery], result: SendResult) -> SendResult:
    """Return a refusal; of one event as it is, say that its minimal form comes next."""
    if len(batch) > 1 or batch[0].rejections:
        return result
    return replace(result, minimal_left=True, remedy=MINIMAL_NEXT)


class Template:
    """Posts for one kind of receiver. `judged_by_body` are the status codes that alone say too little.

    One that `has_minimal` makes a message without blocks for a delivery whose message was refused. One that has to hear
    of open problems again and again asks for that every `refresh_every_s`. For `keeps_state` see `Sink`.
    """

    judged_by_body: frozenset[int] = frozenset()
    has_minimal: bool = False
    refresh_every_s: float | None = None
    keeps_state: ClassVar[bool] = False
    group_count: ClassVar[int] = GROUP_COUNT
    """Events in one group at most."""
    if_accepted: ClassVar[SendOutcome] = SendOutcome.ACCEPTED
    """What 202 means."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings that the receiver wants where the file says nothing; without `events` these are `ALERT_EVENTS`."""
    remedies: ClassVar[Mapping[int, str]] = {}
    """What a person has to do, by the status code, where more is known than of any receiver."""

    def __init__(self, *, clock: Clock | None = None, public_url: str = "", routing_key: str = "") -> None:
        """Link to our own pages at `public_url`, if people reach them. The key is PagerDuty's."""
        self.clock = clock or Clock()
        self.public_url = public_url
        self.routing_key = routing_key

    def post_url(self, url: URL) -> URL:
        """Return where requests go, for the URL of the settings."""
        return url

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the requests for one delivery or one group, in their order. All must be taken to settle it."""
        raise NotImplementedError

    async def prepare(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the same; of a group it is made in a thread, for the event loop has others to serve."""
        return self.messages(batch) if len(batch) == 1 else await asyncio.to_thread(self.messages, batch)

    def refreshes(self, openings: Sequence[SentOpening]) -> list[Message]:
        """Return the requests that say again of each problem that it is open, or since when it is closed."""
        raise AssertionError("it never asks for this")

    def send_result(self, status: int, said: bytes) -> SendResult:
        """Return what an answer means, which most say by the status code, some by how the body begins."""
        if status // 100 == 2:
            return SendResult(self.if_accepted if status == 202 else SendOutcome.DELIVERED, str(status))
        remedy = self.remedies.get(status) or _REMEDIES.get(status) or _REMEDIES.get(status // 100, "")
        return SendResult(_OUTCOMES.get(status, SendOutcome.RETRY), str(status), remedy=remedy)


class EventTemplate(Template):
    """Posts an event as it is stored, byte for byte."""

    if_accepted = SendOutcome.DELIVERED

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the one request: there are no groups."""
        return [Message(str(batch[0].event_id), batch[0].body, "application/cloudevents+json; charset=utf-8")]


class BatchTemplate(EventTemplate):
    """Posts events as they are stored in one JSON array, also if it is a single one.

    https://github.com/cloudevents/spec/blob/main/cloudevents/formats/json-format.md#4-json-batch-format
    """

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one request for all."""
        id_, body = group_id(each.event_id for each in batch), b"[" + b",".join(each.body for each in batch) + b"]"
        return [Message(str(id_), body, "application/cloudevents-batch+json; charset=utf-8")]
