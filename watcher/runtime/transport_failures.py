"""What went wrong with a request that got no answer, in a word; what helps if it is the proxy or the certificate."""

import errno
import re
import socket
import ssl
from collections.abc import Mapping

import aiohttp

from watcher.runtime.private_addresses import PrivateAddressError

PROXY_AUTH = 407
"""The status code of a proxy that wants another login, or one at all."""

PROXY_REMEDIES = {
    "proxy": "the proxy cannot be reached: correct its URL in HTTPS_PROXY (HTTP_PROXY for http://), or start it",
    "proxy_auth": "the proxy asks for a user and a password that it knows: write them into its URL in the environment, "
    "HTTPS_PROXY=http://user:password@host:port (HTTP_PROXY for http://)",
}
"""What a person has to do, by the kind of a `TransportFailedError`."""

NO_TLS = "it speaks no TLS at that port: correct the port, or write http://"
_OTHER_NAME = "its certificate is for another name: correct the host"
_TLS_REMEDIES: Mapping[int | str, str] = {
    10: "its certificate has expired, or the clock of this machine is wrong: renew it there",  # CERT_HAS_EXPIRED
    62: _OTHER_NAME,  # HOSTNAME_MISMATCH
    64: _OTHER_NAME,  # IP_ADDRESS_MISMATCH
    "WRONG_VERSION_NUMBER": NO_TLS,
    "HTTP_REQUEST": NO_TLS,
    "RECORD_LAYER_FAILURE": NO_TLS,
}
"""What a person has to do, by the number of OpenSSL's error of a certificate (X509_V_ERR_…), else by its reason."""

_OF_CLIENT_CERT = re.compile(
    r"ALERT_(?:CERTIFICATE_(?:REQUIRED|EXPIRED|REVOKED|UNKNOWN)|(?:BAD|UNSUPPORTED)_CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)"
)
"""What a server says of the client's certificate, or of getting none (RFC 8446, 6.2), in OpenSSL's words. With TLS 1.3
it comes behind the handshake, in place of an answer."""

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


def failure_kind(error: Exception, *, by_proxy: bool) -> str:
    """Name what went wrong without its text, which may hold an address or a path: see `TransportFailedError`.

    `by_proxy` says that every connection is one to a proxy.
    """
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == PROXY_AUTH:
        return "proxy_auth"
    if by_proxy and isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientConnectorDNSError)):
        return "proxy"
    return _kind_of(error)


def tls_remedy(error: Exception) -> str:
    """Return what a person has to do about a failure of the kind `tls`, empty if it does not say what is wrong."""
    tls = _tls_error(error)
    code: int | str | None = getattr(tls, "verify_code", None) or getattr(tls, "reason", None)
    return _TLS_REMEDIES.get(code or "", "")


def _tls_error(error: Exception) -> ssl.SSLError | None:
    candidates = (error.__cause__, getattr(error, "certificate_error", None), error)
    return next((each for each in candidates if isinstance(each, ssl.SSLError)), None)


def _kind_of(error: Exception) -> str:
    if (tls := _tls_error(error)) is not None:
        return "client_cert" if _OF_CLIENT_CERT.search(getattr(tls, "reason", None) or "") else "tls"
    for type_, kind in _KINDS:
        if isinstance(error, type_):
            return kind
    if isinstance(error, aiohttp.ClientConnectorError):
        return _kind_of(error.os_error)
    if isinstance(error, OSError):
        return _CODES.get(error.errno or 0, "connection")
    # Told by its words, which aiohttp alone has put together: it has no type for this.
    too_large = ("Got more than", "Too many headers")
    if isinstance(error, aiohttp.ClientResponseError) and error.message.startswith(too_large):
        return "headers"
    return "connection"
