"""The HTTP floor: one request goes out, one response or `TransportFailedError` comes back. No policy, no meaning."""

import asyncio
from dataclasses import dataclass, field
from importlib.metadata import version
from types import TracebackType
from typing import Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from watcher.deadline import TimeLimit
from watcher.errors import TransportFailedError
from watcher.proxy import Proxy

BODY_BYTES = 8 * 1024 * 1024
"""An answer larger than this is not read to its end (SPEC 4)."""

USER_AGENT = f"clerk-watcher/{version('clerk-watcher')}"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. `body` is there for a 200 only: of anything else the status and `Retry-After` say enough.

    The body holds what customers said, so it never shows.
    """

    status_code: int
    retry_after: str | None
    body: bytes = field(repr=False)


class Client:
    """One session with one server and one key. CA certificates come from the environment, as OpenSSL reads it."""

    def __init__(self, *, api_key: str, timeout_s: float, connections: int, proxy: Proxy) -> None:
        """Open no connection yet. Needs a running event loop."""
        self._proxy = proxy
        self._limit = TimeLimit(timeout_s)
        # Not one of the session's own headers: those also go to a proxy, in clear, with every CONNECT.
        self._key = CIMultiDict({"apiKey": api_key})
        self._session = aiohttp.ClientSession(
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=connections),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
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

    async def get(self, url: URL) -> Response:
        """Send one GET, following no redirect: the key would go to a stranger.

        Raises `TransportFailedError`, whose kind is `timeout`, `dns`, `tls`, `connection`, `truncated` or `too_large`.
        """
        try:
            with self._limit:
                response = await self._session.get(
                    url,
                    headers=self._key,
                    allow_redirects=False,
                    proxy=self._proxy.url,
                    proxy_headers=self._proxy.headers,
                )
                return Response(response.status, response.headers.get("Retry-After"), await _take_body(response))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise TransportFailedError(failure_kind(error)) from None


async def _take_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of a 200 and let go of the connection, which is kept if all of the answer was read."""
    try:
        return await _read(response) if response.status == 200 else b""  # noqa: PLR2004 (HTTP)
    finally:
        response.release()


async def _read(response: aiohttp.ClientResponse) -> bytes:
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
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def failure_kind(error: Exception) -> str:
    """Name what went wrong without its text, which may hold an address or a path."""
    match error:
        case asyncio.TimeoutError():
            return "timeout"
        case aiohttp.ClientConnectorDNSError():
            return "dns"
        case aiohttp.ClientSSLError():
            return "tls"
        case aiohttp.ClientPayloadError():
            return "truncated"
        case _:
            return "connection"
