"""What went wrong with a request that got no answer: in a word, and what a person has to do about it."""

import errno
import socket
import ssl

import aiohttp

from watcher.domain.errors import TransportFailedError
from watcher.runtime.private_addresses import PrivateAddressError

PROXY_AUTH = 407
"""The status code of a proxy that wants another login, or one at all."""

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
"""What a person has to do, by the kind of a `TransportFailedError`."""

_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (TimeoutError, "timeout"),
    ((aiohttp.ClientConnectorDNSError, socket.gaierror), "dns"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ClientPayloadError, "truncated"),
    ((aiohttp.ServerDisconnectedError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError), "reset"),
    (ConnectionRefusedError, "refused"),
    (PrivateAddressError, "private"),
)
_CODES = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.ECONNABORTED: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
}


def failure(kind: str) -> TransportFailedError:
    """Return the failure of this kind."""
    return TransportFailedError(kind, remedy=REMEDIES.get(kind, ""))


def failure_of(error: Exception, *, by_proxy: bool) -> TransportFailedError:
    """Return what an error of a request means, without its text, which may hold an address or a path.

    Of TLS the remedy says what OpenSSL says. `by_proxy` says that every connection is one to a proxy.
    """
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == PROXY_AUTH:
        return failure("proxy_auth")
    if by_proxy and isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientConnectorDNSError)):
        return failure("proxy")
    if (tls := _tls_error(error)) is not None:
        said = getattr(tls, "verify_message", "") or (getattr(tls, "reason", None) or "").lower().replace("_", " ")
        return TransportFailedError("tls", remedy=f"{said}: {REMEDIES['tls']}" if said else REMEDIES["tls"])
    return failure(_kind_of(error))


def _tls_error(error: Exception) -> ssl.SSLError | None:
    candidates = (error.__cause__, getattr(error, "certificate_error", None), error)
    return next((each for each in candidates if isinstance(each, ssl.SSLError)), None)


def _kind_of(error: Exception) -> str:
    for type_, kind in _KINDS:
        if isinstance(error, type_):
            return kind
    if isinstance(error, aiohttp.ClientConnectorError):
        return _kind_of(error.os_error)
    return _CODES.get(error.errno or 0, "connection") if isinstance(error, OSError) else "connection"
