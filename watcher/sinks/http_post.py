"""Posts a body to a URL for one sink, once, or only connects to it. What an answer means is the sink's business.

No redirect is followed: what is posted, and its signature, would go to a stranger.
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
"""More than any answer has that is judged by its body: Slack's to a message holds the message."""

BODY_GRACE_S = 0.1
"""How long a small body may take to arrive after its headers, so that its connection can be used again."""

_STATUS_LINE = re.compile(rb"HTTP/1\.\d ([2-5]\d\d)[ \r\n]")
_STATUS_LINE_BYTES = 64
"""More than are looked at."""


class _Connection(ResponseHandler):
    """A connection that keeps the beginning of the answer it is receiving."""

    beginning = b""

    def data_received(self, data: bytes) -> None:
        if len(self.beginning) < _STATUS_LINE_BYTES:
            self.beginning += data[:_STATUS_LINE_BYTES]
        super().data_received(data)


class _Response(aiohttp.ClientResponse):
    """An answer, which it is once its status line came, whatever becomes of the rest.

    A receiver that answered 2xx has the event, even if what follows breaks HTTP: servers send a 204 with a body
    (FastAPI: encode/httpx#1474, aiohttp: aio-libs/aiohttp#5106). aiohttp raises an error for that, and does not say
    what the status was. What a proxy answers on the way is no answer: aiohttp makes none of these of it.
    """

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Wait for the answer. Of one whose rest cannot be read the body is the error."""
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
    """Posts to one server, through the proxy that the environment names for it, with what goes into every request."""

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

        Where no private address is allowed, each one is judged when the socket to it is made. Behind a proxy, which
        itself may be private, only an address in the URL can be judged: names are resolved by the proxy. Without `tls`
        the system's CAs are trusted, and no certificate is shown.
        """
        self._clock = context.clock
        self._headers = CIMultiDict(headers)
        # aiohttp refuses to choose between two logins.
        self._url = url.with_user(None) if "Authorization" in self._headers else url
        self._headers["User-Agent"] = USER_AGENT
        self._proxy = proxy_for(self._url)
        if self._url.scheme == "http":
            self._headers.update(self._proxy.headers)  # the proxy reads the request itself, there is no CONNECT
        self._is_private = not allow_private and self._proxy.url is not None and is_private_host(url.raw_host or "")
        connector = aiohttp.TCPConnector(
            limit=0,  # the worker's
            ssl=tls or True,
            socket_factory=public_socket if self._proxy.url is None and not allow_private else None,
        )
        # There is no public way to choose what a connection is made of.
        connector._factory = partial(_Connection, loop=asyncio.get_running_loop())  # type: ignore[assignment] # noqa: SLF001 (a subclass will do)
        self._session = limited_session(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            connector=connector,
            response_class=_Response,
            request_class=checked_request(context.check),
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
        """Post once, to the URL or a path behind it. What the answer means `judge` says, by code and first bytes.

        The body of an answer is waited for where its status code alone says too little: `judged_by_body`. If none of
        it comes, that is no answer.
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
                said = await _beginning(response, is_judged=response.status in judged_by_body)
        except (aiohttp.ClientError, TimeoutError, OSError, TransportFailedError) as error:
            if not isinstance(error, TransportFailedError):
                error = failure_of(error, by_proxy=self._proxy.url is not None)
            return SendResult(SendOutcome.RETRY, error.kind, remedy=error.remedy)
        result = judge(response.status, said)
        if "Retry-After" not in response.headers or result.is_taken:
            return result
        after_s = parse_retry_after(response.headers["Retry-After"], now=self._clock.now()) or 0.0
        return replace(result, retry_after_s=min(after_s, RETRY_AFTER_CAP_S))

    async def try_connection(self) -> str:
        """Connect as for a request, through the proxy as well, and say what was done. `check` is `stop`.

        Raises `TransportFailedError`.
        """
        try:
            result = await self.request(b"", judge=lambda status, _: SendResult(SendOutcome.RETRY, str(status)))
        except NothingSentError:
            if self._proxy.url is None:
                return "connected, nothing sent"
            is_led_through = self._url.scheme == "https"
            return f"{'connected through the proxy' if is_led_through else 'proxy connected'}, nothing sent"
        raise TransportFailedError(result.answer, remedy=result.remedy)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


class NothingSentError(Exception):
    """A connection stands, and no request goes out on it."""


def stop() -> None:
    """Send nothing, as the `check` of what only connects."""
    raise NothingSentError


async def _beginning(response: aiohttp.ClientResponse, *, is_judged: bool) -> bytes:
    """Return the beginning of an answer's body, as much as comes in a short time, and let go of the rest.

    A connection can be used again once the body is through, which is waited for if it is small and all but there.
    One that is judged is waited for; if nothing of it comes, what went wrong is raised.
    """
    said, most = b"", JUDGED_BODY_BYTES if is_judged else SMALL_BODY_BYTES
    try:
        async with asyncio.timeout(None if is_judged else BODY_GRACE_S):
            while len(said) < most and (part := await response.content.readany()):
                said += part
    except (aiohttp.ClientError, TimeoutError):
        if is_judged and not said:
            raise
    response.close()
    return said[:most]
