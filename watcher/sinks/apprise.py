"""Sends by way of Apprise, which knows some 180 chat, mail and pager services. One URL, one sink, one result.

The texts of others mention nobody; whether markup in them is shown as it is, is up to the service. Apprise blocks, so
it works in a thread: one per sink at a time, which nobody waits for at the end. It is an extra: without it only a file
that asks for it is refused.
"""

import asyncio
import html
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.problems import Severity
from watcher.runtime.settings import Rate, as_written, file_twin
from watcher.runtime.threads import begin
from watcher.runtime.units import InvalidValueError
from watcher.sinks.alert import GOOD, in_utc
from watcher.sinks.chat import read_batch
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext
from watcher.sinks.settings import EventGlobs, RemoteSettings
from watcher.sinks.template import ALERT_EVENTS

MESSAGE_BYTES = 3800
"""Title and body together, escaped as HTML: ntfy takes 4,096 bytes, Telegram as many characters."""

CALL_TIMEOUTS = 4
"""A message may take so many times `timeout`, which is for each of its connections and answers: mail has a dozen. One
that is given up too soon arrives all the same, and again with each retry."""

ERROR_LENGTH = 900

_TYPES: Mapping[Severity, str] = {
    Severity.CRITICAL: "failure",
    Severity.ERROR: "failure",
    Severity.WARNING: "warning",
    Severity.INFO: "info",
}

_MENTION = re.compile(r"(?<!\w)@(?=\S)")
_BROKEN_MENTION = "@\N{ZERO WIDTH SPACE}"
_SEVERAL = re.compile(r"[\s,]+[A-Za-z0-9]+://")
_SCHEME = re.compile(r"([A-Za-z0-9]+)://.*", re.DOTALL)
_HANGS = "Apprise has not come back from an earlier message; a restart lets go of it"
_REMEDY = "check its URL, and whether this machine reaches the service (HTTPS_PROXY)"
_EXAMPLE = "write it like ntfys://ntfy.sh/topic"


def _apprise_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if _SEVERAL.search(url):
        raise InvalidValueError("holds several URLs", remedy="write a sink for each")
    if not _SCHEME.fullmatch(url):
        raise InvalidValueError("does not begin with the scheme of a service", remedy=_EXAMPLE)
    try:
        from watcher.sinks.apprise_service import AppriseService  # noqa: PLC0415 (of an extra)
    except ImportError:
        raise InvalidValueError("apprise needs the extra", remedy="from a checkout: pip install '.[apprise]'") from None
    AppriseService(url, timeout_s=0.0)  # raises what is wrong with it
    return value


class AppriseSettings(RemoteSettings):
    """`{type: apprise, url: …}`."""

    type: Literal["apprise"] = Field(examples=["apprise"])
    """Sends messages to a chat, mail or pager service by way of [Apprise](sinks.md#apprise). Needs the extra: `pip
    install '.[apprise]'` in a checkout of this project."""
    events: EventGlobs = ALERT_EVENTS
    url: Annotated[SecretStr, AfterValidator(_apprise_url)] = Field(examples=["${APPRISE_URL}"])
    """The Apprise URL of one service. Required, unless `url_file` is given. Only its scheme is ever shown."""
    url_file: str | None = file_twin("the URL", example="/run/secrets/apprise_url")
    rate_limit: Rate = Field(default=as_written("1/s"), examples=["10/m"])
    """The most messages sent."""

    @property
    def target(self) -> str:
        """Return the scheme: all the rest is a secret."""
        return f"{self.url.get_secret_value().partition('://')[0].lower()}://"

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet."""
        from watcher.sinks.apprise_service import AppriseService  # noqa: PLC0415 (of an extra)

        service = AppriseService(self.url.get_secret_value(), timeout_s=self.timeout_s)
        return AppriseSink(service.notify, timeout_s=self.timeout_s, context=context)

    async def connect(self) -> str:
        """Do nothing: Apprise can only send."""
        return "not tried, for Apprise can only send: use --send"


class AppriseSink(Sink):
    """Sends one message at a time. While one hangs, though nobody waits for it any more, nothing else is sent."""

    def __init__(
        self, notify: Callable[[str, str, str], str | None], *, timeout_s: float, context: SinkContext
    ) -> None:
        """Send by `notify`: it blocks, takes what `plain_message` returns, and says why not, else `None`."""
        self._service_notify = notify
        self._call_timeout_s = CALL_TIMEOUTS * timeout_s
        self._context = context
        self._turn = asyncio.Lock()
        self._call: Future[str | None] | None = None

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Send the message of a delivery or a group; while an earlier one hangs, do not."""
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
        self._context.check()
        return self._service_notify(*message)


def plain_message(batch: Sequence[Delivery], public_url: str = "") -> tuple[str, str, str]:
    """Return the title and the body for a delivery or a group, and how bad it is, as Apprise calls that.

    What is too long loses its end: by what both take in UTF-8 with `& < >` and quotes escaped.
    """
    notice = read_batch(batch, public_url, error_length=ERROR_LENGTH)
    facts = {} if notice.moment is None else {notice.moment[0]: in_utc(notice.moment[1])}
    facts |= notice.facts
    newest = ("\n".join(filter(None, (each.headline, *each.details, each.link))) for each in notice.newest)
    sections = (  # what matters most first: the end is what may be cut
        _harmless(notice.error),
        _harmless(notice.footer),
        "\n".join(f"{name}: {link}" for name, link in notice.links.items()),
        _harmless(" · ".join(f"{name}: {value}" for name, value in facts.items())),
        _harmless("\n".join(["Also failed:", *notice.nodes])) if notice.nodes else "",
        f"The newest {len(notice.newest)}:" if notice.newest else "",
        *map(_harmless, newest),
    )
    title, body = _harmless(notice.headline), "\n\n".join(filter(None, sections))
    is_good = title.startswith(GOOD[0]) and batch[0].type != EventType.WATCHER_TEST
    type_ = "success" if is_good else _TYPES[notice.severity]
    return title, _within(body, MESSAGE_BYTES - _size(f"{title}\n")), type_


def _within(text: str, most_bytes: int) -> str:
    kept = text
    while (excess := _size(kept) - most_bytes) > 0:
        kept = f"{kept[: -2 - excess // 6]}…"  # no character takes more than six bytes
    return kept


def _size(text: str) -> int:
    return len(html.escape(text).encode())


def _harmless(text: str) -> str:
    """Return a text in which no `@everyone` or `<@id>` is a mention; addresses of mail stay as they are."""
    return _MENTION.sub(_BROKEN_MENTION, text)
