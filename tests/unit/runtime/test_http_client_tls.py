"""TLS to the API on real sockets, in a process of its own: what OpenSSL takes from the environment it reads once."""

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trustme
from receiver import Receiver, answer, says
from tls import Tunnel, asking, own_ca, serving

API = "api.example.com"
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
async def test_only_a_certificate_of_a_known_ca_with_the_right_name_is_given_the_key(
    tmp_path: Path, *, by_proxy: bool
) -> None:
    ca = own_ca(tmp_path)
    contexts = (
        serving(ca, HERE, API),
        serving(ca, "other.example.com"),
        serving(ca, HERE, API, expired=True),
        serving(trustme.CA(), HERE, API),
    )
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(Receiver(says(answer(404)), tls=each)) for each in contexts]
        proxy = await stack.enter_async_context(Tunnel())
        urls = [f"https://{API if by_proxy else HERE}:{each.port}" for each in servers]
        environment = {"HTTPS_PROXY": proxy.url} if by_proxy else {}
        found = await what_a_process_sees(*urls, SSL_CERT_FILE=str(tmp_path / "ca.pem"), **environment)
    assert len(proxy.heads) == len(servers) * by_proxy
    assert "k-1" not in "".join(proxy.heads)
    assert found == ["404", "tls", "tls", "tls"]
    assert [len(each.requests) for each in servers] == [1, 0, 0, 0]
    assert servers[0].requests[0].headers["apikey"] == "k-1"


async def test_a_proxy_that_refuses_the_login_leads_nowhere(tmp_path: Path) -> None:
    async with Receiver(tls=serving(own_ca(tmp_path), API)) as server, Tunnel() as proxy:
        environment = {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "HTTPS_PROXY": proxy.url.replace("hunter2", "wrong")}
        assert await what_a_process_sees(f"https://{API}:{server.port}", **environment) == ["proxy_auth"]
    assert server.connections_count == 0


async def test_a_server_that_wants_a_client_certificate_is_a_failure_of_tls(tmp_path: Path) -> None:
    server = serving(own_ca(tmp_path), HERE, clients=trustme.CA())  # by TLS 1.3 it says so after the handshake
    with asking(server) as port:
        found = await what_a_process_sees(f"https://{HERE}:{port}", SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    assert found == ["tls"]
