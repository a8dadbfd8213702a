"""The sink that sends through Apprise, which knows some 180 chat, mail and pager services. One sink is one service.

Texts from the API mention nobody, but the service decides whether it reads markup in them. Calls of Apprise block: each
sink makes them in a thread, one at a time. The process can end while that thread still runs. Apprise is an optional
dependency, the extra `apprise`: only a configuration with such a sink needs it.
"""

import asyncio
import html
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType, Severity
from watcher.runtime.settings import Rate, as_written, file_twin
from watcher.runtime.threads import begin
from watcher.runtime.units import InvalidValueError
from watcher.sinks.alert import GOOD, in_utc
from watcher.sinks.chat import notice_of_batch
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext
from watcher.sinks.settings import EventGlobs, RemoteSettings
from watcher.sinks.template import ALERT_EVENTS

MESSAGE_BYTES = 3800
"""The most bytes of title and body together, escaped as HTML. ntfy takes 4,096 bytes, Telegram 4,096 characters."""

CALL_TIMEOUTS = 4
"""The longest wait for one call, as a multiple of `timeout`. Apprise applies `timeout` to each connection and each
answer, and one mail has a dozen. A call that lasts longer may still deliver its message, and the retry repeats it."""

ERROR_LENGTH = 900

_TYPES = {Severity.WARNING: "warning", Severity.INFO: "info"}

_MENTION = re.compile(r"(?<!\w)@(?=\S)")
_BROKEN_MENTION = "@\N{ZERO WIDTH SPACE}"
_SEVERAL = re.compile(r"[\s,]+[A-Za-z0-9]+://")
_SCHEME = re.compile(r"([A-Za-z0-9]+)://.*", re.DOTALL)
_HANGS = "Apprise has not returned from an earlier message; a restart ends that call"
_REMEDY = "check its URL, and whether this machine reaches the service (HTTPS_PROXY)"
_EXAMPLE = "write it like ntfys://ntfy.sh/topic"


def _apprise_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if _SEVERAL.search(url):
        raise InvalidValueError("holds several URLs", remedy="write a sink for each")
    if not _SCHEME.fullmatch(url):
        raise InvalidValueError("does not begin with the scheme of a service", remedy=_EXAMPLE)
    try:
        from watcher.sinks.apprise_service import AppriseService  # noqa: PLC0415 (it imports an extra)
    except ImportError:
        raise InvalidValueError("apprise needs the extra", remedy="from a checkout: pip install '.[apprise]'") from None
    AppriseService(url, timeout_s=0.0)  # raises an error for a URL that it cannot use
    return value


class AppriseSettings(RemoteSettings):
    """`{type: apprise, url: …}`."""

    type: Literal["apprise"] = Field(examples=["apprise"])
    """Sends messages to a service by way of [Apprise](../receivers/apprise.md), an extra: `pip install '.[apprise]'` in
    a checkout of this project."""
    events: EventGlobs = ALERT_EVENTS
    url: Annotated[SecretStr, AfterValidator(_apprise_url)] = Field(examples=["${APPRISE_URL}"])
    """The Apprise URL of one service. Required. Only its scheme is ever shown."""
    url_file: str | None = file_twin("the URL", example="/run/secrets/apprise_url")
    rate_limit: Rate = Field(default=as_written("1/s"), examples=["10/m"])
    """The highest rate of messages."""

    @property
    def is_chat(self) -> bool:
        """Whether people read each message: in a chat that keeps no state, or as mail."""
        return True

    @property
    def target(self) -> str:
        """Return the scheme. The rest of the URL is a secret."""
        return f"{self.url.get_secret_value().partition('://')[0].lower()}://"

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet."""
        from watcher.sinks.apprise_service import AppriseService  # noqa: PLC0415 (it imports an extra)

        service = AppriseService(self.url.get_secret_value(), timeout_s=self.timeout_s)
        return AppriseSink(service.notify, timeout_s=self.timeout_s, context=context)

    async def connect(self) -> str:
        """Return a text that says that nothing was tried: Apprise can only send."""
        return "not tried, for Apprise can only send: use --send"


class AppriseSink(Sink):
    """One service, which gets one message at a time. While a call hangs, no further message is sent."""

    def __init__(
        self, notify: Callable[[str, str, str], str | None], *, timeout_s: float, context: SinkContext
    ) -> None:
        """Send by `notify`. It takes title, body and type, blocks, and returns an error, or `None` for success."""
        self._service_notify = notify
        self._call_timeout_s = CALL_TIMEOUTS * timeout_s
        self._context = context
        self._turn = asyncio.Lock()
        self._call: Future[str | None] | None = None

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Send the message of a delivery or a group, unless an earlier call still hangs."""
        async with self._turn:
            if self._call is not None and not self._call.done():
                return SendResult(SendOutcome.RETRY, "timeout", remedy=_HANGS)
            self._call = begin(partial(self._notify, batch), name="apprise")
            try:
                async with asyncio.timeout(self._call_timeout_s):
                    answer = await asyncio.wrap_future(self._call)
            except TimeoutError:
                answer = "timeout"
        if answer is None:
            return SendResult(SendOutcome.DELIVERED, "ok")
        return SendResult(SendOutcome.RETRY, answer, remedy=_REMEDY)

    def _notify(self, batch: Sequence[Delivery]) -> str | None:
        message = plain_message(batch, self._context.public_url)
        self._context.before_request()
        return self._service_notify(*message)


def plain_message(batch: Sequence[Delivery], public_url: str = "") -> tuple[str, str, str]:
    """Return title, body and Apprise's type of message for a delivery or a group.

    The end of a long body is cut off, so that both have at most `MESSAGE_BYTES` with `& < >` and quotes escaped.
    """
    notice = notice_of_batch(batch, public_url, error_length=ERROR_LENGTH)
    facts = {} if notice.moment is None else {notice.moment[0]: in_utc(notice.moment[1])}
    facts |= notice.facts
    newest = ("\n".join(filter(None, (each.headline, *each.details, each.link))) for each in notice.newest)
    sections = (  # the most important first: the end may be cut off
        _without_mentions(notice.error),
        _without_mentions(notice.footer),
        "\n".join(f"{name}: {link}" for name, link in notice.links.items()),
        _without_mentions(" · ".join(f"{name}: {value}" for name, value in facts.items())),
        _without_mentions("\n".join(["Also failed:", *notice.nodes])) if notice.nodes else "",
        f"The newest {len(notice.newest)}:" if notice.newest else "",
        *map(_without_mentions, newest),
    )
    title, body = _without_mentions(notice.headline), "\n\n".join(filter(None, sections))
    is_good = title.startswith(GOOD[0]) and batch[0].type != EventType.WATCHER_TEST
    type_ = "success" if is_good else _TYPES.get(notice.severity, "failure")
    return title, _within(body, MESSAGE_BYTES - _size(f"{title}\n")), type_


def _within(text: str, most_bytes: int) -> str:
    kept = text
    while (excess := _size(kept) - most_bytes) > 0:
        kept = f"{kept[: -2 - excess // 6]}…"  # no character takes more than six bytes
    return kept


def _size(text: str) -> int:
    return len(html.escape(text).encode())


def _without_mentions(text: str) -> str:
    """Return a text in which no `@everyone` or `<@id>` is a mention. Mail addresses stay unchanged."""
    return _MENTION.sub(_BROKEN_MENTION, text)
