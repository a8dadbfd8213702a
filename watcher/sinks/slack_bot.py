"""A Slack app in one channel: one message for each problem, updated when it is over, and what happens in its thread.

`parts_of` is pure: it says what is to be said, in which order. Where the messages are the store knows, which gives it
with each delivery. `SlackBotSink` posts, updates and answers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import Annotated, Literal
from uuid import UUID

import structlog
from pydantic import AfterValidator, Field, SecretStr
from yarl import URL

from watcher.domain.delivery import Delivery, MessagePlace, Part, ProblemMessage
from watcher.domain.errors import TransportFailedError
from watcher.runtime.clock import SystemClock
from watcher.runtime.settings import Rate, as_written, split_http_url
from watcher.runtime.units import InvalidValueError
from watcher.sinks.alert import Alert
from watcher.sinks.alert_text import Cutter, to_json
from watcher.sinks.chat import Json, read_batch
from watcher.sinks.http_post import Poster
from watcher.sinks.http_settings import HttpSinkSettings
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext, WorkerRules
from watcher.sinks.request_series import RequestSlots, TakenParts, make_messages
from watcher.sinks.settings import EventGlobs
from watcher.sinks.slack import SLACK, end_of_problem, headline_of_end, minimal, one_line
from watcher.sinks.slack_api import (
    API_URL,
    CANNOT_UPDATE_ERRORS,
    CHANNEL_ERROR_REMEDIES,
    GONE_ERRORS,
    ApiAnswer,
    call,
)
from watcher.sinks.template import ALERT_EVENTS, MessageLog

POST, UPDATE = "chat.postMessage", "chat.update"

_TOKEN = re.compile(r"xoxb-[A-Za-z0-9-]+")
_CHANNEL = re.compile(r"[CGD][A-Z0-9]{6,}")
_PLACE = re.compile(r"[A-Za-z0-9.]{1,64}")
"""What a channel or the number of a message looks like: it is kept, and sent back as it is."""

_NOT_FOR_UPDATES = frozenset({"mrkdwn", "unfurl_links", "unfurl_media"})

log = structlog.get_logger()


def _bot_token(value: SecretStr) -> SecretStr:
    if _TOKEN.fullmatch(value.get_secret_value()):
        return value
    remedy = "copy the Bot User OAuth Token, xoxb-…, of an app without token rotation (OAuth & Permissions)"
    raise InvalidValueError("is not a bot's token", remedy=remedy, quote=False)


def _channel(value: str) -> str:
    if _CHANNEL.fullmatch(value):
        return value
    problem = "is a channel's name, which may change" if value.startswith("#") else "is not a channel's id"
    remedy = "write its id, such as C0123456789: it stands at the end of the channel's details in Slack"
    raise InvalidValueError(problem, remedy=remedy)


def _api_url(value: str) -> str:
    parts = split_http_url(value, example=API_URL)
    if parts.username is not None or "?" in value or "#" in value:
        remedy = f"write only scheme, host and path, such as {API_URL}"
        raise InvalidValueError("holds more than an address", remedy=remedy, quote=False)
    return value


class SlackBotSettings(HttpSinkSettings):
    """`{type: slack_bot, token: …, channel: …}`."""

    type: Literal["slack_bot"] = Field(
        description="Posts in one Slack channel as an app: one message for each problem, updated when it is over.",
        examples=["slack_bot"],
    )
    token: Annotated[SecretStr, AfterValidator(_bot_token)] = Field(
        description="The app's Bot User OAuth Token, `xoxb-…`; its scope `chat:write` is enough. Required, unless "
        "`token_file` is given.",
        examples=["${SLACK_BOT_TOKEN}"],
    )
    token_file: str | None = Field(
        default=None, description="The file that holds the token.", examples=["/run/secrets/slack_token"]
    )
    channel: Annotated[str, AfterValidator(_channel)] = Field(
        description="The channel's id: it stands at the end of the channel's details. The app must be in the channel.",
        examples=["C0123456789"],
    )
    url: Annotated[str, AfterValidator(_api_url)] = Field(
        default=API_URL, description="Where Slack's Web API is.", examples=["https://slack-gov.com/api"]
    )
    events: EventGlobs = ALERT_EVENTS
    rate_limit: Rate = Field(
        default=as_written("1/s"), description="The most requests sent; Slack takes one a second.", examples=["30/m"]
    )

    @property
    def address(self) -> str:
        """Return the whole URL."""
        return self.url

    @property
    def rules(self) -> WorkerRules:
        """Return how to send to it."""
        return replace(super().rules, keeps_messages=True)

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet. Needs a running event loop."""
        return SlackBotSink(self._opened(context.check), channel=self.channel, context=context)

    async def connect(self) -> str:
        """Ask Slack whether it knows the token."""
        poster = self._opened(lambda: None)
        try:
            result = (await call(poster, "auth.test", b"{}", clock=SystemClock())).result
        finally:
            await poster.close()
        if result.outcome is not SendOutcome.DELIVERED:
            raise TransportFailedError(result.answer, remedy=result.remedy)
        return f"takes the token; whether it may post in {self.channel} is shown by --send; nothing sent"

    def _opened(self, check: Callable[[], None]) -> Poster:
        headers = {"Authorization": f"Bearer {self.token.get_secret_value()}", "Accept-Encoding": "identity"}
        return self.poster(URL(self.url), headers=headers, check=check)


