"""The webhook sink: signed POSTs as Standard Webhooks asks for, and what each answer means.

When to try, and how often, is the worker's. Of the URL only scheme and host are ever shown: its path is a secret.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import aiohttp
from multidict import CIMultiDict
from pydantic import Field
from yarl import URL

from watcher.delivery.sinks.protocol import RetryRules, SendOutcome, SendResult, Sink, SinkContext, WorkerRules
from watcher.delivery.sinks.settings import Headers, SigningSecrets, SinkSettings, SinkUrl
from watcher.delivery.sinks.signing import sign, signing_key
from watcher.delivery.sinks.status_line import Connector, Head, head_of_answer
from watcher.domain.models import Delivery
from watcher.runtime.backoff import parse_retry_after
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import FIELD_BYTES, HEADERS, USER_AGENT, failure_kind, proxy_for
from watcher.runtime.settings import Block, Duration, Rate, as_written, shown_url

CONNECTIONS = 16
"""At most so many requests in flight per sink (SPEC 5)."""

SMALL_BODY_BYTES = 4096
BODY_GRACE_S = 0.1
"""How long a small body may take to arrive after its headers, so that its connection can be used again."""

_OUTCOMES = {
    400: SendOutcome.REFUSED,
    410: SendOutcome.GONE,
    413: SendOutcome.REFUSED,
    422: SendOutcome.REFUSED,
    429: SendOutcome.BUSY,
}


class RetrySettings(Block):
    """When a failed delivery is tried again: the last step repeats until `give_up_after`."""

    schedule: tuple[Duration, ...] = Field(
        default=tuple(map(as_written, ("1s", "5s", "30s", "2m", "10m", "1h", "3h"))),
        min_length=1,
        description="The waits of a delivery that fails while others get through (±20 %), unless `Retry-After` asks "
        "for more; the last one repeats.",
        examples=["[5s, 1m, 10m]"],
    )
    give_up_after_s: Duration = Field(
        default=as_written("3d"),
        alias="give_up_after",
        description="How long a delivery is retried, from when it was first due; then it is a dead letter.",
        examples=["12h"],
    )


def outcome_of(status: int) -> SendOutcome:
    """Return what a status code means for a delivery (SPEC 5)."""
    if 200 <= status <= 299:  # noqa: PLR2004 (HTTP)
        return SendOutcome.DELIVERED
    return _OUTCOMES.get(status, SendOutcome.RETRY)


class WebhookSettings(SinkSettings):
    """`{type: webhook, url: …}`. `secret` is a tuple, for a list signs with each."""

    type: Literal["webhook"] = Field(description="Posts each event to a URL, signed.", examples=["webhook"])
    url: SinkUrl = Field(
        description="The URL to post to. Required, unless `url_file` is given. Only scheme and host are ever shown.",
        examples=["https://hooks.example.com/clerk"],
    )
    url_file: str | None = Field(
        default=None, description="The file that holds the URL.", examples=["/run/secrets/ops_url"]
    )
    secret: SigningSecrets = Field(
        default=(),
        description="Signs each request (Standard Webhooks): `whsec_` and base64 of 24 to 64 bytes. "
        "A list signs with each, for rotation. Without one nothing is signed.",
        examples=["${OPS_WEBHOOK_SECRET}"],
    )
    secret_file: str | None = Field(
        default=None,
        description="The file that holds the secrets, one per line.",
        examples=["/run/secrets/ops_webhook_secret"],
    )
    headers: Headers = Field(
        default_factory=dict,
        description="Added to each request; their values are secrets.",
        examples=['{Authorization: "Bearer ${OPS_TOKEN}"}'],
    )
    timeout_s: Duration = Field(
        default=as_written("15s"), alias="timeout", description="How long one request may take.", examples=["5s"]
    )
    rate_limit: Rate = Field(default=as_written("100/s"), description="The most deliveries sent.", examples=["60/m"])
    retry: RetrySettings = Field(default=RetrySettings(), description="When a failed delivery is tried again.")

    @property
    def target(self) -> str:
        """Return scheme and host, with the port where there is one: the path is a secret."""
        return shown_url(self.url.get_secret_value())

    @property
    def rules(self) -> WorkerRules:
        """Return how to send to it."""
        return WorkerRules(RetryRules(self.retry.schedule, self.retry.give_up_after_s), self.rate_limit)

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet. Needs a running event loop."""
        return WebhookSink(self, clock=context.clock)

    async def connect(self) -> str:
        """Connect to the host, or to the proxy that leads there, and say nothing."""
        target = URL(self.url.get_secret_value())
        proxy = proxy_for(target).url
        end = proxy or target
        context = ssl.create_default_context() if end.scheme == "https" else None
        async with asyncio.timeout(self.timeout_s):
            _, writer = await asyncio.open_connection(end.raw_host, end.port, ssl=context)
        writer.transport.abort()
        return "proxy connected, nothing sent" if proxy else "connected, nothing sent"


