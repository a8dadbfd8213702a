"""Connects as a sink does and sends nothing, to find out whether that can be done."""

import asyncio
import ssl
from contextlib import suppress

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from watcher.delivery.sinks.http_post import ConnectionRules, Poster
from watcher.delivery.sinks.protocol import SinkContext
from watcher.runtime.clock import SystemClock
from watcher.runtime.http_client import proxy_for

JUDGED_WITHIN_S = 0.5
"""How long a server that speaks TLS 1.3 has to refuse what it was shown, or not shown: the client is through first."""

_LOOK_EVERY_S = 0.01


class _ConnectedError(Exception):
    """The connection for a request is there, and the request has not been sent."""


async def connect(
    url: URL, *, timeout_s: float, rules: ConnectionRules, judged_within_s: float = JUDGED_WITHIN_S
) -> str:
    """Connect as for a request, through the proxy as well, send nothing, and say what was done.

    Raises `TransportFailedError`.
    """
    poster = Poster(
        url,
        headers={},
        timeout_s=timeout_s + judged_within_s,
        context=SinkContext(SystemClock()),
        rules=rules,
        request_class=_unsent_request(judged_within_s),
    )
    try:
        with suppress(_ConnectedError):
            await poster.post(b"", headers={})
    finally:
        await poster.close()
    if proxy_for(url).url is None:
        return "connected, nothing sent"
    return "connected through the proxy, nothing sent" if url.scheme == "https" else "proxy connected, nothing sent"


def _unsent_request(judged_within_s: float) -> type[aiohttp.ClientRequest]:
    """Return a kind of request that raises once it has its connection and the server has taken that."""

    class UnsentRequest(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            protocol, transport = conn.protocol, conn.transport
            assert protocol is not None
            assert transport is not None
            try:
                await _await_judgement(protocol, transport.get_extra_info("ssl_object"), within_s=judged_within_s)
            finally:
                protocol.abort()  # nothing is under way: no farewell of TLS has to be waited for
            raise _ConnectedError

    return UnsentRequest


async def _await_judgement(protocol: ResponseHandler, tls: ssl.SSLObject | None, *, within_s: float) -> None:
    """Return once a server has taken the connection, or has said nothing for a while. Raises what a request would.

    Nearly every server that takes it sends a session ticket at once (RFC 8446, 4.6.1), one that does not an alert.
    """
    if tls is None or tls.version() != "TLSv1.3":
        return
    loop, closed = asyncio.get_running_loop(), protocol.closed
    until = loop.time() + within_s
    while closed and not closed.done() and not (tls.session and tls.session.has_ticket) and loop.time() < until:
        await asyncio.wait([closed], timeout=_LOOK_EVERY_S)
    if closed is None or closed.done():
        error = closed and closed.exception()
        raise (error and error.__cause__) or aiohttp.ServerDisconnectedError
