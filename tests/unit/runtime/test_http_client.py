"""One request goes out as it should, and only one: headers, proxy, certificates, private and kept connections."""

import asyncio
import errno
import json
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import trustme
from aioresponses import aioresponses
from receiver import Receiver, answer, closes, hangs, says
from tls import Tunnel, asking, own_ca, serving
from yarl import URL

from watcher.clerk.api import ClerkApi, Reply
from watcher.domain.errors import ConfigError, LeaseExpiredError, TransportFailedError
from watcher.domain.execution import Outcome
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import (
    USER_AGENT,
    Client,
    PrivateAddressError,
    Proxy,
    Response,
    failure_of,
    is_private,
    is_private_host,
    proxy_for,
    public_socket,
)

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


async def test_a_poll_is_one_get_of_the_documented_address_also_behind_a_gateway() -> None:
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
    with aioresponses() as api:
        api.get(f"https://gateway.example.com/clerk/v1{PATH}", body=BODY)
        async with a_client() as client:
            assert (await ask(client, "https://gateway.example.com/clerk/v1")).outcome is Outcome.OK


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(says(answer(200, body=BODY))) as receiver:
        yield receiver


async def test_a_kept_connection_costs_no_second_request_and_no_cookie(receiver: Receiver) -> None:
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


async def test_a_proxy_gets_its_login_and_never_the_key(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver.reply = closes
    monkeypatch.setenv("HTTPS_PROXY", receiver.url.replace("http://", "http://me:pass@"))
    async with a_client(proxy_for(URL("https://api.invalid"))) as client:
        assert (await ask(client, "https://api.invalid")).outcome is Outcome.CONNECTION
    (request,) = receiver.requests
    assert request.line == "CONNECT api.invalid:443 HTTP/1.1"
    assert request.headers["proxy-authorization"] == "Basic bWU6cGFzcw=="
    assert "apikey" not in request.headers
    assert "k-1" not in str(request)


async def test_neither_a_body_nor_the_text_of_a_failure_shows() -> None:
    assert "secret" not in repr(Response(200, None, None, b"secret"))
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


async def test_a_request_is_called_off_or_cancelled_with_its_connection(receiver: Receiver) -> None:
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
    receiver.reply = hangs
    async with a_client() as client:
        look = asyncio.create_task(ask(client, receiver.url))
        while not receiver.requests:
            await asyncio.sleep(0.001)
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look


BY_PROXY = URL("http://proxy.example.com:3128")


def test_a_proxy_is_of_its_scheme_but_for_excepted_hosts_its_login_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert proxy_for(URL("https://hooks.example.com/")) == Proxy()
    monkeypatch.setenv("HTTPS_PROXY", str(BY_PROXY))
    assert proxy_for(URL("https://hooks.example.com/")) == Proxy(BY_PROXY)
    assert proxy_for(URL("http://hooks.example.com/")) == Proxy()
    monkeypatch.setenv("HTTP_PROXY", "http://user:p%40ss@proxy.example.com:3128")
    proxy = proxy_for(URL("http://hooks.example.com/"))
    assert proxy == Proxy(BY_PROXY, {"Proxy-Authorization": "Basic dXNlcjpwQHNz"})
    monkeypatch.setenv("HTTPS_PROXY", str(BY_PROXY))
    monkeypatch.setenv("NO_PROXY", "localhost,.example.com")
    assert proxy_for(URL("https://hooks.example.com/")) == Proxy()
    assert proxy_for(URL("https://hooks.example.org/")) == Proxy(BY_PROXY)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("socks5://user:hunter2@proxy.example.com:1080", "only http and https proxies are known"),
        ("http://user:hunter2@proxy.example.com:port", "is no URL of a proxy"),
        ("http://", "is no URL of a proxy"),
    ],
)
def test_an_unusable_proxy_is_refused_unseen(monkeypatch: pytest.MonkeyPatch, address: str, problem: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(ConfigError, match=f"^HTTPS_PROXY: {problem}; write it like") as caught:
        proxy_for(URL("https://hooks.example.com/"))
    assert "hunter2" not in str(caught.value)


PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "::1", "0.0.0.0", "0.1.2.3", "::"),  # noqa: S104 (the unspecified one)
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd00:ec2::254", "fec0::1"),
    *("169.254.169.254", "169.254.1.1", "fe80::1", "fe80::1%eth0", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("168.63.129.16", "192.0.0.192", "192.0.0.9", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1"),
    *("224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "ff02::1", "192.88.99.1"),
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::ffff:0:127.0.0.1"),
    *("64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:808:808::"),
    *("2001::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1"),
]
PUBLIC = [
    *("8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0", "172.15.255.255", "172.32.0.0", "100.63.255.255"),
    *("100.128.0.0", "169.253.255.255", "169.255.0.0", "192.167.255.255", "192.169.0.0", "223.255.255.255"),
    *("2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"),
]


@pytest.mark.parametrize(
    ("address", "private"), [*((each, True) for each in PRIVATE), *((each, False) for each in PUBLIC)]
)
def test_a_socket_is_made_for_a_public_address_and_for_no_private_one(address: str, private: bool) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    info = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 443))
    assert is_private(address) is private
    if private:
        with pytest.raises(PrivateAddressError):
            public_socket(info)
    else:
        with public_socket(info) as made:
            assert made.family == family