class Step(Enum):
    """What a message is to its problem."""

    OPENING = auto()
    """The problem's message itself. If there is one, this was sent before, and it is written again."""
    NEWS = auto()
    """Goes into its thread; without one it becomes the problem's message."""
    END = auto()
    """What the problem's message becomes; without one a message of its own."""
    NOTE = auto()
    """Says in its thread that it is over; without one there is nothing left to say."""
    OTHER = auto()
    """No problem's: in the thread of the problem that its pipeline keeps failing, else a message of its own."""


@dataclass(frozen=True, slots=True)
class _Message:
    """One message. `problem` is the one whose message it is, changes or answers; `delivery` that of its first event."""

    step: Step
    content: Json
    delivery: Delivery
    problem: UUID | None


def parts_of(batch: Sequence[Delivery], cut: Cutter) -> list[_Message]:
    """Return the messages in their order: what is of problems, then the rest. Their number depends on the events alone.

    What ends a problem and is trouble itself is both, the end first. What was refused comes in minimal form.
    """
    parts: list[_Message] = []
    others: Mapping[bool, list[Delivery]] = {True: [], False: []}
    openings = {each.message.problem: each.message.opening for each in batch if each.message is not None}
    for delivery in batch:
        alert = Alert.of(delivery.content)
        if alert.problem is not None:
            problem = UUID(alert.problem["id"])
            if alert.type == alert.problem["kind"]:
                openings[problem] = delivery.body
            parts += _of_problem(alert, delivery, problem, openings.get(problem), cut)
        if alert.problem is None or (alert.closes and alert.is_trouble and delivery.part is not Part.CLOSING):
            others[alert.is_trouble].append(delivery)
    return [*parts, *(_of_none(each, cut) for each in others.values() if each)]


def _of_problem(alert: Alert, delivery: Delivery, problem: UUID, opening: bytes | None, cut: Cutter) -> list[_Message]:
    is_whole = not delivery.rejections
    if alert.closes:
        headline = headline_of_end(alert)
        was = None if opening is None else Alert.read(opening)
        content = end_of_problem(alert, was, cut) if is_whole else minimal(headline, alert.ids)
        return [
            _Message(Step.END, content, delivery, problem),
            _Message(Step.NOTE, one_line(headline), delivery, problem),
        ]
    is_opening = alert.problem is not None and alert.type == alert.problem["kind"]
    content = SLACK.single(alert, cut) if is_whole else minimal(alert.headline, alert.ids)
    return [_Message(Step.OPENING if is_opening else Step.NEWS, content, delivery, problem)]


def _of_none(deliveries: Sequence[Delivery], cut: Cutter) -> _Message:
    """Return the one message of what is no problem's, of good news or of bad: in a thread if all belong in that one."""
    threads = {each.thread.problem if each.thread else None for each in deliveries}
    (news,) = read_batch(deliveries)
    is_whole = not deliveries[0].rejections
    content = SLACK.content_of(news, cut) if is_whole else minimal(news.headline, news.ids)
    return _Message(Step.OTHER, content, deliveries[0], threads.pop() if len(threads) == 1 else None)


