"""Posts a body to a URL for one sink, once, or only connects to it. What an answer means is the sink's business.

No redirect is followed: what is posted, and its signature, would go to a stranger.
"""

import asyncio
import ssl
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from watcher.delivery.sinks.protocol import SendOutcome, SendResult, SinkContext
from watcher.delivery.sinks.request_series import TAKEN
from watcher.delivery.sinks.status_line import Connector, status_of_answer
from watcher.domain.errors import TransportFailedError
from watcher.runtime.backoff import parse_retry_after
from watcher.runtime.http_client import USER_AGENT, Proxy, checked_request, limited_session, proxy_for
from watcher.runtime.private_addresses import is_private, is_private_host, public_socket
from watcher.runtime.transport_failures import PROXY_AUTH, failure, failure_of

CONNECTIONS = 16
"""At most so many requests in flight per sink."""

SMALL_BODY_BYTES = 4096
BODY_GRACE_S = 0.1
"""How long a small body may take to arrive after its headers, so that its connection can be used again."""

JUDGED_WITHIN_S = 0.5
"""How long a server has to refuse a client's certificate, or to miss one: by TLS 1.3 the client is through first."""

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """Which connections may be opened, for one sink.

    Where no private address is allowed, each one is judged when the socket to it is made. Behind a proxy, which itself
    may be private, only an address in the URL can be judged: names are resolved by the proxy.
    """

    allow_private: bool = True
    tls: ssl.SSLContext | None = None
    """Whom to trust, and what to show; without it the system's CAs are trusted, and nothing is shown."""

    def check(self, url: URL, proxy: Proxy) -> None:
        """Raise `TransportFailedError` if a proxy would be asked for a private address that is not allowed."""
        if not self.allow_private and proxy.url is not None and is_private_host(url.raw_host or ""):
            raise failure("private")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: the status code, the headers, and how the body began."""

    status: int
    headers: Mapping[str, str]
    said: bytes = b""


class Poster:
    """Posts to one server, through the proxy that the environment names for it, with what goes into every request."""

    def __init__(
        self,
        url: URL,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        context: SinkContext,
        rules: ConnectionRules = ConnectionRules(),
    ) -> None:
        """Open no connection yet. Needs a running event loop. Raises `ConfigError` for a proxy that cannot be used."""
        self._headers = CIMultiDict(headers)
        # aiohttp refuses to choose between two logins.
        self._url = url.with_user(None) if "Authorization" in self._headers else url
        self._headers["User-Agent"] = USER_AGENT
        self._rules = rules
        self._proxy = proxy_for(self._url)
        if self._url.scheme == "http":
            self._headers.update(self._proxy.headers)  # the proxy reads the request itself, there is no CONNECT
        guard = public_socket if self._proxy.url is None and not rules.allow_private else None
        self._session = limited_session(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            connector=Connector(limit=CONNECTIONS, ssl=rules.tls, socket_factory=guard),
            request_class=checked_request(context.check),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=SMALL_BODY_BYTES,
        )

    async def post(
        self,
        body: bytes,
        *,
        path: str = "",
        headers: Mapping[str, str],
        judged_by_body: Container[int] = (),
        said_bytes: int = SMALL_BODY_BYTES,
    ) -> Answer:
        """Post once, to the URL or a path behind it. Raises `TransportFailedError` if there is no answer.

        The body of an answer is waited for where its status code alone says too little: `judged_by_body`; of it,
        no more than `said_bytes`. If none of it comes, that is no answer.
        """
        self._rules.check(self._url, self._proxy)
        all_headers = self._headers.copy()
        all_headers.update(headers)
        try:
            async with self._session.post(
                self._url / path if path else self._url,
                data=body,
                headers=all_headers,
                allow_redirects=False,
                proxy=self._proxy.url,
                proxy_headers=self._proxy.headers,
            ) as response:
                if response.status == PROXY_AUTH and self._proxy.url is not None:
                    raise failure("proxy_auth")
                patience_s = None if response.status in judged_by_body else BODY_GRACE_S
                said = await _beginning(response, patience_s=patience_s, most=said_bytes)
                return Answer(response.status, response.headers, said)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            status = status_of_answer()  # its line came: that is an answer, whatever is wrong with the rest
            if status is None or status in judged_by_body:
                raise failure_of(error, by_proxy=self._proxy.url is not None) from None
            return Answer(status, {})

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


async def try_connection(url: URL, *, timeout_s: float, rules: ConnectionRules) -> str:
    """Connect as for a request, through the proxy as well, send nothing, and say what was done.

    Raises `TransportFailedError`, and `ConfigError` for a proxy that cannot be used.
    """
    proxy = proxy_for(url)
    rules.check(url, proxy)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _connection_to(url, proxy, rules)
        try:
            if url.scheme == "https":
                async with asyncio.timeout(JUDGED_WITHIN_S):
                    if not await reader.read(1):
                        raise failure("reset")
        except TimeoutError:
            pass  # it waits for a request
        finally:
            writer.transport.abort()  # nothing is under way: no farewell of TLS has to be waited for
    except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError) as error:
        raise failure_of(error, by_proxy=False) from None
    if proxy.url is None:
        return "connected, nothing sent"
    return "connected through the proxy, nothing sent" if url.scheme == "https" else "proxy connected, nothing sent"


async def _connection_to(url: URL, proxy: Proxy, rules: ConnectionRules) -> _Streams:
    """Connect to the URL's server; behind a proxy to that, which for https is asked to lead there."""
    tls = rules.tls or ssl.create_default_context()
    if proxy.url is None:
        return await _open(url, tls, address=None if rules.allow_private else await _public_address(url))
    try:
        reader, writer = await _open(proxy.url, tls)
    except (TimeoutError, ssl.SSLError):
        raise
    except OSError:
        raise failure("proxy") from None
    if url.scheme == "https":
        try:
            await _lead_to(url, proxy, reader, writer)
            await writer.start_tls(tls, server_hostname=url.raw_host)
        except BaseException:
            writer.transport.abort()
            raise
    return reader, writer


