"""Posts what a template makes of events to one URL, and hands over what the template makes of the answers."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID

import structlog
from yarl import URL

from watcher.delivery.sinks.alert_text import clean
from watcher.delivery.sinks.alertmanager import REFRESH_EVERY_S, AlertmanagerTemplate
from watcher.delivery.sinks.http_post import Poster
from watcher.delivery.sinks.protocol import SendOutcome, SendResult, SentProblem, SinkContext
from watcher.delivery.sinks.signing import sign, signing_key
from watcher.delivery.sinks.template import Message, Template
from watcher.domain.delivery import Delivery
from watcher.domain.errors import TransportFailedError
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.backoff import parse_retry_after
from watcher.runtime.clock import Clock

SAID_LENGTH = 200
"""Characters of an answer that are shown."""

LOGGED_EVERY_S = 3600.0
"""A sink whose messages are cut, or refused in full form, says so once in that time."""

TAKEN_COUNT = 1000
"""Of so many deliveries and groups that were taken in part it is remembered; any other begins anew, under its ids."""

AT_ONCE_COUNT = 16
"""Of so many events, a few milliseconds' work, messages are made at once."""

_TAKEN = frozenset({SendOutcome.DELIVERED, SendOutcome.ACCEPTED})
_REJECTED = 400

Item = TypeVar("Item")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Target:
    """Where to post to, with what in each request. `hidden` are texts that nothing that is shown may hold."""

    url: URL
    secrets: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 15.0
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Taken:
    """How many requests of a delivery or a group were taken, and what has become of them: the least of it.

    `pause_s` is what was asked for with the last one.
    """

    count: int = 0
    result: SendResult | None = None
    pause_s: float = 0.0

    def and_one(self, result: SendResult) -> "_Taken":
        is_less = self.result is None or self.result.outcome is not SendOutcome.ACCEPTED
        return _Taken(self.count + 1, result if is_less else self.result, result.pause_s)


