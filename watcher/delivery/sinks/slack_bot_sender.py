"""Posts, updates and answers the messages of one Slack app in one channel. What is in them is `slack_bot_parts`'."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import structlog

from watcher.delivery.sinks.alert_text import to_json
from watcher.delivery.sinks.chat import Json
from watcher.delivery.sinks.message_log import MessageLog
from watcher.delivery.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext
from watcher.delivery.sinks.request_series import RequestSlots, TakenParts, make_messages
from watcher.delivery.sinks.slack_api import CHANNEL_ERROR_REMEDIES, ApiAnswer, SlackApi
from watcher.delivery.sinks.slack_bot_parts import Part, Step, parts_of
from watcher.domain.delivery import Delivery, MessagePlace, ProblemMessage

POST, UPDATE = "chat.postMessage", "chat.update"

_GONE_ERRORS = frozenset({"message_not_found", "thread_not_found", "cannot_reply_to_message"})
"""What is said of a message that is not there any more, or was never one to answer."""

_CANNOT_UPDATE_ERRORS = frozenset({"edit_window_closed", "cant_update_message"})
"""What is said of a message that stays as it is: the workspace forbids it, or another app posted it."""

_NOT_FOR_UPDATES = frozenset({"mrkdwn", "unfurl_links", "unfurl_media"})
_PLACE = re.compile(r"[A-Za-z0-9.]{1,64}")
"""What a channel or the number of a message looks like: it is kept, and sent back as it is."""

log = structlog.get_logger()


class SlackBotSink(Sink):
    """One app in one channel."""

    def __init__(self, api: SlackApi, *, channel: str, log: MessageLog, context: SinkContext) -> None:
        """Post new messages in that channel; those that are kept stay where they are."""
        self._api = api
        self._channel = channel
        self._log = log
        self._take_slot = context.take_slot
        self._taken = TakenParts()

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Send all messages of a delivery or a group; the first that is not taken ends it."""
        slots = RequestSlots(self._take_slot)
        attempt = _Attempt(batch, self._api, channel=self._channel, log=self._log, slots=slots)
        parts = await make_messages(parts_of, batch)
        for part in parts:
            if part.message.is_cut:
                self._log.cut(part.delivery)
        return await self._taken.send(batch, parts, attempt.send)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()


class _Attempt:
    """One attempt at a delivery or a group, and where messages are by now."""

    def __init__(
        self, batch: Sequence[Delivery], api: SlackApi, *, channel: str, log: MessageLog, slots: RequestSlots
    ) -> None:
        kept = [message for each in batch for message in (each.message, each.thread) if message is not None]
        self._places: dict[UUID, MessagePlace] = {each.problem: each.place for each in kept if each.place is not None}
        self._changes: list[ProblemMessage] = []
        self._api = api
        self._channel = channel
        self._log = log
        self._slots = slots

    async def send(self, part: Part) -> SendResult:
        """Send one message where it belongs; the result says what is to be kept."""
        self._changes = []
        place = None if part.problem is None else self._places.get(part.problem)
        result = await (self._post(part) if place is None else self._send_to(part, place))
        return replace(result, messages=tuple(self._changes))

    async def _post(self, part: Part) -> SendResult:
        """Post a message of its own."""
        if part.step is Step.NOTE:
            return SendResult(SendOutcome.DELIVERED, "200")
        answer = await self._call(POST, part, {"channel": self._channel})
        if answer.is_ok:
            self._keep(part, answer)
        return answer.result

    async def _send_to(self, part: Part, place: MessagePlace) -> SendResult:
        """Update a problem's message or answer it; if it is gone, post one of its own."""
        is_update = part.step in {Step.OPENING, Step.END}
        where = {"channel": place.channel, "ts" if is_update else "thread_ts": place.number}
        answer = await self._call(UPDATE if is_update else POST, part, where)
        word = answer.result.answer
        if is_update and word in _CANNOT_UPDATE_ERRORS:
            note = "it cannot be updated; what is new stands in its thread"
            log.warning("message.fixed", **_named(part.delivery), answer=word, note=note)
            return SendResult(SendOutcome.DELIVERED, word)
        # Of a channel that is no longer the sink's, the messages are as good as gone.
        if word in _GONE_ERRORS or (word in CHANNEL_ERROR_REMEDIES and place.channel != self._channel):
            self._forget(part, word)
            return await self._post(part)
        if answer.is_ok and not is_update and _stands_alone(answer):
            self._forget(part, "not in its thread")
            self._keep(part, answer)
        return answer.result

    def _forget(self, part: Part, why: str) -> None:
        assert part.problem is not None
        del self._places[part.problem]
        self._changes.append(ProblemMessage(part.problem, None))
        note = "its problem's message is gone: a new one is posted"
        log.warning("message.gone", **_named(part.delivery), answer=why, note=note)

    def _keep(self, part: Part, answer: ApiAnswer) -> None:
        """Keep where the problem's message is, if that is what was posted."""
        channel, number = answer.content.get("channel"), answer.content.get("ts")
        is_place = all(isinstance(text, str) and _PLACE.fullmatch(text) for text in (channel, number))
        if part.problem is not None and part.step in {Step.OPENING, Step.NEWS} and is_place:
            place = MessagePlace(str(channel), str(number))
            self._places[part.problem] = place
            self._changes.append(ProblemMessage(part.problem, place))

    async def _call(self, method: str, part: Part, where: Mapping[str, str]) -> ApiAnswer:
        """Call once, and once more in minimal form if that is refused as it is."""
        message = part.message
        await self._slots.wait()
        answer = await self._request(method, message.content, where)
        if answer.result.outcome is not SendOutcome.REFUSED or message.minimal is None:
            return answer
        self._slots.heed(answer.result)
        await self._slots.pause()  # a slot of its own would say that something got through
        less = await self._request(method, message.minimal(), where)
        self._log.rejected(part.delivery, answer=answer.result.answer, said=answer.said, minimal=less.result)
        return less

    async def _request(self, method: str, content: Json, where: Mapping[str, str]) -> ApiAnswer:
        left_out = _NOT_FOR_UPDATES if method == UPDATE else frozenset[str]()
        arguments = {**where, **{name: value for name, value in content.items() if name not in left_out}}
        return await self._api.call(method, to_json(arguments).encode())


def _stands_alone(answer: ApiAnswer) -> bool:
    """Return whether an answer to a message became one of its own: so it does, silently, if that was deleted.

    https://github.com/slack-go/slack/issues/1571
    """
    message = answer.content.get("message")
    return isinstance(message, dict) and "thread_ts" not in message


def _named(delivery: Delivery) -> dict[str, str]:
    return {"sink": delivery.sink, "event_id": str(delivery.event_id), "type": delivery.type}