def test_a_host_that_is_private_whoever_resolves_it_is_known_without_asking_and_no_other() -> None:
    private = ("127.0.0.1", "10.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1%25eth0", "localhost", "LOCALHOST.")
    others = ("8.8.8.8", "2606:4700::1111", "hooks.example.com", "10.example", "a:b")
    assert [is_private_host(host) for host in (*private, *others)] == [True] * len(private) + [False] * len(others)


API_HOST = "api.example.com"
HERE = "127.0.0.1"
SCRIPT = """
import asyncio, sys
from yarl import URL
from watcher.domain.errors import TransportFailedError
from watcher.runtime.http_client import Client, proxy_for

async def length(body, date):
    return len(body)

async def main():
    for url in map(URL, sys.argv[1:]):
        async with Client(api_key="k-1", timeout_s=5, connections=1, proxy=proxy_for(url)) as client:
            try:
                print((await client.get(url, read=length)).status_code)
            except TransportFailedError as failure:
                print(failure.kind)

asyncio.run(main())
"""


async def what_a_process_sees(*urls: str, **environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT, *urls), stdout=asyncio.subprocess.PIPE, env=clean | environment
    )
    return (await process.communicate())[0].decode().split()


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_only_a_certificate_of_a_known_ca_and_name_gets_the_key(tmp_path: Path, *, by_proxy: bool) -> None:
    ca = own_ca(tmp_path)
    contexts = (
        serving(ca, HERE, API_HOST),
        serving(ca, "other.example.com"),
        serving(ca, HERE, API_HOST, expired=True),
        serving(trustme.CA(), HERE, API_HOST),
    )
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(Receiver(says(answer(404)), tls=each)) for each in contexts]
        proxy = await stack.enter_async_context(Tunnel())
        urls = [f"https://{API_HOST if by_proxy else HERE}:{each.port}" for each in servers]
        environment = {"HTTPS_PROXY": proxy.url} if by_proxy else {}
        found = await what_a_process_sees(*urls, SSL_CERT_FILE=str(tmp_path / "ca.pem"), **environment)
    assert len(proxy.heads) == len(servers) * by_proxy
    assert "k-1" not in "".join(proxy.heads)
    assert found == ["404", "tls", "tls", "tls"]
    assert [len(each.requests) for each in servers] == [1, 0, 0, 0]
    assert servers[0].requests[0].headers["apikey"] == "k-1"


async def test_a_refused_login_and_a_wanted_certificate_lead_nowhere(tmp_path: Path) -> None:
    async with Receiver(tls=serving(own_ca(tmp_path), API_HOST)) as server, Tunnel() as proxy:
        environment = {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "HTTPS_PROXY": proxy.url.replace("hunter2", "wrong")}
        assert await what_a_process_sees(f"https://{API_HOST}:{server.port}", **environment) == ["proxy_auth"]
    assert server.connections_count == 0
    wanting = serving(own_ca(tmp_path), HERE, clients=trustme.CA())  # by TLS 1.3 it says so after the handshake
    with asking(wanting) as port:
        found = await what_a_process_sees(f"https://{HERE}:{port}", SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    assert found == ["tls"]