class _Hourly:
    """Counts what is logged once an hour only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = 0
        self._quiet_until = EARLIEST

    def note(self) -> int:
        """Count one more; return how many there were since this was last said if it is to be said now, else 0."""
        self._count += 1
        now = self._clock.monotonic()
        if now < self._quiet_until:
            return 0
        self._quiet_until = Monotonic(now + LOGGED_EVERY_S)
        count, self._count = self._count, 0
        return count


class WebhookSink:
    """Posts to one URL."""

    batch_count = 1

    def __init__(self, target: Target, template: Template, *, context: SinkContext) -> None:
        """Open no connection yet. Needs a running event loop."""
        self.refresh_every_s = REFRESH_EVERY_S if isinstance(template, AlertmanagerTemplate) else None
        self._clock = context.clock
        self._take_slot = context.take_slot
        self._template = template
        self._hidden = target.hidden
        self._keys = [signing_key(secret) for secret in target.secrets]
        self._cut, self._rejected = _Hourly(self._clock), _Hourly(self._clock)
        self._taken: dict[UUID, _Taken] = {}  # of what was taken in part, the oldest first
        headers = {**target.headers, "Content-Type": template.content_type}
        self._poster = Poster(target.url, headers=headers, timeout_s=target.timeout_s, context=context)

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Post a delivery or a group once, as its template says; the first request that is not taken ends it.

        What is refused with 400 goes once more in its minimal form, if there is one: waiting would not help. The next
        attempt goes on behind what was taken: of a large group no attempt may get all through.
        """
        key = batch[0].group_id or batch[0].event_id
        earlier = self._taken.pop(key, _Taken())
        taken = earlier if batch[0].attempts else _Taken()  # a replay begins anew
        messages = await _made(self._template.messages, batch)
        for number, message in enumerate(messages[taken.count :]):
            if number:
                await asyncio.sleep(max(self._take_slot(), taken.pause_s))
            result = await self._post_or_less(message, batch[0])
            if result.outcome not in _TAKEN:
                if taken.count and result.outcome is not SendOutcome.REFUSED:  # else it goes on in halves
                    self._remember(key, taken)
                return result
            taken = taken.and_one(result)
        assert taken.result is not None  # noqa: S101 (of any batch there is a message)
        return taken.result

    async def refresh(self, problems: Sequence[SentProblem]) -> SendResult:
        """Post again what open and lately closed problems are. Only for what asks for it by `refresh_every_s`."""
        assert isinstance(self._template, AlertmanagerTemplate)  # noqa: S101 (nothing else asks)
        for message in await _made(self._template.refresh, problems):
            result, _ = await self._post(message)
            if result.outcome not in _TAKEN:
                return result
        return SendResult(SendOutcome.DELIVERED, "200")

    async def close(self) -> None:
        """Close all connections."""
        await self._poster.close()

    async def _post_or_less(self, message: Message, delivery: Delivery) -> SendResult:
        """Post once, and once more in minimal form if that is refused as it is."""
        if message.is_cut and (count := self._cut.note()):
            log.warning("message.cut", sink=delivery.sink, event_id=str(delivery.event_id), count=count)
        result, said = await self._post(message, replayed=delivery.replayed)
        if result.answer == str(_REJECTED) and message.minimal is not None:
            result, _ = await self._post(replace(message, body=message.minimal()), replayed=delivery.replayed)
            self._report_rejected(delivery, said, minimal=result)
        return result

    def _remember(self, key: UUID, taken: _Taken) -> None:
        self._taken[key] = taken
        if len(self._taken) > TAKEN_COUNT:  # such as those that died since
            del self._taken[next(iter(self._taken))]

    async def _post(self, message: Message, *, replayed: bool = False) -> tuple[SendResult, bytes]:
        """Post once; return what that means, and what was said."""
        headers = self._headers_of(message, replayed=replayed)
        try:
            answer = await self._poster.post(
                message.body, headers=headers, judged_by_body=self._template.judged_by_body
            )
        except TransportFailedError as error:
            return SendResult(SendOutcome.RETRY, error.kind), b""
        result = self._template.send_result(answer)
        if result.outcome not in _TAKEN:
            retry_after_s = parse_retry_after(answer.headers.get("Retry-After"), now=self._clock.now())
            result = replace(result, retry_after_s=retry_after_s)
        return result, answer.said

    def _headers_of(self, message: Message, *, replayed: bool) -> dict[str, str]:
        timestamp = str(int(self._clock.now().timestamp()))
        headers = {"webhook-id": message.id, "webhook-timestamp": timestamp}
        if replayed:
            headers["webhook-replay"] = "1"
        if self._keys:
            headers["webhook-signature"] = sign(
                message.body, message_id=message.id, timestamp=timestamp, keys=self._keys
            )
        return headers

    def _report_rejected(self, delivery: Delivery, said: bytes, *, minimal: SendResult) -> None:
        """Say loudly that the receiver does not take the message as it is, what it says of it, and what was tried."""
        if not (count := self._rejected.note()):
            return
        text = clean(said.decode("utf-8", "replace"))
        for hidden in self._hidden:
            text = text.replace(hidden, "…")
        log.error(
            "template.rejected",
            sink=delivery.sink,
            event_id=str(delivery.event_id),
            type=delivery.type,
            answer=str(_REJECTED),
            said=text[:SAID_LENGTH],
            count=count,
            minimal="taken" if minimal.outcome in _TAKEN else minimal.answer,
            remedy="a minimal message was tried instead; check that url is this receiver's, else report a bug",
        )


async def _made(make: Callable[[Sequence[Item]], list[Message]], items: Sequence[Item]) -> list[Message]:
    """Return the messages for these items. Those for many are made in a thread: the event loop has others to serve."""
    return make(items) if len(items) <= AT_ONCE_COUNT else await asyncio.to_thread(make, items)
