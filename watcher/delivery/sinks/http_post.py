"""Posts a body to a URL for one sink, once. What is in the body, and what an answer means, is the sink's business."""

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
from watcher.delivery.sinks.status_line import Connector, head_of_answer
from watcher.domain.errors import TransportFailedError
from watcher.runtime.backoff import parse_retry_after
from watcher.runtime.http_client import USER_AGENT, checked_request, limited_session, proxy_for
from watcher.runtime.private_addresses import is_private_host, public_socket
from watcher.runtime.transport_failures import PROXY_AUTH, PROXY_REMEDIES, failure_kind, tls_remedy

CONNECTIONS = 16
"""At most so many requests in flight per sink (SPEC 5)."""

SMALL_BODY_BYTES = 4096
BODY_GRACE_S = 0.1
"""How long a small body may take to arrive after its headers, so that its connection can be used again."""

_SHOW_CERT = "name yours in tls.cert_file, and its key in tls.key_file"
_CLOSED = "it closed the connection without an answer: correct url, or its port"
REMEDIES = {
    **PROXY_REMEDIES,
    "dns": "no such host is known here: correct url, or the DNS of this machine",
    "refused": "nothing listens there: correct url, or start the receiver",
    "reset": _CLOSED,
    "connection": "correct url, or let this machine reach it (HTTPS_PROXY)",
    "timeout": "it may be busy, or a firewall may drop the request: raise timeout, or let this machine reach it",
    "private": "its address is private: correct url, or set allow_private: true if that is meant",
    "tls": "its certificate is not trusted here, or it asks for yours: tls.ca_file, or SSL_CERT_FILE for all sinks, "
    "names the CA to trust, tls.cert_file what to show",
    "client_cert": f"the server wants a client certificate: {_SHOW_CERT}",
}
"""What a person has to do, by the kind of a `TransportFailedError`."""

CERT_REFUSED = (
    "the server refuses the client certificate of tls.cert_file: name one that is valid, of a CA that the server trusts"
)
"""The same for `client_cert`, if a certificate was shown."""

CERT_MAYBE_WANTED = f"{_CLOSED}; if the server wants a client certificate, {_SHOW_CERT}"
"""The same for `reset` over TLS, if no certificate was shown."""


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """Which connections may be opened, for one sink."""

    allow_private: bool = True
    tls: ssl.SSLContext | None = None
    """Whom to trust, and what to show; without it the system's CAs are trusted, and nothing is shown."""
    shows_cert: bool = False
    """Whether `tls` has a certificate to show."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: the status code, the headers as far as they could be read, and how the body began."""

    status: int
    headers: Mapping[str, str]
    said: bytes = b""


class Poster:
    """Posts to one server, through the proxy that the environment names for it, with what goes into every request.

    No redirect is followed: what is posted, and its signature, would go to a stranger. Where no private address is
    allowed, each one is judged when the socket to it is made. Behind a proxy, which itself may be private, only an
    address in the URL can be judged: names are resolved by the proxy.
    """

    def __init__(
        self,
        url: URL,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        context: SinkContext,
        rules: ConnectionRules = ConnectionRules(),
        request_class: type[aiohttp.ClientRequest] | None = None,
    ) -> None:
        """Open no connection yet. Needs a running event loop. Raises `ConfigError` for a proxy that cannot be used.

        Requests are of `request_class`, if given, else such as call the context's `check`.
        """
        self._headers = CIMultiDict(headers)
        # aiohttp refuses to choose between two logins.
        self._url = url.with_user(None) if "Authorization" in self._headers else url
        self._headers["User-Agent"] = USER_AGENT
        self._shows_cert = rules.shows_cert
        self._proxy = proxy_for(self._url)
        if self._url.scheme == "http":
            self._headers.update(self._proxy.headers)  # the proxy reads the request itself, there is no CONNECT
        is_direct = self._proxy.url is None
        self._is_refused = not rules.allow_private and not is_direct and is_private_host(self._url.raw_host or "")
        guard = public_socket if is_direct and not rules.allow_private else None
        self._session = limited_session(
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            connector=Connector(limit=CONNECTIONS, ssl=rules.tls, socket_factory=guard),
            request_class=request_class or checked_request(context.check),
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
        if self._is_refused:
            raise self._failure("private")
        url = self._url / path if path else self._url
        all_headers = self._headers.copy()
        all_headers.update(headers)
        try:
            async with self._session.post(
                url,
                data=body,
                headers=all_headers,
                allow_redirects=False,
                proxy=self._proxy.url,
                proxy_headers=self._proxy.headers,
            ) as response:
                if response.status == PROXY_AUTH and self._proxy.url is not None:
                    raise self._failure("proxy_auth")
                patience_s = None if response.status in judged_by_body else BODY_GRACE_S
                said = await _beginning(response, patience_s=patience_s, most=said_bytes)
                return Answer(response.status, response.headers, said)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            head = head_of_answer()  # the status line came: that is an answer, whatever is wrong with the rest
            if head is None or head.status in judged_by_body:
                kind = failure_kind(error, by_proxy=self._proxy.url is not None)
                raise self._failure(kind, remedy=tls_remedy(error) if kind == "tls" else "") from None
            return Answer(head.status, {"Retry-After": head.retry_after} if head.retry_after else {})

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _failure(self, kind: str, *, remedy: str = "") -> TransportFailedError:
        remedy = remedy or REMEDIES.get(kind, "")
        if kind == "client_cert" and self._shows_cert:
            remedy = CERT_REFUSED
        elif kind == "reset" and self._url.scheme == "https" and not self._shows_cert:
            remedy = CERT_MAYBE_WANTED
        return TransportFailedError(kind, remedy=remedy)


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
