"""Who may ask what: by the token or a session, under our own names, from our own pages."""

import hashlib
import hmac
from collections.abc import Callable, Iterator
from datetime import datetime
from ipaddress import ip_address
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from watcher.config.models import Settings
from watcher.runtime.clock import Clock
from watcher.runtime.terminal import harmless
from watcher.runtime.units import parse_address
from watcher.web.models import Trouble

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""A platform asks these under any name, and has no token."""

LOGIN = "/login"
STATIC = "/static/"
API = "/api/"

COOKIE = "cw_session"
SESSION_S = 12 * 3600

READING = frozenset({"GET", "HEAD"})


def access(settings: Callable[[], Settings], *, listen: str, clock: Clock) -> Middleware:
    """Return what lets a request through, or refuses it. `settings` are those of now, we are bound at `listen`."""
    bound = parse_address(listen).host

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in PROBES:
            return await handler(request)
        token = token_of(settings())
        refused = _of_names(request, settings(), bound=bound) if token or is_loopback(bound) else _OPEN
        if refused is None:
            refused = _of_writes(request)
        if refused is None and token and request.path != LOGIN and not request.path.startswith(STATIC):
            refused = _of_token(request, token, now=clock.now())
        return await handler(request) if refused is None else refused(request)

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


def refuse(request: web.Request, status: int, title: str, detail: str) -> web.Response:
    """Answer why not: as the API does there, else as a line of text."""
    if request.path.startswith(API):
        body = Trouble(title=title, status=status, detail=detail).model_dump_json(by_alias=True)
        return web.Response(status=status, text=body, content_type="application/problem+json")
    return web.Response(status=status, text=f"{title}: {detail}\n")


Refusal = Callable[[web.Request], web.Response]


def _refusal(status: int, title: str, detail: str) -> Refusal:
    return lambda request: refuse(request, status, title, detail)


_OPEN = _refusal(403, "No token is set", "beyond this machine pages and API need one: set http.token")


def _of_names(request: web.Request, settings: Settings, *, bound: str) -> Refusal | None:
    """Refuse who asks for another name than ours (DNS rebinding), or from a page of another site."""
    public = settings.http.public_url or ""
    host = request.headers.get("Host", "").lower()
    ours = {*_own_hosts(request, bound), public.lower().partition("://")[2]}
    if host not in ours:
        shown = harmless(host)[:100]
        return _refusal(
            403, "Not our name", f'"{shown}" is not where this watcher is; set http.public_url to its address'
        )
    origin = request.headers.get("Origin")
    if origin is None or origin.lower() in {public.lower(), *(f"http://{each}" for each in ours)}:
        return None
    return _refusal(403, "Not our page", "the request comes from another site; behind a proxy set http.public_url")


def _own_hosts(request: web.Request, bound: str) -> Iterator[str]:
    """Return what `Host` may be without a proxy: the address that was reached, this machine, the name in the file."""
    address, port = request.get_extra_info("sockname", ("", 0))[:2]
    for host in {address, "127.0.0.1", "::1", "localhost", bound.lower()}:
        name = f"[{host}]" if ":" in host else host
        yield f"{name}:{port}"
        if port == 80:
            yield name


def _of_writes(request: web.Request) -> Refusal | None:
    """Refuse what a form of another site could send."""
    if request.method in READING:
        return None
    if request.headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}:
        return _refusal(403, "Not our page", "the request comes from another site")
    wanted = "application/x-www-form-urlencoded" if request.path == LOGIN else "application/json"
    if request.method == "POST" and request.content_type != wanted:
        return _refusal(415, "Unsupported media type", f"send it with Content-Type: {wanted}")
    return None


def _of_token(request: web.Request, token: str, *, now: datetime) -> Refusal | None:
    """Refuse who has shown no token; a person with a browser is led to where it is asked for."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and same_secret(given.strip(), token):
        return None
    if is_session(request.cookies.get(COOKIE, ""), token, now=now):
        from_us = request.headers.get("Sec-Fetch-Site") == "same-origin" or "Origin" in request.headers
        if request.method in READING or from_us:  # an Origin has been found to be ours
            return None
        return _refusal(403, "Not our page", "with a session a write must come from our own pages; else send the token")
    if request.method in READING and "text/html" in request.headers.get("Accept", ""):
        return _to_login
    return _refusal_of_token


def _refusal_of_token(request: web.Request) -> web.Response:
    response = refuse(request, 401, "No token", "send Authorization: Bearer with http.token")
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _to_login(request: web.Request) -> web.Response:
    return web.Response(status=303, headers={"Location": f"{LOGIN}?next={quote(request.path_qs)}"})


def _signature(token: str, until: str) -> str:
    return hmac.new(token.encode(), until.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