class SlackBotSink(Sink):
    """One app in one channel."""

    def __init__(self, poster: Poster, *, channel: str, context: SinkContext) -> None:
        """Post new messages in that channel; those that are kept stay where they are."""
        self.channel = channel
        self._poster = poster
        self._context = context
        self._log = MessageLog(context.clock)
        self._taken = TakenParts()

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Send all messages of a delivery or a group; the first that is not taken ends it."""
        cut, attempt = Cutter(), _Attempt(batch, self, RequestSlots(self._context.take_slot))
        parts = await make_messages(partial(parts_of, cut=cut), batch)
        if cut.has_cut:
            self._log.cut(batch[0])
        return await self._taken.send(batch, parts, attempt.send)

    async def close(self) -> None:
        """Close all connections."""
        await self._poster.close()

    async def request(self, method: str, part: _Message, where: Mapping[str, str]) -> ApiAnswer:
        """Send a message once, with where it belongs."""
        left_out = _NOT_FOR_UPDATES if method == UPDATE else frozenset[str]()
        arguments = {**where, **{name: value for name, value in part.content.items() if name not in left_out}}
        answer = await call(self._poster, method, to_json(arguments).encode(), clock=self._context.clock)
        if answer.result.outcome is SendOutcome.REFUSED and not part.delivery.rejections:
            self._log.rejected(part.delivery, answer=answer.result.answer)
            return replace(answer, result=replace(answer.result, minimal_left=True))
        return answer


class _Attempt:
    """One attempt at a delivery or a group, and where messages are by now."""

    def __init__(self, batch: Sequence[Delivery], sink: SlackBotSink, slots: RequestSlots) -> None:
        kept = [message for each in batch for message in (each.message, each.thread) if message is not None]
        self._places: dict[UUID, MessagePlace] = {each.problem: each.place for each in kept if each.place is not None}
        self._changes: list[ProblemMessage] = []
        self._sink = sink
        self._slots = slots

    async def send(self, part: _Message) -> SendResult:
        """Send one message where it belongs; the result says what is to be kept."""
        self._changes = []
        place = None if part.problem is None else self._places.get(part.problem)
        result = await (self._post(part) if place is None else self._send_to(part, place))
        return replace(result, messages=tuple(self._changes))

    async def _post(self, part: _Message) -> SendResult:
        """Post a message of its own."""
        if part.step is Step.NOTE:
            return SendResult(SendOutcome.DELIVERED, "200")
        await self._slots.wait()
        answer = await self._sink.request(POST, part, {"channel": self._sink.channel})
        if answer.is_ok:
            self._keep(part, answer)
        return answer.result

    async def _send_to(self, part: _Message, place: MessagePlace) -> SendResult:
        """Update a problem's message or answer it; if it is gone, post one of its own."""
        is_update = part.step in {Step.OPENING, Step.END}
        where = {"channel": place.channel, "ts" if is_update else "thread_ts": place.number}
        await self._slots.wait()
        answer = await self._sink.request(UPDATE if is_update else POST, part, where)
        word = answer.result.answer
        if is_update and word in CANNOT_UPDATE_ERRORS:
            note = "it cannot be updated; what is new stands in its thread"
            log.warning("message.fixed", **_named(part.delivery), answer=word, note=note)
            return SendResult(SendOutcome.DELIVERED, word)
        # Of a channel that is no longer the sink's, the messages are as good as gone.
        if word in GONE_ERRORS or (word in CHANNEL_ERROR_REMEDIES and place.channel != self._sink.channel):
            self._forget(part, word)
            return await self._post(part)
        if answer.is_ok and not is_update and _stands_alone(answer):
            self._forget(part, "not in its thread")
            self._keep(part, answer)
        return answer.result

    def _forget(self, part: _Message, why: str) -> None:
        assert part.problem is not None
        del self._places[part.problem]
        self._changes.append(ProblemMessage(part.problem, None))
        note = "its problem's message is gone: a new one is posted"
        log.warning("message.gone", **_named(part.delivery), answer=why, note=note)

    def _keep(self, part: _Message, answer: ApiAnswer) -> None:
        """Keep where the problem's message is, if that is what was posted."""
        channel, number = answer.content.get("channel"), answer.content.get("ts")
        is_place = all(isinstance(text, str) and _PLACE.fullmatch(text) for text in (channel, number))
        if part.problem is not None and part.step in {Step.OPENING, Step.NEWS} and is_place:
            place = MessagePlace(str(channel), str(number))
            self._places[part.problem] = place
            self._changes.append(ProblemMessage(part.problem, place))


def _stands_alone(answer: ApiAnswer) -> bool:
    """Return whether an answer to a message became one of its own: so it does, silently, if that was deleted.

    https://github.com/slack-go/slack/issues/1571
    """
    message = answer.content.get("message")
    return isinstance(message, dict) and "thread_ts" not in message


def _named(delivery: Delivery) -> dict[str, str]:
    return {"sink": delivery.sink, "event_id": str(delivery.event_id), "type": delivery.type}
