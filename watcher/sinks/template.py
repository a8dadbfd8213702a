"""The requests that a webhook sink posts for an event or a group, and the meaning of the answers."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from yarl import URL

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import group_id
from watcher.domain.event import EVENT_KINDS
from watcher.domain.problems import SentOpening
from watcher.runtime.clock import Clock
from watcher.sinks.protocol import GROUP_COUNT, SendOutcome, SendResult

MINIMAL_NEXT = "a minimal message is tried next; check that url is this receiver's, else report a bug"

_DIVIDED = {type_.partition(".")[0] for type_, kind in EVENT_KINDS.items() if not kind.to_chats}

ALERT_EVENTS = tuple(
    dict.fromkeys(
        type_.value if (group := type_.partition(".")[0]) in _DIVIDED else f"{group}.*"
        for type_, kind in EVENT_KINDS.items()
        if kind.to_chats
    )
)
"""The events that chats, mail and Alertmanager get by default: all but the statuses of an execution that goes well."""

_OUTCOMES = {
    400: SendOutcome.REFUSED,
    410: SendOutcome.GONE,
    413: SendOutcome.REFUSED,
    422: SendOutcome.REFUSED,
    429: SendOutcome.BUSY,
}
REDIRECTED = "no redirect is ever followed: set url to where it leads"
"""The remedy for a redirect. It does not name the redirect's target, which may hold a secret."""

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
"""The remedy by status code, else by its first digit. The `remedies` of a template take precedence."""


class TemplateFailure(NamedTuple):
    """A mistake in the operator's own template: its line (0 if it is not known), the reason, and the remedy."""

    line: int
    reason: str
    remedy: str = "correct the template"


@dataclass(frozen=True, slots=True)
class Message:
    """One request. Its `id` is the same on every attempt."""

    id: str
    body: bytes
    content_type: str = "application/json; charset=utf-8"


def minimal_next(batch: Sequence[Delivery], result: SendResult) -> SendResult:
    """Return a refusal. For a single event at its first refusal, announce that the minimal form is tried next."""
    if len(batch) > 1 or batch[0].rejections:
        return result
    return replace(result, minimal_left=True, remedy=MINIMAL_NEXT)


class Template:
    """The requests for one kind of receiver, and the meaning of its answers.

    For a status code in `judged_by_body` the body of the answer decides. With `has_minimal` a refused message is sent
    again in a minimal form. `refresh_every_s` and `keeps_state` mean the same as in `Sink`.
    """

    judged_by_body: frozenset[int] = frozenset()
    has_minimal: bool = False
    refresh_every_s: float | None = None
    keeps_state: ClassVar[bool] = False
    group_count: ClassVar[int] = GROUP_COUNT
    """The most events in one group."""
    if_accepted: ClassVar[SendOutcome] = SendOutcome.ACCEPTED
    """The outcome of an answer 202."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """The defaults of settings for this receiver. Without `events` among them, `ALERT_EVENTS` is the default."""
    remedies: ClassVar[Mapping[int, str]] = {}
    """The remedies for this receiver, by status code."""

    def __init__(self, *, clock: Clock | None = None, public_url: str = "", routing_key: str = "") -> None:
        """Keep values for messages. `public_url` is the address of our own pages, `routing_key` PagerDuty's key."""
        self.clock = clock or Clock()
        self.public_url = public_url
        self.routing_key = routing_key

    def post_url(self, url: URL) -> URL:
        """Return the URL to post to, made from the URL in the settings."""
        return url

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the requests for a delivery or a group, in their order. All of them must succeed."""
        raise NotImplementedError

    async def prepare(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return the requests of `messages`. For a group they are made in a thread, to keep the event loop free."""
        return self.messages(batch) if len(batch) == 1 else await asyncio.to_thread(self.messages, batch)

    def refreshes(self, openings: Sequence[SentOpening]) -> list[Message]:
        """Return the requests that post the state of each problem again: open, or closed and since when."""
        raise AssertionError("it never asks for this")

    def send_result(self, status: int, body: bytes) -> SendResult:
        """Return the meaning of an answer, by its status code and, for some receivers, the beginning of its body."""
        if status // 100 == 2:
            return SendResult(self.if_accepted if status == 202 else SendOutcome.DELIVERED, str(status))
        remedy = self.remedies.get(status) or _REMEDIES.get(status) or _REMEDIES.get(status // 100, "")
        return SendResult(_OUTCOMES.get(status, SendOutcome.RETRY), str(status), remedy=remedy)


class EventTemplate(Template):
    """An event as it is stored, byte for byte."""

    if_accepted = SendOutcome.DELIVERED

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one request. Without groups each batch is a single event."""
        return [Message(str(batch[0].event_id), batch[0].body, "application/cloudevents+json; charset=utf-8")]


class BatchTemplate(EventTemplate):
    """Events as they are stored, in one JSON array, even if there is only one.

    https://github.com/cloudevents/spec/blob/main/cloudevents/formats/json-format.md#4-json-batch-format
    """

    def messages(self, batch: Sequence[Delivery]) -> list[Message]:
        """Return one request for all events."""
        id_, body = group_id(each.event_id for each in batch), b"[" + b",".join(each.body for each in batch) + b"]"
        return [Message(str(id_), body, "application/cloudevents-batch+json; charset=utf-8")]
