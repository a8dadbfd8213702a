"""One request goes out as it should, and only one: headers, proxy, certificates, kept connections."""

import asyncio
import errno
import json
import socket
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aioresponses import aioresponses
from receiver import Receiver, answer, closes, hangs, says
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


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(says(answer(200, body=BODY))) as receiver:
        yield receiver


async def test_a_request_is_called_off_when_its_connection_is_there_and_not_a_byte_was_sent(receiver: Receiver) -> None:
    called_off: list[str] = []

    def check() -> None:
        called_off.append("once")
        raise LeaseExpiredError("somebody else's by now")

    async with Client(api_key="k-1", timeout_s=5, connections=4, proxy=Proxy(), check=check) as client:
        with pytest.raises(LeaseExpiredError):
            await ask(client, receiver.url)
    while not receiver.connections_count:
        await asyncio.sleep(0.001)
    assert (called_off, receiver.connections_count, receiver.requests) == (["once"], 1, [])


async def test_a_kept_connection_that_was_dropped_costs_one_request_and_never_a_silent_second(
    receiver: Receiver,
) -> None:
    async with a_client() as client:
        first = await ask(client, receiver.url)
        receiver.reply = closes
        second = await ask(client, receiver.url)
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.CONNECTION)
    assert (len(receiver.requests), receiver.connections_count) == (2, 1)


async def test_a_request_leaves_no_cookie_and_carries_none(receiver: Receiver) -> None:
    receiver.reply = says(answer(200, body=BODY, Set_Cookie="session=somebody"))
    async with a_client() as client:
        for _ in range(2):
            await ask(client, receiver.url.replace("127.0.0.1", "localhost"))
    assert ["cookie" in request.headers for request in receiver.requests] == [False, False]


async def test_the_proxy_of_the_environment_is_honoured(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", receiver.url)
    async with a_client(proxy_for(URL("http://api.invalid"))) as client:
        assert (await ask(client, "http://api.invalid")).outcome is Outcome.OK
    assert [request.line for request in receiver.requests] == [f"GET http://api.invalid{PATH} HTTP/1.1"]


async def test_a_proxy_is_given_its_own_login_and_never_the_key(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.reply = closes
    monkeypatch.setenv("HTTPS_PROXY", receiver.url.replace("http://", "http://me:pass@"))
    async with a_client(proxy_for(URL("https://api.invalid"))) as client:
        assert (await ask(client, "https://api.invalid")).outcome is Outcome.CONNECTION
    (request,) = receiver.requests
    assert request.line == "CONNECT api.invalid:443 HTTP/1.1"
    assert request.headers["proxy-authorization"] == "Basic bWU6cGFzcw=="
    assert "apikey" not in request.headers
    assert "k-1" not in str(request)


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


async def test_cancellation_comes_through(receiver: Receiver) -> None:
    receiver.reply = hangs
    async with a_client() as client:
        look = asyncio.create_task(ask(client, receiver.url))
        while not receiver.requests:
            await asyncio.sleep(0.001)
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look
