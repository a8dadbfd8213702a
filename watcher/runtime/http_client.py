"""The HTTP client: sends one request and returns one response, or raises `TransportFailedError`. It never retries."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Generic, Self, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.connector import Connection
from multidict import CIMultiDict
from yarl import URL

from watcher.domain.errors import ConfigError, TransportFailedError
from watcher.runtime.version import VERSION

_PRIVATE_V4 = tuple(
    ip_network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's host, which gives a virtual machine its configuration
    )
)
"""IANA's special addresses (RFC 6890). The list is our own, because `is_global` differs between Python versions."""
_GLOBAL_V6, _NAT64 = ip_network("2000::/3"), ip_network("64:ff9b::/96")
_PRIVATE_V6 = tuple(ip_network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
"""Private networks within `_GLOBAL_V6`: Teredo and other protocols, examples, and 6to4, which leads to IPv4."""


class PrivateAddressError(OSError):
    """A refused connection to a private address. The error does not hold the address."""


def is_private(address: str) -> bool:
    """Return whether an IP address is anything but the public address of one machine."""
    found = ip_address(address.partition("%")[0])  # the name of an interface may follow
    if isinstance(found, IPv6Address):
        within = IPv4Address(int(found) & 0xFFFFFFFF) if found in _NAT64 else found.ipv4_mapped
        if within is None:
            return found not in _GLOBAL_V6 or any(found in network for network in _PRIVATE_V6)
        found = within
    return any(found in network for network in _PRIVATE_V4)


def is_private_host(host: str) -> bool:
    """Return whether a URL's host is a private address or `localhost`. Other names are not resolved."""
    try:
        return is_private(host)
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def public_socket(addr_info: AddrInfoType) -> socket.socket:
    """Return a socket for a connection to this address. Raises `PrivateAddressError` if the address is private."""
    family, type_, proto, _, address = addr_info
    if is_private(str(address[0])):
        raise PrivateAddressError
    return socket.socket(family=family, type=type_, proto=proto)


PROXY_AUTH = 407
"""The status code of a proxy that does not accept the login, or the lack of one."""

REMEDIES = {
    "dns": "no such host is known here: correct the URL, or the DNS of this machine",
    "refused": "nothing listens there: correct the URL, or start the server",
    "reset": "it closed the connection without an answer: correct the URL or its port",
    "timeout": "it may be busy, or a firewall may drop the request: raise timeout, or let this machine reach it",
    "connection": "correct the URL, or let this machine reach it (HTTPS_PROXY)",
    "private": "its address is private: correct url, or set allow_private: true if that is meant",
    "proxy": "the proxy cannot be reached: correct its URL in HTTPS_PROXY (HTTP_PROXY for http://), or start it",
    "proxy_auth": "the proxy asks for a user and a password that it knows: write them into its URL in the environment, "
    "HTTPS_PROXY=http://user:password@host:port (HTTP_PROXY for http://)",
    "tls": "SSL_CERT_FILE, or tls.ca_file of a sink, names the CA to trust; tls.cert_file of a sink the certificate to "
    "show",
}
"""The instruction for the user, by the kind of a `TransportFailedError`."""

_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (TimeoutError, "timeout"),
    ((aiohttp.ClientConnectorDNSError, socket.gaierror), "dns"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ClientPayloadError, "truncated"),
    ((aiohttp.ServerDisconnectedError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError), "reset"),
    (ConnectionRefusedError, "refused"),
    (PrivateAddressError, "private"),
)


def failure(kind: str, remedies: Mapping[str, str] = REMEDIES) -> TransportFailedError:
    """Return a `TransportFailedError` of this kind, with its remedy."""
    return TransportFailedError(kind, remedy=remedies.get(kind, ""))


def failure_of(
    error: BaseException, *, by_proxy: bool = False, remedies: Mapping[str, str] = REMEDIES
) -> TransportFailedError:
    """Return the `TransportFailedError` for an error, but without the error's text: it may hold an address or a path.

    For a TLS error the remedy begins with the message of OpenSSL. With `by_proxy` all connections go to a proxy.
    """
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == PROXY_AUTH:
        return failure("proxy_auth")
    if by_proxy and isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientConnectorDNSError)):
        return failure("proxy")
    candidates = (error.__cause__, getattr(error, "certificate_error", None), error)
    if (tls := next((each for each in candidates if isinstance(each, ssl.SSLError)), None)) is not None:
        said = getattr(tls, "verify_message", "") or (getattr(tls, "reason", None) or "").lower().replace("_", " ")
        return TransportFailedError("tls", remedy=f"{said}: {remedies['tls']}" if said else remedies["tls"])
    return failure(_kind_of(error), remedies)


