"""Real requests to a real socket: what is sent, and what each answer means."""

import asyncio
import ssl
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trustme
from receiver import Receiver, Reply, answer, closes, says, sink_to
from sample_events import failed
from tls import NAME, Tunnel, asking, key_pair, own_ca, serving
from worker_rig import FakeClock

from watcher.daemon.from_settings import fingerprint_of_sink
from watcher.domain.delivery import Delivery
from watcher.domain.errors import TransportFailedError
from watcher.domain.timestamps import Micros
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import REMEDIES
from watcher.runtime.settings import redact_url
from watcher.sinks.protocol import SendOutcome, SendResult, SinkContext
from watcher.sinks.settings import PemFile
from watcher.sinks.template import REDIRECTED
from watcher.sinks.webhook import WebhookSettings

BODY = '{"type": "execution.failed", "data": {"name": "Größe €"}}'.encode()
DELIVERY = Delivery("ops", 1, b"s", UUID(int=7), "execution.failed", BODY, Micros(0), Micros(0))


pytestmark = pytest.mark.usefixtures("alone")


async def sent(url: str, *, clock: Clock | None = None, **settings: Any) -> SendResult:
    async with sink_to(url, clock=clock, **settings) as sink:
        return await sink.send([DELIVERY])


def failure(kind: str) -> SendResult:
    return SendResult(SendOutcome.RETRY, kind, remedy=REMEDIES[kind])


async def test_a_request_is_what_the_contract_says(receiver: Receiver) -> None:
    await sent(receiver.url + "/clerk?team=sales", headers={"Authorization": "Bearer t", "X-Team": "sales"})
    (request,) = receiver.requests
    assert (request.line, request.body) == ("POST /clerk?team=sales HTTP/1.1", BODY)
    assert request.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert request.headers["user-agent"] == f"clerk-watcher/{version('clerk-watcher')}"
    assert request.headers["webhook-id"] == str(UUID(int=7))
    assert request.headers["webhook-timestamp"] == str(int(FakeClock().now().timestamp()))
    assert (request.headers["authorization"], request.headers["x-team"]) == ("Bearer t", "sales")
    assert "webhook-signature" not in request.headers


REFUSED, GONE = "correct headers or secret", "the receiver says that this is gone for good: set url to a new one"
NOTHING_THERE = "nothing takes messages at this url: correct it, or make a new webhook if that one was deleted"
REMEDIES_OF_CODES = {
    **dict.fromkeys((200, 202), ""),
    **dict.fromkeys((301, 302, 303, 307, 308), REDIRECTED),
    **dict.fromkeys((401, 403), REFUSED),
    404: NOTHING_THERE,
    405: "it does not take what is sent to it: correct url, or template",
    410: GONE,
    429: "it gets too many requests: wait, or lower rate_limit",
    503: "it has trouble of its own: wait, or ask who runs it",
}


async def test_a_status_code_says_what_to_do(receiver: Receiver) -> None:
    for code, remedy in REMEDIES_OF_CODES.items():
        receiver.reply = says(answer(code))
        assert (await sent(receiver.url)).remedy == remedy, code


def with_body(status: str, *headers: str, body: bytes) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


