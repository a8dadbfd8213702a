"""TLS of a sink, tried on real sockets, directly and through a proxy: what a delivery and `check --online` get."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from receiver import Receiver, answer, says
from sample_events import failed
from tls import NAME, Tunnel, asking, key_pair, own_ca, serving
from worker_rig import FakeClock

from watcher.daemon.from_settings import fingerprint_of_sink
from watcher.domain.errors import TransportFailedError
from watcher.sinks.protocol import SendOutcome, SinkContext
from watcher.sinks.settings import PemFile
from watcher.sinks.webhook import WebhookSettings

HERE = "127.0.0.1"
WAY_OUT = "SSL_CERT_FILE, or tls.ca_file of a sink, names the CA to trust"


pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    return own_ca(tmp_path)


def block(url: str, **files: Path) -> WebhookSettings:
    tls = {key: PemFile(str(path), path, path.read_text()) for key, path in files.items()}
    document: dict[str, Any] = {"type": "webhook", "url": f"{url}/secret/path", "timeout": "5s"}
    return WebhookSettings.model_validate(document | ({"tls": tls} if tls else {}))


async def outcome_of(settings: WebhookSettings, *, remedy: str = "") -> str:
    """Send an event, and connect as `check --online` does: both must come to the same. `remedy` is in that of `tls`."""
    sink = settings.open(SinkContext(FakeClock()))
    try:
        result = await sink.send([failed()])
    finally:
        await sink.close()
    if result.outcome is SendOutcome.DELIVERED:
        await settings.connect()
    else:
        with pytest.raises(TransportFailedError, match=f"^{result.answer}$"):
            await settings.connect()
    if result.answer == "tls":
        assert remedy in result.remedy
        assert WAY_OUT in result.remedy
    return result.answer


SERVERS: dict[str, Callable[[trustme.CA], ssl.SSLContext]] = {
    "as it should be": lambda ca: serving(ca, HERE, NAME),
    "another name": lambda ca: serving(ca, "other.example.com"),
    "expired": lambda ca: serving(ca, HERE, NAME, expired=True),
    "another CA": lambda _: serving(trustme.CA(), HERE, NAME),
}
REASONS = {"another name": "mismatch", "expired": "certificate has expired", "another CA": "unable to get local issuer"}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("by_proxy", [False, True])
async def test_only_a_certificate_of_ones_own_ca_with_the_right_name_is_taken(
    server: str, ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_proxy: bool
) -> None:
    async with Receiver(says(answer(204)), tls=SERVERS[server](ca)) as receiver, Tunnel() as proxy:
        url = receiver.url
        if by_proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            url = f"https://{NAME}:{receiver.port}"
        found = await outcome_of(block(url, ca_file=tmp_path / "ca.pem"), remedy=REASONS.get(server, ""))
    assert found == ("204" if server == "as it should be" else "tls")
    assert len(receiver.requests) == (server == "as it should be")
    connect = f"CONNECT {NAME}:{receiver.port} HTTP/1.1"
    assert [request.split("\r\n")[0] for request in proxy.heads] == [connect] * 2 * by_proxy


async def test_a_port_that_speaks_no_tls_is_said() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        try:
            with suppress(OSError):
                await reader.read()
        finally:
            writer.close()

    async with await asyncio.start_server(refuse, HERE, 0) as server:
        url = f"https://{HERE}:{server.sockets[0].getsockname()[1]}"
        assert await outcome_of(block(url), remedy="wrong version number") == "tls"


async def test_the_system_trusts_no_ca_of_ones_own(ca: trustme.CA) -> None:
    async with Receiver(tls=serving(ca, HERE)) as receiver:
        assert await outcome_of(block(receiver.url)) == "tls"


async def test_a_proxy_that_refuses_the_login_leads_nowhere(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Receiver(tls=serving(ca, NAME)) as receiver, Tunnel() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("hunter2", "wrong"))
        assert await outcome_of(block(f"https://{NAME}:{receiver.port}", ca_file=tmp_path / "ca.pem")) == "proxy_auth"
    assert receiver.connections_count == 0


@pytest.mark.parametrize("said", [answer(502), b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"x" * 200_000])
async def test_a_proxy_that_leads_nowhere_is_a_failed_connection(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    async with Receiver(reply) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(TransportFailedError, match=r"^(connection|reset)$"):
            await block(f"https://{NAME}").connect()


@pytest.mark.parametrize("is_ours", [True, False])
async def test_a_proxy_with_a_certificate_is_verified_as_well(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_ours: bool
) -> None:
    of_proxy = serving(ca if is_ours else trustme.CA(), HERE)
    async with Receiver(says(answer(204)), tls=serving(ca, NAME)) as receiver, Tunnel(tls=of_proxy) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        url = f"https://{NAME}:{receiver.port}"
        assert await outcome_of(block(url, ca_file=tmp_path / "ca.pem")) == ("204" if is_ours else "tls")
    assert bool(proxy.heads) is is_ours


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_a_receiver_that_asks_for_a_certificate_is_shown_it(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_proxy: bool
) -> None:
    clients = trustme.CA()
    key_pair(tmp_path, clients, "watcher.example.com")
    async with Receiver(tls=serving(ca, HERE, NAME, clients=clients)) as receiver, Tunnel() as proxy:
        url = receiver.url
        if by_proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            url = f"https://{NAME}:{receiver.port}"
        pair = {"cert_file": tmp_path / "tls.crt", "key_file": tmp_path / "tls.key"}
        assert await outcome_of(block(url, ca_file=tmp_path / "ca.pem", **pair)) == "204"
    assert "watcher.example.com" in repr(receiver.peers[0])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("is_shown", [False, True])
async def test_one_that_does_not_take_what_it_is_shown_says_so_however_late(
    version: ssl.TLSVersion, ca: trustme.CA, tmp_path: Path, *, is_shown: bool
) -> None:
    server = serving(ca, HERE, clients=trustme.CA())
    server.minimum_version = server.maximum_version = version  # by 1.3 the client learns of it only after the handshake
    files = {"ca_file": tmp_path / "ca.pem"}
    if is_shown:
        key_pair(tmp_path, trustme.CA(), "watcher.example.com")
        files |= {"cert_file": tmp_path / "tls.crt", "key_file": tmp_path / "tls.key"}
    with asking(server) as port:
        sink = block(f"https://{HERE}:{port}", **files).open(SinkContext(FakeClock()))
        result = await sink.send([failed()])
        await sink.close()
    assert result.answer == "tls"
    assert "alert" in result.remedy
    assert "tls.cert_file of a sink the certificate to show" in result.remedy


@pytest.mark.usefixtures("ca")
async def test_a_new_ca_is_trusted_by_the_sink_that_is_built_anew(tmp_path: Path) -> None:
    old = block("https://h.example", ca_file=tmp_path / "ca.pem")
    new_ca = own_ca(tmp_path)
    async with Receiver(tls=serving(new_ca, HERE)) as receiver:
        new = block(receiver.url, ca_file=tmp_path / "ca.pem")
        assert await outcome_of(new) == "204"
    assert old.tls != new.tls
    assert block("https://h.example", ca_file=tmp_path / "ca.pem").tls == new.tls
    again = block("https://h.example", ca_file=tmp_path / "ca.pem")
    assert fingerprint_of_sink(old) != fingerprint_of_sink(again)
