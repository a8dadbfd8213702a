"""One request goes out as it should, and only one: headers, proxy, certificates, kept connections."""

import asyncio
import errno
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aioresponses import aioresponses
from yarl import URL

from watcher.clerk.api import ClerkApi, Reply
from watcher.domain.errors import LeaseExpiredError, TransportFailedError
from watcher.domain.execution import Outcome
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import USER_AGENT, Client, PrivateAddressError, Proxy, Response, failure_of, proxy_for

pytestmark = pytest.mark.usefixtures("alone")

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
PATH = f"/public/pipelines/{PIPELINE}/executions/{EXECUTION}"
BODY = json.dumps({"id": EXECUTION, "status": "running"}).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def a_client(proxy: Proxy | None = None) -> Client:
    return Client(api_key="k-1", timeout_s=5, connections=4, proxy=proxy or Proxy())


async def length(body: bytes, _date: str | None) -> int:
    return len(body)


async def ask(client: Client, base_url: str) -> Reply:
    api = ClerkApi(client, base_url=base_url, clock=Clock())
    return await api.get(pipeline=PIPELINE, execution=EXECUTION)


async def test_a_look_is_one_get_of_the_documented_address_with_the_key_in_its_header() -> None:
    url = URL(f"https://web-api.clerk.chat{PATH}")
    with aioresponses() as api:
        api.get(url, body=BODY)
        async with a_client() as client:
            reply = await ask(client, "https://web-api.clerk.chat")
    assert reply.outcome is Outcome.OK
    assert list(api.requests) == [("GET", url)]
    (call,) = api.requests["GET", url]
    headers = call.kwargs["headers"]
    assert (headers["apiKey"], headers["User-Agent"], headers["Accept"]) == ("k-1", USER_AGENT, "application/json")
    assert call.kwargs["allow_redirects"] is False


async def test_a_path_in_the_base_url_leads_to_a_gateway() -> None:
    with aioresponses() as api:
        api.get(f"https://gateway.example.com/clerk/v1{PATH}", body=BODY)
        async with a_client() as client:
            assert (await ask(client, "https://gateway.example.com/clerk/v1")).outcome is Outcome.OK


@dataclass
class Wire:
    """A server that answers the first `healthy_count` requests and hangs up on every later one."""

    healthy_count: int
    requests: list[bytes] = field(default_factory=list)
    connection_count: int = 0
    open: list[asyncio.Task[None]] = field(default_factory=list)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        self.open.append(asyncio.create_task(self.converse(reader, writer)))

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while len(self.requests) <= self.healthy_count:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                if len(self.requests) <= self.healthy_count:
                    writer.write(OK)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(wire: Wire) -> AsyncIterator[str]:
    async with await asyncio.start_server(wire.accept, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*wire.open)
    await asyncio.sleep(0)  # closed transports let go of their sockets in the next turn of the loop


async def test_a_request_is_called_off_when_its_connection_is_there_and_not_a_byte_was_sent() -> None:
    connected: list[int] = []

    def check() -> None:
        connected.append(wire.connection_count)
        raise LeaseExpiredError("somebody else's by now")

    wire = Wire(healthy_count=1)
    async with listening(wire) as base_url:
        async with Client(api_key="k-1", timeout_s=5, connections=4, proxy=Proxy(), check=check) as client:
            with pytest.raises(LeaseExpiredError):
                await ask(client, base_url)
        await asyncio.gather(*wire.open)
    assert (len(connected), wire.connection_count, wire.requests) == (1, 1, [])


async def test_a_kept_connection_that_was_dropped_costs_one_request_and_never_a_silent_second() -> None:
    wire = Wire(healthy_count=1)
    async with listening(wire) as base_url, a_client() as client:
        first, second = await ask(client, base_url), await ask(client, base_url)
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.CONNECTION)
    assert (len(wire.requests), wire.connection_count) == (2, 1)


async def test_a_request_leaves_no_cookie_and_carries_none() -> None:
    cookies: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        response = web.Response(body=BODY)
        response.set_cookie("session", "somebody")
        return response

    app = web.Application()
    app.router.add_get(PATH, answer)
    async with TestServer(app) as server, a_client() as client:
        for _ in range(2):
            await ask(client, str(server.make_url("")).rstrip("/"))
    assert cookies == [None, None]


async def test_the_proxy_of_the_environment_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(healthy_count=1)
    async with listening(wire) as proxy_url:
        monkeypatch.setenv("HTTP_PROXY", proxy_url)
        async with a_client(proxy_for(URL("http://api.invalid"))) as client:
            reply = await ask(client, "http://api.invalid")
    assert reply.outcome is Outcome.OK
    (request,) = wire.requests
    assert request.startswith(f"GET http://api.invalid{PATH} HTTP/1.1\r\n".encode())


async def test_a_proxy_is_given_its_own_login_and_never_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(healthy_count=0)
    async with listening(wire) as proxy_url:
        monkeypatch.setenv("HTTPS_PROXY", proxy_url.replace("http://", "http://me:pass@"))
        async with a_client(proxy_for(URL("https://api.invalid"))) as client:
            reply = await ask(client, "https://api.invalid")
    assert reply.outcome is Outcome.CONNECTION
    (request,) = wire.requests
    assert request.startswith(b"CONNECT api.invalid:443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6cGFzcw==\r\n" in request
    assert b"apikey" not in request.lower()
    assert b"k-1" not in request


def test_a_body_never_shows() -> None:
    assert "secret" not in repr(Response(200, None, None, b"secret"))


async def test_a_failure_gives_its_kind_and_nothing_else() -> None:
    async with a_client() as client:
        with pytest.raises(TransportFailedError) as failure:
            await client.get(URL("http://nowhere.invalid/secret"), read=length)
    assert (failure.value.kind, str(failure.value), failure.value.__cause__) == ("dns", "dns", None)
    assert failure.value.__suppress_context__


def caused_by(cause: Exception, error: Exception) -> Exception:
    error.__cause__ = cause
    return error


def of_alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "secret")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "timeout"),
        (aiohttp.ClientPayloadError(), "truncated"),
        (aiohttp.ServerDisconnectedError(), "reset"),
        (aiohttp.ClientOSError(errno.ECONNRESET, "secret"), "reset"),
        (aiohttp.ClientOSError(errno.ETIMEDOUT, "secret"), "timeout"),
        (aiohttp.ClientOSError(), "connection"),
        (ConnectionResetError(), "reset"),
        (ConnectionRefusedError(), "refused"),
        (OSError(errno.ECONNREFUSED, "secret"), "refused"),
        (OSError(errno.ENETUNREACH, "secret"), "connection"),
        (socket.gaierror(), "dns"),
        (ssl.SSLError(), "tls"),
        (of_alert("TLSV1_ALERT_UNKNOWN_CA"), "tls"),
        (caused_by(of_alert("TLSV13_ALERT_CERTIFICATE_REQUIRED"), aiohttp.ClientOSError(1, "secret")), "tls"),
        (PrivateAddressError(), "private"),
        (UnicodeError(), "connection"),
    ],
)
def test_a_failure_is_named_without_its_text(error: Exception, kind: str) -> None:
    failed = failure_of(error, by_proxy=False)
    assert (failed.kind, "secret" in failed.remedy) == (kind, False)


async def test_cancellation_comes_through() -> None:
    asked = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_get(PATH, answer)
    async with TestServer(app) as server, a_client() as client:
        look = asyncio.create_task(ask(client, str(server.make_url("")).rstrip("/")))
        await asked.wait()
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look
