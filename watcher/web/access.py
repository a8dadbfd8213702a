"""Who may ask what: by the token or a session, under our own names, from our own pages."""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from watcher.config.models import Settings
from watcher.runtime.clock import Clock
from watcher.runtime.terminal import harmless
from watcher.runtime.units import parse_address
from watcher.web.api import RefusedError, refusal

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""A platform asks these under any name, and has no token."""

LOGIN = "/login"
STATIC = "/static/"
API = "/api/"

COOKIE = "cw_session"
SESSION_S = 12 * 3600

_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.ASCII)
"""Names that nobody can lead elsewhere, with any port: a container's port may be another outside."""

READING = frozenset({"GET", "HEAD"})
FORBIDDEN = HTTPStatus.FORBIDDEN


def access(settings: Callable[[], Settings], *, listen: str, clock: Clock) -> Middleware:
    """Return what lets a request through, or refuses it. `settings` are those of now, we are bound at `listen`."""
    bound = parse_address(listen).host

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in PROBES:
            try:
                _check(request, settings(), bound=bound, now=clock.now())
            except RefusedError as error:
                return _refuse(request, error)
        return await handler(request)

    return check


def token_of(settings: Settings) -> str:
    """Return the token, empty if there is none."""
    return settings.http.token.get_secret_value() if settings.http.token else ""


def new_session(token: str, *, now: datetime) -> str:
    """Return the cookie of who has shown the token: until when it holds, signed with the token."""
    until = f"{int(now.timestamp()) + SESSION_S}"
    return f"{until}.{_signature(token, until)}"


def is_session(cookie: str, token: str, *, now: datetime) -> bool:
    """Return whether a cookie was made with this token, not too long ago."""
    until, _, signature = cookie.partition(".")
    return same_secret(signature, _signature(token, until)) and int(until) > now.timestamp()


def same_secret(given: str, right: str) -> bool:
    """Compare in a time that says nothing of the secret."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode())


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host; a name other than localhost may be any."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def local_path(text: str) -> str:
    """Return a path of ours to go on to, the first page instead of anything else: nobody is led elsewhere."""
    return text if text.startswith("/") and text.isprintable() and text[1:2] not in {"/", "\\"} else "/"


def _check(request: web.Request, settings: Settings, *, bound: str, now: datetime) -> None:
    """Raise `RefusedError` for who may not ask this."""
    token = token_of(settings)
    if not token and not is_loopback(bound):
        raise RefusedError(FORBIDDEN, "beyond this machine pages and API need a token: set http.token")
    _check_names(request, settings, bound=bound)
    if request.method not in READING:
        _check_write(request)
    if token and request.path != LOGIN and not request.path.startswith(STATIC):
        _check_token(request, token, now=now)


def _refuse(request: web.Request, error: RefusedError) -> web.Response:
    """Answer why not, as the API does or in a line; a person with a browser is led to where the token is asked for."""
    is_browser = request.method in READING and "text/html" in request.headers.get("Accept", "")
    if error.status is HTTPStatus.UNAUTHORIZED and is_browser:
        return web.Response(status=303, headers={"Location": f"{LOGIN}?next={quote(request.path_qs)}"})
    if not request.path.startswith(API):
        return web.Response(status=error.status, text=f"{error.detail}\n", headers=error.headers)
    return refusal(error)


def _check_names(request: web.Request, settings: Settings, *, bound: str) -> None:
    """Refuse who asks for another name than ours (DNS rebinding), or from a page of another site."""
    public = (settings.http.public_url or "").lower()
    host = request.headers.get("Host", "").lower()
    is_ours = host in _own_hosts(request, bound) or _LOOPBACK.fullmatch(host) is not None
    if not is_ours and host != public.partition("://")[2]:
        text = f'"{harmless(host)[:100]}" is not where this watcher is; set http.public_url to its address'
        raise RefusedError(FORBIDDEN, text)
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() not in {public, f"http://{host}" if is_ours else public}:
        raise RefusedError(FORBIDDEN, "the request comes from another site; behind a proxy set http.public_url")


def _own_hosts(request: web.Request, bound: str) -> Iterator[str]:
    """Return what `Host` may be without a proxy: the address that was reached, this machine, the name in the file."""
    address, port = request.get_extra_info("sockname", ("", 0))[:2]
    for host in {address, "127.0.0.1", "::1", "localhost", bound.lower()}:
        name = f"[{host}]" if ":" in host else host
        yield f"{name}:{port}"
        if port == 80:
            yield name


def _check_write(request: web.Request) -> None:
    """Refuse what a form of another site could send."""
    if request.headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}:
        raise RefusedError(FORBIDDEN, "the request comes from another site")
    wanted = "application/x-www-form-urlencoded" if request.path == LOGIN else "application/json"
    if request.method == "POST" and request.content_type != wanted:
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send it with Content-Type: {wanted}")


def _check_token(request: web.Request, token: str, *, now: datetime) -> None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and same_secret(given.strip(), token):
        return
    if not is_session(request.cookies.get(COOKIE, ""), token, now=now):
        raise RefusedError(
            HTTPStatus.UNAUTHORIZED, "send Authorization: Bearer with http.token", **{"WWW-Authenticate": "Bearer"}
        )
    from_us = request.headers.get("Sec-Fetch-Site") == "same-origin" or "Origin" in request.headers
    if request.method not in READING and not from_us:  # an Origin has been found to be ours
        raise RefusedError(FORBIDDEN, "with a session a write must come from our own pages; else send the token")


def _signature(token: str, until: str) -> str:
    return hmac.new(token.encode(), until.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
