"""Posts what a template makes of events to one URL, and hands over what the template makes of the answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from watcher.delivery.sinks.alertmanager import ALERTS_COUNT, REFRESH_EVERY_S, AlertmanagerTemplate
from watcher.delivery.sinks.http_post import Poster, result_without_answer, with_retry_after
from watcher.delivery.sinks.message_log import MessageLog
from watcher.delivery.sinks.protocol import SendOutcome, SendResult, SentProblem, Sink, SinkContext
from watcher.delivery.sinks.request_series import TAKEN, RequestSlots, TakenParts, make_messages
from watcher.delivery.sinks.signing import sign
from watcher.delivery.sinks.template import Message, Template
from watcher.domain.delivery import Delivery
from watcher.domain.errors import TransportFailedError

_REJECTED = 400


class WebhookSink(Sink):
    """Posts to one URL."""

    def __init__(
        self, poster: Poster, template: Template, *, keys: Sequence[bytes], log: MessageLog, context: SinkContext
    ) -> None:
        """Sign with each of the keys, if there are any."""
        self.refresh_every_s = REFRESH_EVERY_S if isinstance(template, AlertmanagerTemplate) else None
        self._clock = context.clock
        self._take_slot = context.take_slot
        self._poster = poster
        self._template = template
        self._keys = keys
        self._log = log
        self._taken = TakenParts()
        self._refreshing = asyncio.Lock()  # held for each request of a refresh
        self._closed: set[UUID] = set()  # problems whose end went out, which a refresh may have read as open before

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Post a delivery or a group once, as its template says; the first request that is not taken ends it.

        What is refused with 400 goes once more in its minimal form, if there is one: the next attempt would not help.
        That goes on behind what was taken: of a large group no attempt may get all through.
        """
        if isinstance(self._template, AlertmanagerTemplate):
            await self._wait_for_refresh(await make_messages(self._template.closed_by, batch))
        slots = RequestSlots(self._take_slot)
        messages = await self._template.requests(batch)
        for message in messages:
            if message.is_cut:
                self._log.cut(batch[0])

        async def post(message: Message) -> SendResult:
            return await self._post_or_less(message, batch[0], slots)

        return await self._taken.send(batch, messages, post)

    async def refresh(self, problems: Sequence[SentProblem]) -> SendResult:
        """Post again what open and lately closed problems are. Only for what asks for it by `refresh_every_s`.

        One whose end went out after it was read as open is left out: it would be opened again.
        """
        result = SendResult(SendOutcome.DELIVERED, "200")
        try:
            for start in range(0, len(problems), ALERTS_COUNT):
                async with self._refreshing:
                    result = await self._refresh(problems[start : start + ALERTS_COUNT])
                if result.outcome not in TAKEN:
                    break
        finally:
            self._closed.clear()  # the next refresh reads them as closed
        return result

    async def close(self) -> None:
        """Close all connections."""
        await self._poster.close()

    async def _refresh(self, problems: Sequence[SentProblem]) -> SendResult:
        assert isinstance(self._template, AlertmanagerTemplate)
        known = [each for each in problems if each.closed_at is not None or each.problem.id not in self._closed]
        result = SendResult(SendOutcome.DELIVERED, "200")
        for message in await make_messages(self._template.refresh, known):
            result, _ = await self._post(message)
        return result

    async def _wait_for_refresh(self, closed: frozenset[UUID]) -> None:
        """Return once no request is under way, nor will be, that says of one of these problems that it is open."""
        if closed:
            self._closed |= closed
            async with self._refreshing:
                pass

    async def _post_or_less(self, message: Message, delivery: Delivery, slots: RequestSlots) -> SendResult:
        """Post once, and once more in minimal form if that is refused as it is."""
        if message.failure is not None:
            self._log.failed(delivery, message.failure)
        await slots.wait()
        result, said = await self._post(message, replayed=delivery.replayed)
        slots.heed(result)
        if result.answer == str(_REJECTED) and message.minimal is not None:
            await slots.pause()
            result, _ = await self._post(replace(message, body=message.minimal()), replayed=delivery.replayed)
            slots.heed(result)
            self._log.rejected(delivery, answer=str(_REJECTED), said=said, minimal=result)
        return result

    async def _post(self, message: Message, *, replayed: bool = False) -> tuple[SendResult, bytes]:
        """Post once; return what that means, and what was said."""
        headers = self._headers_of(message, replayed=replayed)
        try:
            answer = await self._poster.post(
                message.body, headers=headers, judged_by_body=self._template.judged_by_body
            )
        except TransportFailedError as error:
            return result_without_answer(error), b""
        result = self._template.send_result(answer)
        return with_retry_after(result, answer, now=self._clock.now()), answer.said

    def _headers_of(self, message: Message, *, replayed: bool) -> dict[str, str]:
        timestamp = str(int(self._clock.now().timestamp()))
        headers = {
            "Content-Type": message.content_type or self._template.content_type,
            "webhook-id": message.id,
            "webhook-timestamp": timestamp,
        }
        if replayed:
            headers["webhook-replay"] = "1"
        if self._keys:
            headers["webhook-signature"] = sign(
                message.body, message_id=message.id, timestamp=timestamp, keys=self._keys
            )
        return headers
