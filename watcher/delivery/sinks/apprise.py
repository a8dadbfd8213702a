"""Sends by way of Apprise, which knows some 180 chat, mail and pager services. One URL, one sink, one result.

Apprise blocks, so it works in a thread: one per sink at a time, which nobody waits for at the end. Of the URL only the
scheme is ever shown. Apprise itself is an extra; without it only a file that asks for it is refused.
"""

import asyncio
import re
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field, SecretStr, field_validator

from watcher.delivery.sinks.plain_message import PlainMessage, plain_messages
from watcher.delivery.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext
from watcher.delivery.sinks.request_series import RequestSlots, TakenParts, make_messages
from watcher.delivery.sinks.settings import EventGlobs, RemoteSettings
from watcher.delivery.sinks.template import ALERT_EVENTS
from watcher.domain.delivery import Delivery
from watcher.runtime.settings import Rate, as_written
from watcher.runtime.threads import begin
from watcher.runtime.units import InvalidValueError

MESSAGE_BYTES = 3800
"""Title and body together, escaped as HTML: ntfy takes 4,096 bytes, Telegram as many characters."""

CALL_TIMEOUTS = 4
"""A message may take so many times `timeout`, which is for each of its connections and answers: mail has a dozen. One
that is given up too soon arrives all the same, and again with each retry."""

_SEVERAL = re.compile(r"[\s,]+[A-Za-z0-9]+://")
_SCHEME = re.compile(r"([A-Za-z0-9]+)://.*", re.DOTALL)
_HANGS = "Apprise has not come back from an earlier message; a restart lets go of it"
_REMEDY = "check its URL, and whether this machine reaches the service (HTTPS_PROXY)"
_EXAMPLE = "write it like ntfys://ntfy.sh/topic"


def _apprise_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if _SEVERAL.search(url):
        raise InvalidValueError("holds several URLs", remedy="write a sink for each", quote=False)
    if not _SCHEME.fullmatch(url):
        raise InvalidValueError("does not begin with the scheme of a service", remedy=_EXAMPLE, quote=False)
    try:
        from watcher.delivery.sinks.apprise_service import check_url  # noqa: PLC0415 (of an extra)
    except ImportError:
        return value  # `type` says so
    check_url(url)
    return value


class AppriseSettings(RemoteSettings):
    """`{type: apprise, url: …}`."""

    type: Literal["apprise"] = Field(
        description="Sends messages to a chat, mail or pager service by way of [Apprise](sinks.md#apprise). Needs the "
        "extra: `pip install '.[apprise]'` in a checkout of this project.",
        examples=["apprise"],
    )
    events: EventGlobs = ALERT_EVENTS
    url: Annotated[SecretStr, AfterValidator(_apprise_url)] = Field(
        description="The Apprise URL of one service. Required, unless `url_file` is given. Only its scheme is ever "
        "shown.",
        examples=["${APPRISE_URL}"],
    )
    url_file: str | None = Field(
        default=None, description="The file that holds the URL.", examples=["/run/secrets/apprise_url"]
    )
    rate_limit: Rate = Field(default=as_written("1/s"), description="The most messages sent.", examples=["10/m"])

    @field_validator("type")
    @classmethod
    def _extra_is_there(cls, value: str) -> str:
        try:
            from watcher.delivery.sinks import apprise_service  # noqa: F401, PLC0415 (of an extra)
        except ImportError:
            remedy = "from a checkout: pip install '.[apprise]'"
            raise InvalidValueError("apprise needs the extra", remedy=remedy, quote=False) from None
        return value

    @property
    def target(self) -> str:
        """Return the scheme: all the rest is a secret."""
        return f"{self.url.get_secret_value().partition('://')[0].lower()}://"

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet."""
        return AppriseSink(self._service(), timeout_s=self.timeout_s, context=context)

    async def connect(self) -> str:
        """Do nothing: Apprise can only send."""
        return "not tried, for Apprise can only send: use --send"

    def _service(self) -> "Service":
        from watcher.delivery.sinks.apprise_service import AppriseService  # noqa: PLC0415 (of an extra)

        return AppriseService(self.url.get_secret_value(), timeout_s=self.timeout_s)


class Service(Protocol):
    """What sends. `body_length` is how many characters it takes."""

    body_length: int

    def notify(self, message: PlainMessage) -> str | None:
        """Send once, blocking. Return `None` if it was taken, else why not."""
        ...


class AppriseSink(Sink):
    """Sends one message at a time. While one hangs, though nobody waits for it any more, nothing else is sent."""

    def __init__(self, service: Service, *, timeout_s: float, context: SinkContext) -> None:
        """Send to this service."""
        self._service = service
        self._most_bytes = _most_bytes(service)
        self._call_timeout_s = CALL_TIMEOUTS * timeout_s
        self._context = context
        self._turn = asyncio.Lock()
        self._call: Future[str | None] | None = None
        self._taken = TakenParts()

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Send the messages of a delivery or a group; the first that is not taken ends it."""
        slots = RequestSlots(self._context.take_slot)

        async def notify(message: PlainMessage) -> SendResult:
            await slots.wait()
            return await self._notify(message)

        make = partial(plain_messages, most_bytes=self._most_bytes)
        return await self._taken.send(batch, await make_messages(make, batch), notify)

    async def close(self) -> None:
        """Hold nothing: a thread that hangs ends with its call or with the process."""

    async def _notify(self, message: PlainMessage) -> SendResult:
        """Send one message; while an earlier one hangs, do not."""
        async with self._turn:
            if self._call is not None and not self._call.done():
                return SendResult(SendOutcome.RETRY, "timeout", remedy=_HANGS)
            self._call = begin(partial(self._checked_notify, message), name="apprise")
            try:
                async with asyncio.timeout(self._call_timeout_s):
                    answer = await asyncio.wrap_future(self._call)
            except TimeoutError:
                answer = "timeout"
        if answer is None:
            return SendResult(SendOutcome.DELIVERED, "ok")
        return SendResult(SendOutcome.RETRY, answer, remedy=_REMEDY)

    def _checked_notify(self, message: PlainMessage) -> str | None:
        self._context.check()
        return self._service.notify(message)


def _most_bytes(service: Service) -> int:
    return min(MESSAGE_BYTES, service.body_length)
