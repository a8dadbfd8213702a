"""Who gets in, over real sockets: names, tokens, sessions, and what other sites try."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import NamedTuple

import pytest
from aiohttp import ClientSession, CookieJar, web
from virtual import FakeClock

from watcher.config.models import Settings
from watcher.runtime.units import Address
from watcher.web.access import access
from watcher.web.pages import page_routes
from watcher.web.server import HEADERS, HttpServer

TOKEN = "token-0f8b4a61"
JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PUBLIC = "https://watcher.example.com"


class Got(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str


class Site:
    """A server as the daemon has it, with an API of one route that takes anything."""

    def __init__(self, *, listen: str = "127.0.0.1:0", **http: str) -> None:
        self.clock = FakeClock()
        self.settings = Settings.model_validate({"http": http})
        self.port = 0
        taken = [web.route("*", path, self.take) for path in ("/api/v1/thing", "/livez", "/metrics")]
        self.server = HttpServer(
            [*taken, *page_routes(lambda: None, lambda: self.settings, self.clock)],
            clock=self.clock,
            access=[access(lambda: self.settings, listen=listen, clock=self.clock)],
        )

    async def take(self, _: web.Request) -> web.Response:
        return web.Response(text="in")

    async def ask(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Got:
        async with (
            ClientSession(cookie_jar=CookieJar(unsafe=True)) as session,
            session.request(
                method,
                f"http://127.0.0.1:{self.port}{path}",
                headers=headers,
                data=body,
                allow_redirects=False,
            ) as response,
        ):
            return Got(response.status, response.headers, await response.text())

    async def log_in(self, token: str = TOKEN, **headers: str) -> Got:
        form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        return await self.ask("/login", method="POST", headers=form, body=f"token={token}&next=%2Fdeliveries".encode())

    async def session(self) -> dict[str, str]:
        """Log in and return the header that a browser sends from then on."""
        cookie = SimpleCookie((await self.log_in()).headers["Set-Cookie"])
        return {"Cookie": f"cw_session={cookie['cw_session'].value}"}


@asynccontextmanager
async def a_site(*, listen: str = "127.0.0.1:0", **http: str) -> AsyncIterator[Site]:
    site = Site(listen=listen, **http)
    site.port = await site.server.listen(Address("127.0.0.1", 0))
    yield site
    await site.server.close()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0", "watcher.internal:0"])
async def test_beyond_loopback_nothing_but_the_probes_is_served_without_a_token(listen: str) -> None:
    async with a_site(listen=listen, token="") as site:
        assert (await site.ask("/livez", headers={"Host": "10.0.0.7:8080"})).status == 200
        for path in ("/", "/login", "/static/watcher.css", "/api/v1/thing"):
            got = await site.ask(path)
            assert (got.status, "http.token" in got.text) == (403, True)
        site.settings = Settings.model_validate({"http": {"token": TOKEN}})
        assert (await site.ask("/api/v1/thing", headers=BEARER)).status == 200
    for loopback in ("127.0.0.1:0", "[::1]:0", "localhost:0"):
        async with a_site(listen=loopback) as site:
            assert (await site.ask("/api/v1/thing")).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("[::1]:{port}", 200),
        ("watcher.example.com", 200),
        ("evil.example", 403),
        ("127.0.0.1", 200),  # a container's port may be another outside
        ("localhost:9090", 200),
        ("10.0.0.7:{port}", 403),
        ("127.0.0.1.evil.example:{port}", 403),
        ("watcher.example.com.evil.example", 403),
        ("", 403),
    ],
)
async def test_only_our_own_names_are_answered(host: str, status: int) -> None:
    async with a_site(public_url=PUBLIC) as site:
        got = await site.ask("/api/v1/thing", headers={"Host": host.format(port=site.port)})
        assert got.status == status
        assert (await site.ask("/metrics", headers={"Host": host})).status == 200


async def test_a_name_that_is_refused_is_shown_without_what_a_terminal_obeys() -> None:
    async with a_site() as site:
        got = await site.ask("/api/v1/thing", headers={"Host": f"x\u202e<script>{200 * 'y'}"})
        detail = json.loads(got.text)["detail"]
        assert detail.startswith('"x\\u202e<script>y')
        assert len(detail) < 200
        assert got.headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:{port}", 200),
        (PUBLIC, 200),
        (PUBLIC.replace("https", "http"), 403),
        ("http://127.0.0.1:3000", 403),
        ("null", 403),
        ("https://evil.example", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_pages_of_other_sites_ask_in_vain(origin: str | None, status: int, method: str) -> None:
    async with a_site(public_url=PUBLIC) as site:
        headers = JSON | ({"Origin": origin.format(port=site.port)} if origin else {})
        assert (await site.ask("/api/v1/thing", method=method, headers=headers, body=b"{}")).status == status


@pytest.mark.parametrize("host", ["watcher.example.com", "127.0.0.1:{port}"])
async def test_behind_a_proxy_either_name_works(host: str) -> None:
    async with a_site(public_url=PUBLIC, token=TOKEN) as site:
        headers = {"Host": host.format(port=site.port), "Origin": PUBLIC}
        session = await site.session()
        assert (await site.ask("/api/v1/thing", method="POST", headers=JSON | headers | session)).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_what_a_form_can_send_is_no_write(kind: str) -> None:
    async with a_site() as site:
        got = await site.ask("/api/v1/thing", method="POST", headers={"Content-Type": kind}, body=b"{}")
        assert got.status == 415
        assert "application/json" in got.text


async def test_without_the_token_a_program_gets_401_and_a_browser_the_login() -> None:
    async with a_site(token=TOKEN) as site:
        got = await site.ask("/api/v1/thing")
        assert (got.status, got.headers["WWW-Authenticate"]) == (401, "Bearer")
        for wrong in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", "Bearer \xff"):
            assert (await site.ask("/api/v1/thing", headers={"Authorization": wrong})).status == 401
        assert (await site.ask("/api/v1/thing", headers=BEARER)).text == "in"
        browser = {"Accept": "text/html,application/xhtml+xml"}
        got = await site.ask("/deliveries?state=dead&sink=ops", headers=browser)
        assert (got.status, got.headers["Location"]) == (303, "/login?next=/deliveries%3Fstate%3Ddead%26sink%3Dops")
        assert (await site.ask("/login", headers=browser)).status == 200


async def test_a_session_begins_with_the_token_and_ends_after_twelve_hours_or_with_another_token() -> None:
    async with a_site(token=TOKEN) as site:
        got = await site.log_in()
        assert (got.status, got.headers["Location"]) == (303, "/deliveries")
        cookie = SimpleCookie(got.headers["Set-Cookie"])["cw_session"]
        assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "Strict", "")
        session = {"Cookie": f"cw_session={cookie.value}"}
        assert (await site.ask("/api/v1/thing", headers=session)).status == 200
        site.settings = Settings.model_validate({"http": {"token": "another"}})
        assert (await site.ask("/api/v1/thing", headers=session)).status == 401
        site.settings = Settings.model_validate({"http": {"token": TOKEN, "public_url": PUBLIC}})
        site.clock.advance(12 * 3600 + 1)
        assert (await site.ask("/api/v1/thing", headers=session)).status == 401
        assert "; Secure" in (await site.log_in()).headers["Set-Cookie"]  # for it is served over https


@pytest.mark.parametrize("cookie", ["", ".", "9999999999", "9999999999.", "x.y", "9999999999.{signature}", "\xff.\xff"])
async def test_a_session_cannot_be_made_up(cookie: str) -> None:
    async with a_site(token=TOKEN) as site:
        _, _, signature = (await site.session())["Cookie"].partition(".")
        forged = {"Cookie": f"cw_session={cookie.format(signature=signature)}"}
        assert (await site.ask("/api/v1/thing", headers=forged)).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
    ],
)
async def test_a_session_writes_from_our_own_pages_only(headers: Mapping[str, str], status: int) -> None:
    async with a_site(token=TOKEN) as site:
        sent = {name: value.format(port=site.port) for name, value in headers.items()}
        session = await site.session()
        for method in ("POST", "DELETE"):
            assert (await site.ask("/api/v1/thing", method=method, headers=JSON | session | sent)).status == status


async def test_tokens_are_tried_once_a_second() -> None:
    async with a_site(token=TOKEN) as site:
        assert (await site.log_in("wrong")).status == 401
        got = await site.log_in()
        assert (got.status, "Set-Cookie" in got.headers) == (429, False)
        site.clock.advance(1)
        assert (await site.log_in()).status == 303
    async with a_site() as site:
        assert (await site.log_in("")).status == 401  # where there is no token nobody logs in


@pytest.mark.parametrize(
    "next_", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/\n", ""]
)
async def test_the_login_leads_to_no_other_site(next_: str) -> None:
    async with a_site(token=TOKEN) as site:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        async with ClientSession() as session:
            data = {"token": TOKEN, "next": next_}
            url = f"http://127.0.0.1:{site.port}/login"
            async with session.post(url, data=data, headers=form, allow_redirects=False) as response:
                assert response.headers["Location"] == "/"


@pytest.mark.parametrize(
    "path",
    ["/static/../pages.py", "/static/%2e%2e/pages.py", "/static/..%2fpages.py", "/static/watcher.css", "/static/"],
)
async def test_only_the_files_of_pages_are_served(path: str) -> None:
    async with a_site() as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        writer.close()


@pytest.mark.parametrize("path", ["/", "/login", "/api/v1/thing", "/nowhere", "/livez"])
async def test_every_answer_has_the_headers_that_protect_it(path: str) -> None:
    async with a_site() as site:
        got = await site.ask(path)
        expected = HEADERS | ({"Referrer-Policy": "same-origin"} if path == "/login" else {})
        assert {name: got.headers.get(name) for name in expected} == expected


async def test_what_a_page_loads_is_kept_by_the_browser() -> None:
    async with a_site() as site:
        page = (await site.ask("/login")).text
        names = [part.split('"')[0] for part in page.split('"/static/')[1:]]
        assert len(names) == 3
        for name in names:
            got = await site.ask(f"/static/{name}")
            assert (got.status, got.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with a_site(token=TOKEN) as site:
        large = b"token=" + b"x" * 70_000
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await site.ask("/login", method="POST", headers=form, body=large)).status == 413
