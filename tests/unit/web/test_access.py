"""Who gets in, over real sockets: names, tokens, sessions, and what other sites try."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from aiohttp import ClientSession, CookieJar, TCPConnector, web
from virtual import FakeClock

from watcher.config.models import Settings
from watcher.runtime.units import Address
from watcher.web.access import access
from watcher.web.pages import page_routes
from watcher.web.server import HEADERS, HttpServer

TOKEN, READ_TOKEN = "token-0f8b4a61", "read-57aa90c2"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
BEARER, READER = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"Bearer {READ_TOKEN}"}
THING = "/api/v1/thing"
PUBLIC = "https://watcher.example.com"


class Got(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str


class Site:
    """A server as the daemon has it, with an API of one route that takes anything."""

    def __init__(self, *, listen: str = "127.0.0.1:0", **http: object) -> None:
        self.clock = FakeClock()
        self.settings = Settings.model_validate({"http": http})
        self.port = 0
        taken = [web.route("*", path, self.take) for path in (THING, "/livez", "/metrics")]
        self.server = HttpServer(
            [*taken, *page_routes(lambda: None, lambda: self.settings, self.clock)],
            clock=self.clock,
            access=[access(lambda: self.settings, listen=listen, clock=self.clock)],
        )

    async def take(self, _: web.Request) -> web.Response:
        return web.Response(text="in")

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        address: str = "127.0.0.1",
    ) -> Got:
        """Ask from an address of this machine."""
        jar, connector = CookieJar(unsafe=True), TCPConnector(local_addr=(address, 0))
        how: Any = {"headers": headers, "data": body, "allow_redirects": False}
        async with (
            ClientSession(f"http://127.0.0.1:{self.port}", cookie_jar=jar, connector=connector) as session,
            session.request(method, path, **how) as response,
        ):
            return Got(response.status, response.headers, await response.text())

    async def status(self, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> int:
        """Return how the API answers."""
        return (await self.ask(THING, method=method, headers=headers)).status

    async def log_in(self, token: str = TOKEN, *, address: str = "127.0.0.1", **headers: str) -> Got:
        body = f"token={token}&next=%2Fdeliveries".encode()
        return await self.ask("/login", method="POST", headers=FORM | headers, body=body, address=address)

    async def write(self, request_line: str) -> bytes:
        """Send a request as it is written, and return all of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{request_line}\r\nHost: 127.0.0.1:{self.port}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    async def session(self, token: str = TOKEN) -> dict[str, str]:
        """Log in and return the header that a browser sends from then on."""
        cookie = SimpleCookie((await self.log_in(token)).headers["Set-Cookie"])
        return {"Cookie": f"cw_session={cookie['cw_session'].value}"}


@asynccontextmanager
async def a_site(*, listen: str = "127.0.0.1:0", **http: object) -> AsyncIterator[Site]:
    site = Site(listen=listen, **http)
    site.port = await site.server.listen(Address("127.0.0.1", 0))
    yield site
    await site.server.close()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0", "watcher.internal:0"])
async def test_beyond_loopback_nothing_but_the_probes_is_served_without_a_token(listen: str) -> None:
    async with a_site(listen=listen, token="") as site:
        assert (await site.ask("/livez", headers={"Host": "10.0.0.7:8080"})).status == 200
        for path in ("/", "/login", "/static/watcher.css", THING):
            got = await site.ask(path)
            assert (got.status, "http.token" in got.text) == (403, True)
        site.settings = Settings.model_validate({"http": {"token": TOKEN}})
        assert await site.status(BEARER) == 200
    for loopback in ("127.0.0.1:0", "[::1]:0", "localhost:0"):
        async with a_site(listen=loopback) as site:
            assert await site.status() == 200


