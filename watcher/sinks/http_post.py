"""HTTP requests of sinks and the heartbeat, and trial connections without a request. The caller judges each answer.

No redirect is followed: the body and its signature would go to a stranger.
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from watcher.domain.errors import TransportFailedError
from watcher.runtime.http_client import (
    PROXY_AUTH,
    USER_AGENT,
    checked_request,
    failure,
    failure_of,
    is_private_host,
    limited_session,
    proxy_for,
    public_socket,
)
from watcher.runtime.pacing import parse_retry_after
from watcher.sinks.protocol import RETRY_AFTER_CAP_S, SendOutcome, SendResult, SinkContext

SMALL_BODY_BYTES = 4096
JUDGED_BODY_BYTES = 128 * 1024
"""The most bytes that are read of a body on which the result depends. Slack's answer repeats the whole message."""

BODY_GRACE_S = 0.1
"""The longest wait for a body on which nothing depends. A connection is used again only if its body was read."""

_STATUS_LINE = re.compile(rb"HTTP/1\.\d ([2-5]\d\d)[ \r\n]")
_STATUS_LINE_BYTES = 64
"""The number of first bytes that are kept of an answer: enough for its status."""


class _Connection(ResponseHandler):
    """A connection that keeps the first bytes of the answer that it receives."""

    beginning = b""

    def data_received(self, data: bytes) -> None:
        if len(self.beginning) < _STATUS_LINE_BYTES:
            self.beginning += data[:_STATUS_LINE_BYTES]
        super().data_received(data)


class _Response(aiohttp.ClientResponse):
    """An answer that counts once its status line has arrived, even if the rest of the answer cannot be read.

    A receiver that answered 2xx has the event, even if the rest breaks HTTP: some servers send a 204 with a body
    (FastAPI: encode/httpx#1474, aiohttp: aio-libs/aiohttp#5106). aiohttp's own class raises an error without a status.
    aiohttp never reads a proxy's answer to CONNECT with this class.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Wait for the answer. If only its status line can be read, reading the body raises the error."""
        protocol = connection.protocol
        assert isinstance(protocol, _Connection)
        protocol.beginning = b""
        try:
            return await super().start(connection)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            line = _STATUS_LINE.match(protocol.beginning)
            if line is None:
                raise
            self.close()
            self.status = int(line[1])
            self._headers = CIMultiDictProxy(CIMultiDict())
            self.content = aiohttp.StreamReader(protocol, 0, loop=asyncio.get_running_loop())
            self.content.set_exception(error)
            return self