class WebhookSink:
    """Posts events to one URL."""

    batch_count = 1

    def __init__(self, settings: WebhookSettings, *, clock: Clock) -> None:
        """Open no connection yet. Needs a running event loop."""
        self._clock = clock
        self._url = URL(settings.url.get_secret_value())
        self._keys = [signing_key(secret.get_secret_value()) for secret in settings.secret]
        self._headers = CIMultiDict({name: value.get_secret_value() for name, value in settings.headers.items()})
        if "Authorization" in self._headers:
            self._url = self._url.with_user(None)  # aiohttp refuses to choose between the two
        self._headers.update({"Content-Type": "application/cloudevents+json; charset=utf-8", "User-Agent": USER_AGENT})
        self._proxy = proxy_for(self._url)
        if self._url.scheme == "http":
            self._headers.update(self._proxy.headers)  # the proxy reads the request itself, there is no CONNECT
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=settings.timeout_s),
            connector=Connector(limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=SMALL_BODY_BYTES,
            max_line_size=FIELD_BYTES,
            max_field_size=FIELD_BYTES,
            max_headers=HEADERS,
        )

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Post the one delivery once. No redirect is followed: the event, and its signature, would go to a stranger."""
        (delivery,) = batch
        try:
            async with self._session.post(
                self._url,
                data=delivery.body,
                headers=self._headers_for(delivery),
                allow_redirects=False,
                proxy=self._proxy.url,
                proxy_headers=self._proxy.headers,
            ) as response:
                await _let_go(response)
                return self._result(Head(response.status, response.headers.get("Retry-After")))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            head = head_of_answer()  # the status line came: that is an answer, whatever is wrong with the rest
            return SendResult(SendOutcome.RETRY, failure_kind(error)) if head is None else self._result(head)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _headers_for(self, delivery: Delivery) -> CIMultiDict[str]:
        headers = self._headers.copy()
        message_id = str(delivery.event_id)
        timestamp = str(int(self._clock.now().timestamp()))
        headers["webhook-id"] = message_id
        headers["webhook-timestamp"] = timestamp
        if self._keys:
            headers["webhook-signature"] = sign(
                delivery.body, message_id=message_id, timestamp=timestamp, keys=self._keys
            )
        return headers

    def _result(self, head: Head) -> SendResult:
        outcome = outcome_of(head.status)
        if outcome is SendOutcome.DELIVERED:
            return SendResult(outcome, str(head.status))
        return SendResult(outcome, str(head.status), parse_retry_after(head.retry_after, now=self._clock.now()))


async def _let_go(response: aiohttp.ClientResponse) -> None:
    """Let go of an answer of which only the head is wanted.

    A connection can be used again once the body is through, which is waited for if it is small and all but there.
    """
    if (response.content_length or 0) <= SMALL_BODY_BYTES:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(BODY_GRACE_S):
                await response.content.wait_eof()
    response.close()