@pytest.mark.parametrize(
    ("status", "hosts"),
    [
        (200, ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"]),
        (200, ["watcher.example.com", "watcher.example.com:443", "vm", "VM:18099", "192.0.2.7:8080"]),
        (200, ["[2001:db8::7]:8080", "127.0.0.1", "localhost:9090"]),  # a container's port may be another outside
        (403, ["evil.example", "10.0.0.7:{port}", "127.0.0.1.evil.example:{port}", "evil.vm", "vm:80:80", "", ":80"]),
        (403, ["watcher.example.com.evil.example"]),
    ],
)
async def test_only_our_own_names_are_answered(status: int, hosts: list[str]) -> None:
    async with a_site(public_url=PUBLIC, names=["vm", "192.0.2.7", "[2001:DB8::7]"]) as site:
        for host in hosts:
            assert await site.status({"Host": host.format(port=site.port)}) == status, host
            assert (await site.ask("/metrics", headers={"Host": host})).status == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "led_here", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_who_sends_the_token_is_no_browser_that_was_led_here(led_here: dict[str, str], method: str) -> None:
    async with a_site(token=TOKEN) as site:
        assert (await site.ask(THING, method=method, headers=BEARER | led_here)).text == "in"
        session = await site.session()
        got = await site.ask(THING, method=method, headers=JSON | session | led_here)
        assert got.status == (200 if method == "GET" and "Sec-Fetch-Site" in led_here else 403)
        wrong = {"Authorization": "Bearer wrong"}
        assert await site.status(wrong | led_here, method=method) == 401


@pytest.mark.parametrize(
    ("how", "remedy"),
    [
        ({"headers": {"Host": "vm:8080"}}, '"vm" is no name of this watcher; add it to http.names, or send a token'),
        ({"headers": {"Origin": "https://evil.example"}}, "behind a proxy set http.public_url to its address"),
        ({"headers": {"Sec-Fetch-Site": "same-site"}, "method": "POST"}, "act on a page of this watcher"),
    ],
)
async def test_a_refusal_says_what_would_be_right(how: Any, remedy: str) -> None:
    async with a_site() as site:
        for path in (THING, "/logout"):
            got = await site.ask(path, **how)
            assert (got.status, remedy in got.text.replace('\\"', '"')) == (403, True), got.text


async def test_a_name_that_is_refused_is_shown_without_what_a_terminal_obeys() -> None:
    async with a_site() as site:
        got = await site.ask(THING, headers={"Host": f"x\u202e<script>{200 * 'y'}"})
        detail = json.loads(got.text)["detail"]
        assert detail.startswith('"x\\u202e<script>y')
        assert len(detail) < 200
        assert got.headers["Content-Type"].startswith("application/problem+json")


OF_US = {None: 200, "http://127.0.0.1:{port}": 200, PUBLIC: 200}
OF_OTHERS = dict.fromkeys(
    (PUBLIC.replace("https", "http"), "http://127.0.0.1:3000", "null", "https://evil.example"), 403
)


async def test_pages_of_other_sites_ask_in_vain() -> None:
    async with a_site(public_url=PUBLIC) as site:
        for origin, status in (OF_US | OF_OTHERS).items():
            headers = JSON | ({"Origin": origin.format(port=site.port)} if origin else {})
            for method in ("GET", "POST"):
                got = await site.ask(THING, method=method, headers=headers, body=b"{}")
                assert got.status == status, (origin, method)


@pytest.mark.parametrize(
    ("host", "origins"),
    [
        ("watcher.example.com", [PUBLIC]),
        ("watcher.example.com:443", [PUBLIC]),
        ("127.0.0.1:{port}", [PUBLIC, "https://upstream", "http://upstream:3000"]),
        ("upstream:8080", [PUBLIC, "http://upstream:8080"]),
        ("upstream", ["https://upstream"]),
        ("upstream:443", ["https://upstream"]),
        ("upstream:80", ["http://upstream"]),
    ],
)
async def test_behind_a_proxy_each_name_works(host: str, origins: list[str]) -> None:
    async with a_site(public_url=PUBLIC, names=["upstream"], token=TOKEN) as site:
        session = await site.session()
        for origin in origins:
            headers = JSON | session | {"Host": host.format(port=site.port), "Origin": origin}
            assert await site.status(headers, method="POST") == 200, origin


@pytest.mark.parametrize("site_of", ["same-site", "cross-site"])
async def test_a_page_at_another_port_of_a_name_is_of_another_site(site_of: str) -> None:
    async with a_site(public_url=PUBLIC, names=["upstream"]) as site:
        headers = {"Host": "upstream:8080", "Origin": "http://upstream:3000", "Sec-Fetch-Site": site_of}
        assert (await site.ask(THING, method="POST", headers=JSON | headers)).status == 403


@pytest.mark.parametrize("form", ["multipart/form-data", "application/x-www-form-urlencoded; charset=foo"])
async def test_a_form_that_cannot_be_read_is_said_to_be_so(form: str) -> None:
    async with a_site(token=TOKEN) as site:
        got = await site.ask("/login", method="POST", headers={"Content-Type": form}, body=f"token={TOKEN}".encode())
        assert (got.status, "This form cannot be read" in got.text) == (400, True)


async def test_without_the_token_a_program_gets_401_and_a_browser_the_login() -> None:
    async with a_site(token=TOKEN) as site:
        got = await site.ask(THING)
        assert (got.status, got.headers["WWW-Authenticate"]) == (401, "Bearer")
        for wrong in ("Bearer wrong", f"Basic {TOKEN}", "Bearer", "Bearer \xff"):
            answer = await site.ask(THING, headers={"Authorization": wrong})
            assert (answer.status, "this token is wrong" in answer.text) == (401, wrong.startswith("Bearer "))
            site.clock.advance(1)
        assert (await site.ask(THING, headers=BEARER)).text == "in"
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
        assert await site.status(session) == 200
        site.settings = Settings.model_validate({"http": {"token": "another"}})
        assert await site.status(session) == 401
        site.settings = Settings.model_validate({"http": {"token": TOKEN, "public_url": PUBLIC}})
        site.clock.advance(12 * 3600 + 1)
        assert await site.status(session) == 401
        assert "; Secure" in (await site.log_in()).headers["Set-Cookie"]  # for it is served over https
        here = {"Origin": f"http://127.0.0.1:{site.port}"}  # where a browser would not send a cookie for https
        assert "; Secure" not in (await site.log_in(**here)).headers["Set-Cookie"]


async def test_a_session_cannot_be_made_up_and_writes_from_our_own_pages_only() -> None:
    async with a_site(token=TOKEN) as site:
        _, _, signature = (await site.session())["Cookie"].partition(".")
        for cookie in ("", ".", "9999999999", "9999999999.", "x.y", f"9999999999.{signature}", "\xff.\xff"):
            assert await site.status({"Cookie": f"cw_session={cookie}"}) == 401, cookie
    async with a_site(token=TOKEN) as site:
        session = await site.session()
        for more, status in (
            ({}, 403),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Origin": f"http://127.0.0.1:{site.port}"}, 200),
        ):
            for method in ("POST", "DELETE"):
                assert await site.status(JSON | session | more, method=method) == status, more


@pytest.mark.parametrize("how", ["bearer", "login"])
async def test_wrong_tokens_of_an_address_are_answered_once_a_second_and_right_ones_always(how: str) -> None:
    async with a_site(token=TOKEN) as site:

        async def show(token: str, address: str = "127.0.0.1") -> Got:
            if how == "login":
                return await site.log_in(token, address=address)
            bearer = {"Authorization": f"Bearer {token}"}
            return await site.ask(THING, headers=bearer, address=address)

        session, answers = await site.session(), list[int]()
        for number in range(200):
            answers.append((await show(f"guess-{number}")).status)
            site.clock.advance(0.1)
        assert (answers.count(401), answers.count(429)) == (20, 180)
        await show("wrong")
        got = await show("wrong")
        assert (got.status, got.headers["Retry-After"]) == (429, "1")
        assert (await site.log_in("wrong")).status == 429  # whichever way it is tried
        assert (await show(TOKEN)).status == (303 if how == "login" else 200)
        assert await site.status(session) == 200
        assert (await show("wrong", address="127.0.0.2")).status == 401


async def test_a_session_outlives_foreign_tokens_and_addresses_fill_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_site(token=TOKEN) as site:
        both = await site.session() | {"Authorization": "Bearer of-the-proxy"}
        assert [await site.status(both) for _ in range(3)] == [200, 200, 200]
        assert (await site.ask("/login", headers={"Authorization": "Bearer of-the-proxy"})).status == 200
    monkeypatch.setattr("watcher.web.access.ADDRESSES_COUNT", 3)
    async with a_site(token=TOKEN) as site:
        seen = [(await site.log_in("wrong", address=f"127.0.0.{last}")).status for last in (1, 2, 3, 4, 4, 3, 2, 1)]
        assert seen == [401, 401, 401, 401, 429, 429, 429, 401]  # the first one was forgotten for the fourth


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
async def test_who_has_the_token_to_read_may_look_and_not_act(method: str) -> None:
    async with a_site(token=TOKEN, read_token=READ_TOKEN) as site:
        of_page = JSON | {"Sec-Fetch-Site": "same-origin"}
        for reader in (READER, await site.session(READ_TOKEN)):
            for reading in ("GET", "HEAD"):
                assert await site.status(reader, method=reading) == 200
            got = await site.ask(THING, method=method, headers=reader | of_page)
            detail = json.loads(got.text)["detail"]
            assert (got.status, detail) == (403, "http.read_token may only read; to act use http.token")
        for actor in (BEARER, await site.session()):
            assert await site.status(actor | of_page, method=method) == 200


async def test_without_a_token_nobody_logs_in_and_with_that_to_read_nobody_acts() -> None:
    async with a_site() as site:
        assert (await site.log_in("")).status == 401
    async with a_site(listen="0.0.0.0:0", read_token=READ_TOKEN) as site:
        assert await site.status(READER) == 200
        assert await site.status(READER, method="POST") == 403
        assert await site.status() == 401
        assert (await site.ask("/metrics")).status == 200


@pytest.mark.parametrize("token", [TOKEN, READ_TOKEN])
async def test_who_logs_out_has_no_session_in_this_browser(token: str) -> None:
    async with a_site(token=TOKEN, read_token=READ_TOKEN) as site:
        session = await site.session(token)
        page = await site.ask("/nowhere", headers=session)
        assert '<form method=post action="/logout">' in page.text
        assert page.headers["Referrer-Policy"] == "same-origin"  # else the form's `Origin` would be null
        ours = FORM | {"Origin": f"http://127.0.0.1:{site.port}"}
        got = await site.ask("/logout", method="POST", headers=session | ours)
        cookie = SimpleCookie(got.headers["Set-Cookie"])["cw_session"]
        assert (got.status, got.headers["Location"]) == (303, "/login")
        assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", "/")
        assert (await site.ask("/logout", method="POST", headers=ours)).status == 303  # its session may be over
        foreign = {"Origin": "https://evil.example"}
        assert (await site.ask("/logout", method="POST", headers=session | foreign)).status == 403
        for without_session in (BEARER, {}):
            assert "/logout" not in (await site.ask("/login", headers=without_session)).text


@pytest.mark.parametrize("name", ["../pages.py", "%2e%2e/pages.py", "..%2fpages.py", "watcher.css", ""])
async def test_only_the_files_of_pages_are_served(name: str) -> None:
    async with a_site() as site:
        assert (await site.write(f"GET /static/{name} HTTP/1.1")).startswith(b"HTTP/1.1 404 ")


async def test_every_answer_has_the_headers_that_protect_it() -> None:
    async with a_site() as site:
        for path in ("/", "/login", THING, "/nowhere", "/livez"):
            got = await site.ask(path)
            expected = HEADERS | ({"Referrer-Policy": "same-origin"} if path == "/login" else {})
            assert {name: got.headers.get(name) for name in expected} == expected
        for request_line in ("GET / HTTP/1.1", "GET /nowhere HTTP/1.1", "GET /livez HTTP/1.1", "\x16\x03\x01"):
            head = (await site.write(request_line)).partition(b"\r\n\r\n")[0].lower()
            assert (b"server: clerk-watcher" in head, b"python" in head, b"aiohttp" in head) == (True, False, False)


async def test_an_unknown_path_is_a_page_and_only_one_that_can_change_is_live() -> None:
    async with a_site() as site:
        assert (await site.ask("/nowhere/at/all", method="POST")).status == 405
        got = await site.ask("/nowhere/at/all")
        shown = ("<h1>Not found</h1>" in got.text, "<nav aria-label=Pages>" in got.text)
        assert (got.status, *shown) == (404, True, True)
    async with a_site() as site:
        for path, is_live in (("/", True), ("/login", False), ("/nowhere", False)):
            assert ("id=live" in (await site.ask(path)).text) == is_live


async def test_a_page_is_not_taken_for_that_of_others_and_its_files_are_kept() -> None:
    async with a_site(token=TOKEN, read_token=READ_TOKEN) as site:
        session, reader = await site.session(), await site.session(READ_TOKEN)
        tags = {(await site.ask("/login", headers=who)).headers["ETag"] for who in (session, reader, BEARER, READER)}
        assert len(tags) == 4
    async with a_site() as site:
        page = (await site.ask("/login")).text
        names = [part.split('"')[0] for part in page.split('"/static/')[1:]]
        assert len(names) == 3
        for name in names:
            got = await site.ask(f"/static/{name}")
            assert (got.status, got.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")


async def test_the_login_leads_to_no_other_site_and_takes_no_large_body() -> None:
    async with a_site(token=TOKEN) as site:
        for next_ in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/\n", ""):
            body = urlencode({"token": TOKEN, "next": next_}).encode()
            got = await site.ask("/login", method="POST", headers=FORM, body=body)
            assert got.headers["Location"] == "/", next_
    async with a_site(token=TOKEN) as site:
        large = b"token=" + b"x" * 70_000
        assert (await site.ask("/login", method="POST", headers=FORM, body=large)).status == 413