def _kind_of(error: BaseException) -> str:
    for type_, kind in _KINDS:
        if isinstance(error, type_):
            return kind
    if isinstance(error, aiohttp.ClientConnectorError):
        return _kind_of(error.os_error)
    if isinstance(error, aiohttp.ClientOSError):
        return _kind_of(OSError(error.errno, ""))  # Python chooses the subclass by `errno`
    return "connection"


BODY_BYTES = 8 * 1024 * 1024
"""The largest body that is read."""

LARGE_BYTES = 256 * 1024
LARGE_BODIES = 8
"""The most bodies over `LARGE_BYTES` that a client reads at a time: 64 MiB in all. Others wait on the wire."""

limited_session = partial(aiohttp.ClientSession, max_line_size=64 * 1024, max_field_size=64 * 1024, max_headers=2000)
"""A session with limits: an answer with a longer status line or header field, or with more headers, is refused."""

USER_AGENT = f"clerk-watcher/{VERSION}"

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Response(Generic[_Found]):
    """An answer: its status and two headers. `found` is the parsed body of a 200, `None` for any other status.

    The `repr` hides `found`, because a body holds texts of customers.
    """

    status_code: int
    retry_after: str | None
    date: str | None
    found: _Found | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy: its address without credentials (`None` for no proxy), and the headers it needs."""

    url: URL | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def proxy_for(target: URL) -> Proxy:
    """Return the proxy that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name for a target. Raises `ConfigError`.

    Callers use one proxy for all requests to a target. aiohttp's `trust_env` would read the environment in threads, at
    every request.
    """
    address = getproxies().get(target.scheme)
    if address is None or proxy_bypass(target.host or ""):
        return Proxy()
    try:
        url = URL(address if "://" in address else f"http://{address}")
    except ValueError:  # a port that is no number, for example
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
    """A session with one server and one API key. OpenSSL finds the CA certificates, also by SSL_CERT_FILE."""

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

        `check` is called for each request once it has a connection, right before it is sent. If `check` raises, nothing
        is sent, and `get` raises the same error.
        """
        self._proxy = proxy
        self._timeout_s = timeout_s
        # Not among the session's headers, because those also go to a proxy, in clear, with every CONNECT.
        self._key = CIMultiDict({"apiKey": api_key})
        self._session = limited_session(
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=connections),
            request_class=checked_request(check),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._large_bodies = asyncio.Semaphore(LARGE_BODIES)
        # aiohttp repeats a GET by itself if a kept connection is dead. The second GET would ignore the rate limit.
        self._session._retry_connection = False  # noqa: SLF001 (it has no public switch; its own test client does this)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, url: URL, *, read: Callable[[bytes, str | None], Awaitable[_Found]]) -> Response[_Found]:
        """Send one GET, and parse the body of a 200 with `read`, which gets the body and the `Date` header.

        Redirects are not followed, because the key would go to another server. Raises `TransportFailedError`, and the
        errors of `read`.
        """
        chunks: list[bytes] = []
        size, is_large = 0, False
        try:
            try:
                async with asyncio.timeout(self._timeout_s):
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
                        while response.status == 200 and not response.content.at_eof():
                            if size > LARGE_BYTES and not is_large:
                                is_large = await self._large_bodies.acquire()
                            chunks.append(await response.content.readany())
                            size += len(chunks[-1])
                            if size > BODY_BYTES:  # the body may be endless
                                response.close()
                                raise TransportFailedError("too_large")
                    finally:
                        response.release()  # keeps the connection if the whole answer was read
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                raise failure_of(error, by_proxy=self._proxy.url is not None) from None
            headers, date = response.headers, response.headers.get("Date")
            found = await read(b"".join(chunks), date) if response.status == 200 else None
            return Response(response.status, headers.get("Retry-After"), date, found)
        finally:
            if is_large:
                self._large_bodies.release()


def checked_request(check: Callable[[], None]) -> type[aiohttp.ClientRequest]:
    """Return a request class for aiohttp that calls `check` once a request has its connection, before it is sent."""

    class CheckedRequest(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            try:
                check()
            except BaseException:
                if conn.protocol is not None:
                    conn.protocol.abort()  # nothing was sent, so TLS needs no orderly shutdown
                raise
            return await super().send(conn)

    return CheckedRequest
