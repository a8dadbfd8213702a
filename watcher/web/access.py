"""The access rules: which requests need a token or a session, and which names and origins are allowed."""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from urllib.parse import quote

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from watcher.config.models import ProxySettings, Settings
from watcher.domain.timestamps import EARLIEST, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.terminal import harmless
from watcher.runtime.units import is_loopback, parse_address
from watcher.web.api import RefusedError
from watcher.web.routes import CALLER, Caller, refusal

log = structlog.get_logger()

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that need no token and no allowed name: container platforms and Prometheus send neither."""

LOGIN, LOGOUT = "/login", "/logout"
STATIC = "/static/"
API = "/api/"

COOKIE = "cw_session"
SESSION_S = 12 * 3600

READING = frozenset({"GET", "HEAD"})
FORBIDDEN = HTTPStatus.FORBIDDEN

PACE_S = 1.0
"""Another wrong token from the same client address within this time is answered with 429 (seconds)."""

ADDRESSES_COUNT = 1000
"""Maximum number of client addresses with a wrong token that are remembered, the latest ones."""


class WrongTokens:
    """The limit on the rate of wrong tokens from each client address. It never refuses a right token."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_at: dict[str, Monotonic] = {}

    def note(self, request: web.Request) -> bool:
        """Return whether an address sends a wrong token within `PACE_S` after its last recorded one.

        If not, record its time.
        """
        now, address = self._clock.monotonic(), request.remote or ""
        if now < self._next_at.get(address, EARLIEST):
            return True
        self._next_at.pop(address, None)  # inserted again, the address is behind older ones
        if len(self._next_at) >= ADDRESSES_COUNT:
            del self._next_at[next(iter(self._next_at))]
        self._next_at[address] = Monotonic(now + PACE_S)
        return False


WRONG_TOKENS = web.RequestKey("wrong_tokens", WrongTokens)


def access(settings: Callable[[], Settings], *, listen: str, clock: Clock) -> Middleware:
    """Return the middleware that sets the caller of a request, or refuses the request.

    `settings` returns the present settings; `listen` is the address to which the server is bound.
    """
    bound, wrong_tokens = parse_address(listen).host.lower(), WrongTokens(clock)
    ignored: set[ProxySettings | None] = set()  # proxies for which it is logged

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in PROBES:
            request[WRONG_TOKENS] = wrong_tokens
            try:
                user, proxy = _user_of(request, settings().http.proxy), settings().http.proxy
                if user is None and proxy not in ignored:
                    ignored.add(proxy)
                    log.warning("http.user_ignored", note="a client outside http.proxy.from sent user_header")
                request[CALLER] = _caller(request, settings(), bound=bound, now=clock.now(), user=user or "")
            except RefusedError as error:
                return _refuse(request, error)
        return await handler(request)

    return check


def tokens_of(settings: Settings) -> Mapping[str, bool]:
    """Return the configured tokens, each with whether a request with it may act."""
    given = ((settings.http.token, True), (settings.http.read_token, False))
    return {token.get_secret_value(): may_act for token, may_act in given if token}


def right_token(given: str, tokens: Iterable[str]) -> str | None:
    """Return the configured token that equals `given`, `None` if there is none."""
    return next((token for token in tokens if same_secret(given, token)), None)


def new_session(token: str, *, now: datetime) -> str:
    """Return a session cookie: the end of its validity, signed with the token."""
    until = f"{int(now.timestamp()) + SESSION_S}"
    return f"{until}.{_signature(token, until)}"


def is_session(cookie: str, token: str, *, now: datetime) -> bool:
    """Return whether a session cookie was signed with this token, and is still valid."""
    until, _, signature = cookie.partition(".")
    return same_secret(signature, _signature(token, until)) and int(until) > now.timestamp()