CHUNKED, TWO_BYTES = "Transfer-Encoding: chunked", "Content-Length: 2"
ODD_ANSWERS = {
    "204 with a length": with_body("204 No Content", TWO_BYTES, body=b"{}"),
    "204 chunked and empty": with_body("204 No Content", CHUNKED, body=b"0\r\n\r\n"),
    "200 chunked and with a length": with_body("200 OK", TWO_BYTES, CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n"),
    "200 with two lengths": with_body("200 OK", TWO_BYTES, "Content-Length: 3", body=b"{}"),
    "200 with more than its length": with_body("200 OK", TWO_BYTES, body=b"{}{}{}"),
    "200 with a chunk that is none": with_body("200 OK", CHUNKED, body=b"zz\r\n{}\r\n"),
    "200 with a large header": with_body("200 OK", f"X-Large: {'x' * 200_000}", "Content-Length: 0", body=b""),
    "200 that says it is compressed": with_body("200 OK", "Content-Encoding: gzip", TWO_BYTES, body=b"{}"),
    "200 without a reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
    "200 after a 103": with_body("103 Early Hints", "Link: </a>", body=with_body("200 OK", body=b"")),
    "200 that breaks off after its status line": b"HTTP/1.1 200 OK\r\n",
}


def breaks_off(reply: bytes) -> Reply:
    async def reply_and_close(writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()
        writer.close()

    return reply_and_close


@pytest.mark.parametrize("reply", ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
async def test_the_status_line_settles_however_the_rest_is_framed(receiver: Receiver, reply: bytes) -> None:
    receiver.reply = says(reply) if b"\r\n\r\n" in reply else breaks_off(reply)
    async with sink_to(receiver.url, timeout="2s") as sink:
        receipts = [await sink.send([DELIVERY]) for _ in range(4)]
    assert [result.outcome for result in receipts] == [SendOutcome.DELIVERED] * 4
    assert len(receiver.requests) == 4


async def test_an_odd_answer_may_come_in_parts_but_begins_with_a_status_line(receiver: Receiver) -> None:
    odd = ODD_ANSWERS["200 chunked and with a length"]
    for split_at in (5, 12, 13, 30, 60):
        receiver.reply = says(odd[:split_at], odd[split_at:])
        assert await sent(receiver.url) == SendResult(SendOutcome.DELIVERED, "200"), split_at
    for reply in (b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 2", b"{}HTTP/1.1 204 No Content\r\n\r\n"):
        receiver.reply = breaks_off(reply)
        assert (await sent(receiver.url)).outcome is SendOutcome.RETRY


async def test_what_a_proxy_answers_is_no_receivers_answer(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver.reply = breaks_off(b"HTTP/1.1 200 Connection established\r\n\r\n")
    monkeypatch.setenv("https_proxy", receiver.url)
    assert (await sent("https://hooks.example.com/clerk")).outcome is SendOutcome.RETRY
    receiver.reply = says(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}")
    assert (await sent("https://hooks.example.com/clerk")).outcome is SendOutcome.RETRY


async def drips_its_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    while True:
        await says(b"x")(writer)


async def test_the_timeout_is_total_and_a_dropped_connection_is_not_repeated(receiver: Receiver) -> None:
    async with sink_to(receiver.url) as sink:
        await sink.send([DELIVERY])
        receiver.reply = closes
        assert await sink.send([DELIVERY]) == failure("reset")
    assert (len(receiver.requests), receiver.connections_count) == (2, 1)
    receiver.reply = drips_its_head
    assert await sent(receiver.url, timeout="200ms") == SendResult(SendOutcome.DELIVERED, "200")


@pytest.mark.parametrize(
    "reply",
    [
        says(answer()),
        says(answer(200, body=b"ok")),
        says(*(answer(200, body=b"ok")[:-2], b"o", b"k")),
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n", b"0\r\n\r\n"),
        says(answer(200, Content_Encoding="gzip", body=b"not gzip at all")),
        says(answer(500, body=b"x" * 4096)),
    ],
)
async def test_a_connection_is_used_again(receiver: Receiver, reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.sinks.http_post.BODY_GRACE_S", 5.0)  # a busy machine may take its time
    receiver.reply = reply
    async with sink_to(receiver.url) as sink:
        for _ in range(3):
            await sink.send([DELIVERY])
    assert receiver.connections_count == 1


HEAD = b"HTTP/1.1 200 OK\r\n"


async def floods(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        await writer.drain()


async def drips_its_body(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"Content-Length: 100\r\n\r\n")
    while True:
        await says(b"x")(writer)


@pytest.mark.parametrize(
    "reply", [floods, drips_its_body, says(HEAD + b"Content-Length: 99999999999\r\n\r\nx"), says(HEAD + b"\r\nendless")]
)
async def test_a_body_without_end_costs_neither_time_nor_the_success(receiver: Receiver, reply: Reply) -> None:
    receiver.reply = reply
    async with asyncio.timeout(10):  # of the 15 s that it may take in all
        assert await sent(receiver.url) == SendResult(SendOutcome.DELIVERED, "200")


async def test_the_timestamp_is_of_the_attempt_the_id_stays_and_no_cookie(receiver: Receiver) -> None:
    clock = FakeClock()
    async with sink_to(receiver.url, clock=clock) as sink:
        await sink.send([DELIVERY])
        clock.elapsed_s = 60
        await sink.send([DELIVERY])
    first, second = (request.headers for request in receiver.requests)
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 60
    assert first["webhook-id"] == second["webhook-id"]
    receiver.reply = says(answer(Set_Cookie="session=1"))
    async with sink_to(receiver.url.replace("127.0.0.1", "localhost")) as sink:
        await sink.send([DELIVERY])
        await sink.send([DELIVERY])
    assert "cookie" not in receiver.requests[1].headers


@pytest.mark.parametrize(("own", "expected"), [({}, "Basic dXNlcjpwYXNz"), ({"authorization": "Bearer t"}, "Bearer t")])
async def test_a_login_in_the_url_yields_to_a_header(receiver: Receiver, own: dict[str, str], expected: str) -> None:
    await sent(receiver.url.replace("//", "//user:pass@"), headers=own)
    assert receiver.requests[0].headers["authorization"] == expected


IN_DISGUISE = ("2130706433", "127.1", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "127。0。0。1")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", *IN_DISGUISE])
async def test_no_private_address_is_connected_to_where_that_is_not_allowed(receiver: Receiver, host: str) -> None:
    result = await sent(receiver.url.replace("127.0.0.1", host), allow_private="false")
    assert result.outcome is SendOutcome.RETRY
    assert result == failure("private") or host in IN_DISGUISE
    assert receiver.connections_count == 0


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost", "[::1]"])
async def test_no_proxy_is_asked_for_a_private_one(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("http_proxy", receiver.url)
    assert await sent(f"http://{host}/clerk", allow_private="false") == failure("private")
    assert receiver.connections_count == 0


async def test_a_plain_request_goes_through_the_proxy_which_may_be_private(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", receiver.url.replace("//", "//user:pass@"))
    assert (await sent("http://hooks.example.com/clerk")).answer == "204"
    (request,) = receiver.requests
    assert request.line == "POST http://hooks.example.com/clerk HTTP/1.1"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
    monkeypatch.setenv("http_proxy", receiver.url)
    assert (await sent("http://hooks.example.com/clerk", allow_private="false")).answer == "204"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example.com/services/T0/B0/secret?token=secret#secret", "https://hooks.example.com"),
        ("https://user:secret@hooks.example.com:8443/secret", "https://hooks.example.com:8443"),
        ("http://[::1]:8080/secret", "http://[::1]:8080"),
    ],
)
def test_of_a_url_only_scheme_and_host_are_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown


HERE = "127.0.0.1"
WAY_OUT = "SSL_CERT_FILE, or tls.ca_file of a sink, names the CA to trust"


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


async def test_the_system_trusts_no_ca_of_ones_own(ca: trustme.CA) -> None:
    async with Receiver(tls=serving(ca, HERE)) as receiver:
        assert await outcome_of(block(receiver.url)) == "tls"


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
async def test_a_proxys_certificate_is_verified(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_ours: bool
) -> None:
    of_proxy = serving(ca if is_ours else trustme.CA(), HERE)
    async with Receiver(says(answer(204)), tls=serving(ca, NAME)) as receiver, Tunnel(tls=of_proxy) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        url = f"https://{NAME}:{receiver.port}"
        assert await outcome_of(block(url, ca_file=tmp_path / "ca.pem")) == ("204" if is_ours else "tls")
    assert bool(proxy.heads) is is_ours


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_a_certificate_is_shown_where_it_is_asked_for(
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
async def test_a_certificate_that_is_not_taken_is_said_however_late(
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
