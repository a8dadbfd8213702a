"""What a webhook sink posts for a batch of events, and what the answer to that means: the seam between the two.

A template knows its receiver, and nothing of connections, retries or the store. Here are the plain ones, which post
events as they are stored.
"""

import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import structlog
from yarl import URL

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.event_ids import group_id
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.sinks.http_post import Answer
from watcher.sinks.protocol import SendOutcome, SendResult
from watcher.sinks.request_series import make_messages

LOGGED_EVERY_S = 3600.0

log = structlog.get_logger()

ALERT_EVENTS = (
    *(EventType.EXECUTION_FAILED, EventType.EXECUTION_LOST),
    *(EventType.EXECUTION_OVERDUE, EventType.EXECUTION_UNRECOGNIZED),
    *("pipeline.*", "account.*", "sink.*", "problem.*", "watcher.*"),
)
"""What chat and pagers get by default: all but the statuses an execution is meant to pass through."""

_OUTCOMES = {
    202: SendOutcome.ACCEPTED,
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
    """One request. `id` is the same on every attempt, `is_cut` tells that the receiver's limits left something out.

    Where a template fails, the plain event is sent instead: with its own `content_type`, and `failure` says why.
    """

    id: str
    body: bytes
    is_cut: bool = False
    content_type: str | None = None
    failure: TemplateFailure | None = None


class MessageLog:
    """What a sink says of its messages in the log, once an hour each: what is cut, refused, or could not be made.

    Each line says how many there were since the last such line.
    """

    def __init__(self, clock: Clock) -> None:
        """Have said nothing yet."""
        self._clock = clock
        self._counts = Counter[str]()
        self._quiet_until: dict[str, Monotonic] = {}

    def cut(self, delivery: Delivery) -> None:
        """Note that the receiver's limits left something out of a message; it is told so again with each attempt."""
        if not delivery.attempts and (known := self._due("cut", delivery)):
            log.warning("message.cut", **known)

    def failed(self, delivery: Delivery, failure: TemplateFailure) -> None:
        """Say loudly that a template of one's own could not make a message, and which line is to blame."""
        remedy = f"the plain event was sent instead; {failure.remedy}"
        if known := self._due("failed", delivery, type=delivery.type, reason=failure.reason, remedy=remedy):
            log.error("template.failed", line=failure.line or None, **known)

    def rejected(self, delivery: Delivery, *, answer: str) -> None:
        """Say loudly that the receiver does not take the message as it is."""
        remedy = "a minimal message is tried next; check that url is this receiver's, else report a bug"
        if known := self._due("rejected", delivery, type=delivery.type, answer=answer, remedy=remedy):
            log.error("template.rejected", **known)

    def _due(self, kind: str, delivery: Delivery, **known: str) -> dict[str, Any]:
        """Count one more; return what is to be said if it is time to say it."""
        self._counts[kind] += 1
        now = self._clock.monotonic()
        if now < self._quiet_until.get(kind, EARLIEST):
            return {}
        self._quiet_until[kind] = Monotonic(now + LOGGED_EVERY_S)
        return {"sink": delivery.sink, "event_id": str(delivery.event_id), "count": self._counts.pop(kind), **known}


class Template(Protocol):
    """Posts for one kind of receiver. `judged_by_body` are the status codes that alone say too little.

    One that `has_minimal` makes messages without blocks for a delivery whose message was refused.
    """

    content_type: str = "application/json; charset=utf-8"
    judged_by_body: frozenset[int] = frozenset()
    has_minimal: bool = False
    defaults: ClassVar[Mapping[str, str]] = {}
    """Settings that the receiver wants where the file says nothing, beside `events`."""

    def post_url(self, url: URL) -> URL:
        """Return where requests go, for the URL of the settings."""
        return url

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the requests for one delivery or one group, in their order. All must be taken to settle it."""
        ...

    async def requests(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the same, without holding up the event loop."""
        return await make_messages(self.messages, batch)

    def send_result(self, answer: Answer) -> SendResult:
        """Return what an answer means, which most say by the status code. `Retry-After` is read by the sink."""
        return result_of_status(answer.status)


def result_of_status(status: int) -> SendResult:
    """Return what a status code means for what only takes a message with 202."""
    is_success = status // 100 == 2
    outcome = _OUTCOMES.get(status, SendOutcome.DELIVERED if is_success else SendOutcome.RETRY)
    return SendResult(outcome, str(status), remedy=_REMEDIES.get(status) or _REMEDIES.get(status // 100, ""))


def with_code(result: SendResult, code: object, known: Container[str]) -> SendResult:
    """Add the code that a receiver gives to the answer, if its documentation lists it; no other word is passed on."""
    return replace(result, answer=f"{result.answer} {code}") if isinstance(code, str) and code in known else result


def json_object(said: bytes) -> Mapping[str, Any]:
    """Return the JSON object that an answer holds, an empty one if it holds none."""
    try:
        content = json.loads(said)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


class EventTemplate(Template):
    """Posts an event as it is stored, byte for byte."""

    content_type = "application/cloudevents+json; charset=utf-8"

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one request per event."""
        return [Message(str(delivery.event_id), delivery.body) for delivery in batch]

    def send_result(self, answer: Answer) -> SendResult:
        """Return what its status code means: of an event as it is, 202 is as good as any 2xx."""
        result = result_of_status(answer.status)
        return replace(result, outcome=SendOutcome.DELIVERED) if result.outcome is SendOutcome.ACCEPTED else result


class BatchTemplate(EventTemplate):
    """Posts events as they are stored in one JSON array, also if it is a single one.

    https://github.com/cloudevents/spec/blob/main/cloudevents/formats/json-format.md#4-json-batch-format
    """

    content_type = "application/cloudevents-batch+json; charset=utf-8"

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one request for all."""
        body = b"[" + b",".join(delivery.body for delivery in batch) + b"]"
        return [Message(str(group_id(delivery.event_id for delivery in batch)), body)]