class Poster:
    """The sender of requests to one URL, through the proxy that the environment names for this URL."""

    def __init__(
        self,
        url: URL,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        context: SinkContext,
        allow_private: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Open no connection yet. Needs a running event loop. Raises `ConfigError` for a proxy that cannot be used.

        `headers` go into every request. Without `allow_private` a private address is refused when its socket is made.
        With a proxy only an address in the URL can be refused: the proxy resolves names, and may itself be private.
        Without `tls` the system's CAs are trusted, and no client certificate is sent.
        """
        self._clock = context.clock
        self._headers = CIMultiDict(headers)
        # aiohttp refuses a login in the URL if there is this header, too.
        self._url = url.with_user(None) if "Authorization" in self._headers else url
        self._headers["User-Agent"] = USER_AGENT
        self._proxy = proxy_for(self._url)
        if self._url.scheme == "http":
            self._headers.update(self._proxy.headers)  # there is no CONNECT: the proxy reads the request itself
        self._is_private = not allow_private and self._proxy.url is not None and is_private_host(url.raw_host or "")
        connector = aiohttp.TCPConnector(
            limit=0,  # the worker limits the requests in flight
            ssl=tls or True,
            socket_factory=public_socket if self._proxy.url is None and not allow_private else None,
        )
        # aiohttp has no public way to choose the class of a connection.
        connector._factory = partial(_Connection, loop=asyncio.get_running_loop())  # type: ignore[assignment] # noqa: SLF001 (a subclass is enough)
        self._session = limited_session(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            connector=connector,
            response_class=_Response,
            request_class=checked_request(context.before_request),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=SMALL_BODY_BYTES,
        )

    async def request(
        self,
        body: bytes | None,
        *,
        judge: Callable[[int, bytes], SendResult],
        path: str = "",
        headers: Mapping[str, str] = MappingProxyType({}),
        judged_by_body: Container[int] = (),
        method: str = "POST",
    ) -> SendResult:
        """Send one request to the URL, or to a path below it. `judge` turns status and body into the result.

        For a status in `judged_by_body` the result depends on the body: if none of it arrives, the request has failed.
        """
        all_headers = self._headers.copy()
        all_headers.update(headers)
        try:
            if self._is_private:
                raise failure("private")
            async with self._session.request(
                method,
                self._url / path if path else self._url,
                data=body,
                headers=all_headers,
                allow_redirects=False,
                proxy=self._proxy.url,
                proxy_headers=self._proxy.headers,
            ) as response:
                if response.status == PROXY_AUTH and self._proxy.url is not None:
                    raise failure("proxy_auth")
                beginning = await _beginning(response, is_judged=response.status in judged_by_body)
        except (aiohttp.ClientError, TimeoutError, OSError, TransportFailedError) as error:
            if not isinstance(error, TransportFailedError):
                error = failure_of(error, by_proxy=self._proxy.url is not None)
            return SendResult(SendOutcome.RETRY, error.kind, remedy=error.remedy)
        result = judge(response.status, beginning)
        if "Retry-After" not in response.headers or result.outcome.is_taken:
            return result
        after_s = parse_retry_after(response.headers["Retry-After"], now=self._clock.now()) or 0.0
        return replace(result, retry_after_s=min(after_s, RETRY_AFTER_CAP_S))

    async def open_socket(self, url: URL, *, heartbeat_s: float) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket to another URL of the same service, with no header of this poster.

        It ends if nothing arrives for `heartbeat_s`, not even an answer to a ping. Raises `TransportFailedError`.
        """
        try:
            return await self._session.ws_connect(
                url,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                heartbeat=heartbeat_s,
                proxy=self._proxy.url,
                proxy_headers=self._proxy.headers,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise failure_of(error, by_proxy=self._proxy.url is not None) from None

    async def try_connection(self) -> str:
        """Connect as for a request, also through a proxy, and return a text about that. Raises `TransportFailedError`.

        The `before_request` in the context of this poster must be `stop`.
        """
        try:
            result = await self.request(b"", judge=lambda status, _: SendResult(SendOutcome.RETRY, str(status)))
        except NothingSentError:
            if self._proxy.url is None:
                return "connected, nothing sent"
            is_led_through = self._url.scheme == "https"
            return f"{'connected through the proxy' if is_led_through else 'proxy connected'}, nothing sent"
        raise TransportFailedError(result.answer, remedy=result.remedy)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()


class NothingSentError(Exception):
    """The error that ends a request as soon as its connection is open, before anything is sent."""


def stop() -> None:
    """Raise `NothingSentError`. This is the `before_request` of a poster that only connects."""
    raise NothingSentError


async def _beginning(response: aiohttp.ClientResponse, *, is_judged: bool) -> bytes:
    """Return the beginning of an answer's body, and close the response.

    Wait up to `BODY_GRACE_S` for a small body: the connection can be used again only if the body was read to its end. A
    judged body is read without this limit. If none of it arrives, raise the error.
    """
    body, most = b"", JUDGED_BODY_BYTES if is_judged else SMALL_BODY_BYTES
    try:
        async with asyncio.timeout(None if is_judged else BODY_GRACE_S):
            while len(body) < most and (part := await response.content.readany()):
                body += part
    except (aiohttp.ClientError, TimeoutError):
        if is_judged and not body:
            raise
    response.close()
    return body[:most]