def same_secret(given: str, right: str) -> bool:
    """Return whether two secrets are equal, in a time that does not depend on their content."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode())


def local_path(text: str) -> str:
    """Return a local path for a redirect; anything that could lead to another site becomes `/`."""
    return text if text.startswith("/") and text.isprintable() and text[1:2] not in {"/", "\\"} else "/"


def _user_of(request: web.Request, proxy: ProxySettings | None) -> str | None:
    """Return the user that the proxy names, or an empty text; `None` if a client that is not the proxy names one.

    If the header is sent several times, the last one counts: a proxy may add its own.
    """
    if proxy is None or proxy.user_header not in request.headers:
        return ""
    peer = ip_address((request.remote or "::").partition("%")[0])
    peer = getattr(peer, "ipv4_mapped", None) or peer
    if not any(peer in ip_network(each) for each in proxy.from_):
        return None
    return harmless(request.headers.getall(proxy.user_header)[-1].strip())[:64]


def _caller(request: web.Request, settings: Settings, *, bound: str, now: datetime, user: str) -> Caller:
    """Return the caller of a request. Raises `RefusedError` if the request is not allowed."""
    tokens, is_write = tokens_of(settings), request.method not in READING
    if not tokens and not is_loopback(bound):
        raise RefusedError(FORBIDDEN, "beyond this machine pages and API need a token: set http.token")
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    bearer = given.strip() if scheme.lower() == "bearer" else ""
    token, by = right_token(bearer, tokens), "bearer"
    if token is None:  # then a page of another site may have made a browser send the request
        cookie = request.cookies.get(COOKIE, "")
        token, by = next((each for each in tokens if is_session(cookie, each, now=now)), None), "session"
        is_open = not tokens or request.path in {LOGIN, LOGOUT} or request.path.startswith(STATIC)
        if bearer and not token and not is_open:
            if request[WRONG_TOKENS].note(request):
                text = (
                    "this token is wrong, too; wrong ones are answered once a second for each address; send http.token"
                )
                raise RefusedError(HTTPStatus.TOO_MANY_REQUESTS, text, **{"Retry-After": f"{PACE_S:.0f}"})
            raise _unauthorized("this token is wrong; send http.token, or to read http.read_token")
        _check_names(request, settings, bound=bound)
        if is_write:
            _check_source(request, has_session=token is not None)
        if not token and not is_open:
            raise _unauthorized("send Authorization: Bearer with http.token, or to read with http.read_token")
    elif user:  # the proxy may send the token for a browser, which a page of another site may have led here
        by = "proxy"
        _check_names(request, settings, bound=bound)
        if is_write:
            _check_source(request, has_session=False)
    may_act = token is None or tokens[token]
    if is_write and not may_act and request.path not in {LOGIN, LOGOUT}:
        raise RefusedError(FORBIDDEN, "http.read_token may only read; to act use http.token")
    return Caller(by if token else "", may_act, user)


def _unauthorized(text: str) -> RefusedError:
    return RefusedError(HTTPStatus.UNAUTHORIZED, text, **{"WWW-Authenticate": "Bearer"})


def _refuse(request: web.Request, error: RefusedError) -> web.Response:
    """Return the response to a refused request: problem+json, plain text, or for a browser a redirect to the login."""
    is_browser = request.method in READING and "text/html" in request.headers.get("Accept", "")
    if error.status is HTTPStatus.UNAUTHORIZED and is_browser:
        return web.Response(status=303, headers={"Location": f"{LOGIN}?next={quote(request.path_qs)}"})
    if not request.path.startswith(API):
        return web.Response(status=error.status, text=f"{error.detail}\n", headers=error.headers)
    return refusal(error)


def _check_names(request: web.Request, settings: Settings, *, bound: str) -> None:
    """Raise `RefusedError` for a `Host` that is not ours (DNS rebinding), or for the `Origin` of another site.

    Ports are ignored: a container or a proxy may use another port, and an attacker's name differs in more than that.
    """
    host, public = request.headers.get("Host", "").lower(), (settings.http.public_url or "").lower()
    address = request.get_extra_info("sockname", ("",))[0]
    own = {f"[{each}]" if ":" in each else each for each in (address, bound, "localhost", "127.0.0.1", "::1")}
    name = _without_port(host)
    if not name or name not in {*own, *settings.http.names, _without_port(public.partition("://")[2])}:
        shown = harmless(name)[:100]
        raise RefusedError(FORBIDDEN, f'"{shown}" is no name of this watcher; add it to http.names, or send a token')
    origin = request.headers.get("Origin", public).lower()
    is_own = origin in {public, f"http://{host.removesuffix(':80')}", f"https://{host.removesuffix(':443')}"}
    if not is_own and _without_port(origin.partition("://")[2]) not in settings.http.names:
        text = "the request comes from a page of another site; behind a proxy set http.public_url to its address"
        raise RefusedError(FORBIDDEN, text)


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host, flags=re.ASCII)


def _check_source(request: web.Request, *, has_session: bool) -> None:
    """Raise `RefusedError` for a write that a page of another site may have sent; `_check_names` checks `Origin`."""
    site = request.headers.get("Sec-Fetch-Site")
    if site not in {None, "same-origin", "none"}:
        raise RefusedError(FORBIDDEN, "the request comes from a page of another site; act on a page of this watcher")
    if has_session and site != "same-origin" and "Origin" not in request.headers:
        raise RefusedError(FORBIDDEN, "with a session a write must come from our own pages; else send the token")


def _signature(token: str, until: str) -> str:
    return hmac.new(token.encode(), until.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
