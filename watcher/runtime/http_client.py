"""The HTTP floor: one request goes out, one response or `TransportFailedError` comes back. No policy, no meaning."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from multidict import CIMultiDict
from yarl import URL

from watcher.domain.errors import ConfigError, TransportFailedError
from watcher.runtime.body_budget import BodyBudget
from watcher.runtime.timeout import TimeLimit
from watcher.runtime.transport_failures import PROXY_AUTH, failure, failure_of
from watcher.runtime.version import VERSION

BODY_BYTES = 8 * 1024 * 1024
"""An answer larger than this is not read to its end."""

LARGE_BYTES = 256 * 1024
"""A body beyond this is read on only while there is room for it: many that come slowly would fill the memory."""

BODY_BUDGET_BYTES = 16 * 1024 * 1024
LARGE_BODIES = 3
"""There is room for so many bytes of large bodies, and so many of them are read on in any case."""

limited_session = partial(aiohttp.ClientSession, max_line_size=64 * 1024, max_field_size=64 * 1024, max_headers=2000)
"""An answer whose status line or header field is longer, or that has more headers, is not read."""

USER_AGENT = f"clerk-watcher/{VERSION}"


_Found = TypeVar("_Found")
_Hold = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Response(Generic[_Found]):
    """An answer. `found` is what was read of a 200's body: of anything else the status and `Retry-After` say enough.

    The body holds what customers said, so nothing of it shows.
    """

    status_code: int
    retry_after: str | None
    found: _Found | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy: its address without credentials (`None`: go directly), and the headers it wants."""

    url: URL | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def proxy_for(target: URL) -> Proxy:
    """Return the proxy that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name for a target. Raises `ConfigError`.

    Read once per target: aiohttp's `trust_env` reads it in threads, per request.
    """
    address = getproxies().get(target.scheme)
    if address is None or proxy_bypass(target.host or ""):
        return Proxy()
    try:
        url = URL(address if "://" in address else f"http://{address}")
    except ValueError:  # a port that is none, say
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        name = f"{target.scheme.upper()}_PROXY"
        problem = "only http and https proxies are known" if url.scheme and url.host else "is no URL of a proxy"
        raise ConfigError(f"{name}: {problem}; write it like http://proxy.example.com:3128")
    if url.user is None:
        return Proxy(url)
    login = aiohttp.encode_basic_auth(url.user, url.password or "")
    return Proxy(url.with_user(None), {"Proxy-Authorization": login})


class Client:
    """One session with one server and one key. CA certificates come from the environment, as OpenSSL reads it."""

    def __init__(
        self,
        *,
        api_key: str,
        timeout_s: float,
        connections: int,
        proxy: Proxy,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Open no connection yet. Needs a running event loop.

        `check` is called once the connection for a request is there, right before that goes out. What it raises comes
        out of `get`, and nothing was sent.
        """
        self._proxy = proxy
        self._limit = TimeLimit(timeout_s)
        # Not one of the session's own headers: those also go to a proxy, in clear, with every CONNECT.
        self._key = CIMultiDict({"apiKey": api_key})
        self._session = limited_session(
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=connections),
            request_class=checked_request(check),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._budget = BodyBudget(BODY_BUDGET_BYTES, first=LARGE_BODIES)
        # aiohttp sends a GET again by itself when a kept connection turns out dead: a request that nobody paced.
        self._session._retry_connection = False  # noqa: SLF001 (it has no public switch; its own test client does this)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, url: URL, *, read: Callable[[bytes], Awaitable[_Found]]) -> Response[_Found]:
        """Send one GET, following no redirect: the key would go to a stranger. `read` is given the body of a 200.

        Raises `TransportFailedError`, and what `read` raises.
        """
        holder = object()
        try:
            response, body = await self._ask(url, partial(self._budget.hold, holder))
            found = None if body is None else await read(body)
            return Response(response.status, response.headers.get("Retry-After"), found)
        finally:
            self._budget.leave(holder)

    async def _ask(self, url: URL, hold: _Hold) -> tuple[aiohttp.ClientResponse, bytes | None]:
        try:
            with self._limit:
                response = await self._session.get(
                    url,
                    headers=self._key,
                    allow_redirects=False,
                    proxy=self._proxy.url,
                    proxy_headers=self._proxy.headers,
                )
                try:
                    if response.status == PROXY_AUTH and self._proxy.url is not None:
                        raise failure("proxy_auth")
                    return response, await _read(response, hold) if response.status == 200 else None
                finally:
                    response.release()  # the connection is kept if all of the answer was read
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise failure_of(error, by_proxy=self._proxy.url is not None) from None


def checked_request(check: Callable[[], None]) -> type[aiohttp.ClientRequest]:
    """Return what aiohttp makes of each request: one that asks once it has its connection, right before it is sent.

    One without a body is written before anything else runs. With a body it may be a turn of the event loop later, after
    which the process may have slept: so it asks once more.
    """

    class CheckedRequest(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            try:
                check()
            except BaseException:
                if conn.protocol is not None:
                    conn.protocol.abort()  # nothing is under way: no farewell of TLS has to be waited for
                raise
            return await super().send(conn)

        async def write_bytes(
            self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
        ) -> None:
            try:
                check()
            except Exception as error:  # noqa: BLE001 (whatever it is, it comes out of the request)
                if conn.protocol is not None:
                    conn.protocol.set_exception(error)
                return
            await super().write_bytes(writer, conn, content_length)

    return CheckedRequest


async def _read(response: aiohttp.ClientResponse, hold: _Hold) -> bytes:
    """Read a body, stopping beyond the limit: it may be endless, or small only while compressed."""
    chunks: list[bytes] = []
    size = 0
    while not response.content.at_eof():
        chunk = await response.content.readany()
        size += len(chunk)
        if size > BODY_BYTES:
            response.close()
            raise TransportFailedError("too_large")
        chunks.append(chunk)
        if size > LARGE_BYTES:
            await hold(size)
            await asyncio.sleep(0)  # what is compressed may all be there: others have their turn between its pieces
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