async def _lead_to(url: URL, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    there = f"{url.host}:{url.port}"
    lines = [f"CONNECT {there} HTTP/1.1", f"Host: {there}", *(": ".join(each) for each in proxy.headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    status = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise failure("proxy_auth" if status == [b"407"] else "connection")


async def _open(url: URL, tls: ssl.SSLContext, *, address: str | None = None) -> _Streams:
    is_tls = url.scheme == "https"
    return await asyncio.open_connection(
        address or url.raw_host, url.port, ssl=tls if is_tls else None, server_hostname=url.raw_host if is_tls else None
    )


async def _public_address(url: URL) -> str:
    """Return the first public address of a URL's host. Raises `TransportFailedError` if it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(url.raw_host, url.port)
    public = [str(address[0]) for *_, address in found if not is_private(str(address[0]))]
    if not public:
        raise failure("private")
    return public[0]


def result_without_answer(error: TransportFailedError) -> SendResult:
    """Return what a request means that got no answer."""
    return SendResult(SendOutcome.RETRY, error.kind, remedy=error.remedy)


def with_retry_after(result: SendResult, answer: Answer, *, now: datetime) -> SendResult:
    """Add the `Retry-After` of an answer to what it means, if that is not that all is well."""
    if result.outcome in TAKEN:
        return result
    return replace(result, retry_after_s=parse_retry_after(answer.headers.get("Retry-After"), now=now))


async def _beginning(response: aiohttp.ClientResponse, *, patience_s: float | None, most: int) -> bytes:
    """Return the beginning of an answer's body, as much as comes in that time, and let go of the rest.

    A connection can be used again once the body is through, which is waited for if it is small and all but there.
    Without a `patience_s` the body matters: if nothing of it comes, what went wrong is raised.
    """
    said = b""
    try:
        async with asyncio.timeout(patience_s):
            while len(said) < most and (part := await response.content.readany()):
                said += part
    except (aiohttp.ClientError, TimeoutError):
        if patience_s is None and not said:
            raise
    response.close()
    return said[:most]
