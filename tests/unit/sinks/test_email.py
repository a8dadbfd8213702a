"""Mails, handed over to a real server on real sockets, and read there as a mail program reads them."""

import asyncio
import re
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trustme
from mail_server import FROM, HOST, PASSWORD, TO, USERNAME, Mail, MailServer
from parameters import seeds
from receiver import Reply, closes, hangs, says
from sample_events import (
    ERROR,
    HOSTILE,
    HOSTILE_PARTS,
    PIPELINE,
    PROBLEM,
    closing_overdue,
    execution_id,
    failed,
    hostile_failures,
    hostile_text,
    of_text,
    sample,
)
from structlog.testing import capture_logs
from tls import own_ca, serving
from worker_rig import FakeClock

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import encode, group_id
from watcher.domain.errors import TransportFailedError
from watcher.domain.event import EventType
from watcher.domain.routing import Grouped, GroupRules
from watcher.sinks import email
from watcher.sinks.chat import notice_of_batch
from watcher.sinks.email import EmailSettings, mail_of
from watcher.sinks.protocol import SendOutcome, SendResult, SinkContext
from watcher.sinks.settings import PemFile

FAILED, FAILING, RECOVERED = EventType.EXECUTION_FAILED, EventType.PIPELINE_FAILING, EventType.PIPELINE_RECOVERED
LOGIN = {"username": USERNAME, "password": PASSWORD}
PAGES = "https://watcher.example.com"
THREE = ["a@example.com", "b@example.com", "c@example.com"]
THREAD = [
    *map(sample, (FAILING, EventType.PROBLEM_REMINDER, EventType.PROBLEM_ACKNOWLEDGED)),
    *map(sample, (RECOVERED, EventType.PROBLEM_CLOSED)),
]
TAKEN = SendResult(SendOutcome.DELIVERED, "250")


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with MailServer() as server:
        yield server


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    return own_ca(tmp_path)


def block(server: str = "mail.example.com", **more: object) -> EmailSettings:
    return EmailSettings.model_validate({"type": "email", "server": server, "from": FROM, "to": THREE, **more})


def settings(server: MailServer, **more: object) -> EmailSettings:
    return EmailSettings.model_validate(server.block(**more))


def by_tls(server: MailServer, folder: Path, *, implicit: bool) -> EmailSettings:
    """Return the settings of a server that wants TLS and a login."""
    ca_file = PemFile("ca.pem", folder / "ca.pem", "")
    return settings(server, tls="tls" if implicit else "starttls", ca_file=ca_file, **LOGIN)


async def sent(settings: EmailSettings, *batch: Delivery) -> SendResult:
    return await settings.open(SinkContext(FakeClock(), public_url=PAGES)).send(batch or [failed()])


def made(*batch: Delivery, settings: EmailSettings | None = None) -> Mail:
    """Return the mail of a batch, without a server."""
    raw = mail_of(batch, settings or block(), at=FakeClock().now(), public_url=PAGES)
    return Mail(None, [], raw, is_secured=False)


# what a mail says


async def test_a_mail_says_what_happened_as_plain_text_and_as_html(server: MailServer) -> None:
    assert await sent(settings(server), failed(link="https://example.com/runs/1")) == TAKEN
    (mail,) = server.mails
    assert (mail.sender, mail.to, mail.message["Subject"]) == (FROM, [TO], "✕ Sales agent failed at Greeting")
    ids = f"pipeline {PIPELINE} · execution {execution_id()} · event {failed().event_id}"
    details = f"{PAGES}/executions/default/{PIPELINE}/{execution_id()}"
    facts = ["Ended: 2026-11-24 12:00:31 UTC", "Status: failed, was running", "Ran: 2 m 31 s", "Labels: team=sales"]
    facts.append("Account: default")
    links = f"Open: https://example.com/runs/1\nDetails: {details}"
    parts = ["✕ Sales agent failed at Greeting", ERROR, "\n".join(facts), links, ids]
    assert mail.body("plain").strip() == "\n\n".join(parts)
    assert mail.body("html").strip().splitlines() == [
        "<!doctype html>",
        '<html><body style="font-family: sans-serif; overflow-wrap: anywhere">',
        *("<p>✕ Sales agent failed at Greeting</p>", f"<p>{ERROR}</p>", f"<p>{'<br>'.join(facts)}</p>"),
        f'<p><a href="https://example.com/runs/1">Open</a><br><a href="{details}">Details</a></p>',
        *(f"<p>{ids}</p>", "</body></html>"),
    ]


async def test_a_group_is_one_mail_with_the_newest_five_made_in_a_thread(server: MailServer) -> None:
    links = [f"https://example.com/runs/{number}" for number in range(30)]
    batch = [failed(number, link=link) for number, link in enumerate(links)]
    assert await sent(settings(server), *batch) == TAKEN
    (mail,) = server.mails
    assert mail.message["Subject"] == "✕ 30 failed in Sales agent (12:00:31-12:00:31 UTC)"
    assert mail.message["Message-ID"] == f"<{group_id(each.event_id for each in batch)}@example.com>"
    assert "30 \N{MULTIPLICATION SIGN} Greeting: upstream timeout" in mail.body("plain")
    assert "The newest 5:" in mail.body("plain")
    assert re.findall("^Open: (.*)$", mail.body("plain"), re.MULTILINE) == links[25:]
    assert mail.body("html").count("Open</a>") == 5


async def test_the_mail_of_a_group_is_made_in_a_thread(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def noted(*args: Any, **more: Any) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return mail_of(*args, **more)

    monkeypatch.setattr(email, "mail_of", noted)
    await sent(settings(server), failed())
    await sent(settings(server), failed(1), failed(2))
    assert threads == [True, False]


# threads


@pytest.mark.parametrize(
    ("opening", "closing", "subject"),
    [
        (EventType.EXECUTION_OVERDUE, closing_overdue(EventType.EXECUTION_SUCCESS), "Execution overdue: Sales agent"),
        (EventType.EXECUTION_OVERDUE, closing_overdue(FAILED), "Execution overdue: Sales agent"),
        (EventType.ACCOUNT_DEGRADED, sample(EventType.ACCOUNT_RECOVERED), "Account degraded: default"),
        (EventType.SINK_FAILING, sample(EventType.SINK_RECOVERED), "Sink failing: ops"),
    ],
)
def test_opening_and_closing_share_a_subject(opening: EventType, closing: Delivery, subject: str) -> None:
    assert [made(each).message["Subject"] for each in (sample(opening), closing)] == [subject] * 2


def test_what_is_no_problem_is_in_no_thread_and_a_long_domain_breaks_no_id() -> None:
    for mail in map(made, (failed(), sample(EventType.WATCHER_TEST))):
        assert (mail.message["References"], mail.message["In-Reply-To"]) == (None, None)
    domain = f"{'long.' * 30}example.com"
    mail = made(sample(FAILING), settings=block(**{"from": f"watcher@{domain}"}))
    for name, id_ in (("Message-ID", sample(FAILING).event_id), ("References", PROBLEM), ("In-Reply-To", PROBLEM)):
        assert f"{name}: <{id_}@{domain}>\r\n".encode() in mail.content


# texts of others


class Tags(HTMLParser):
    """Notes what a mail program would obey, and what it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(tag, name) for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts += data.split()


def check(*batch: Delivery) -> Mail:
    """Return a mail that obeys no text in it, and of which both bodies say the same."""
    mail = made(*batch)
    names = ["From", "To", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress", "Subject"]
    assert sorted(mail.message.keys()) == sorted([*names, "MIME-Version", "Content-Type"])
    assert mail.message["Subject"] == notice_of_batch(batch).headline
    assert all(len(line) <= 998 and line.isascii() for line in mail.content.split(b"\r\n"))
    assert b"\n" not in mail.content.replace(b"\r\n", b"")
    tags = Tags()
    tags.feed(mail.body("html"))
    assert tags.tags <= {"html", "body", "p", "br", "a"}
    assert tags.attributes <= {("body", "style"), ("a", "href")}
    text = re.sub(r"^(\w+): https?://\S+$", r"\1", mail.body("plain"), flags=re.MULTILINE)
    assert tags.texts == text.split()
    assert all(each.isprintable() for each in mail.body("plain").split("\n"))
    return mail


@pytest.mark.parametrize("seed", seeds(ci=3, soak=20))
def test_no_text_of_others_is_obeyed(seed: int) -> None:
    batch = hostile_failures(seed, count=30)
    short = [sample(EventType.WATCHER_TEST)]  # which would need no encoding, but for its sign
    for each in ([batch[0]], batch, short):
        check(*each)


@pytest.mark.parametrize(
    "name",
    [
        "Sales\r\nBcc: all@example.com\r\n\r\n<script>x</script>",
        "=?utf-8?q?Sales=0D=0ABcc:_all=40example.com?=",
        "=?utf-8?b?DQpCY2M6IGFsbEBleGFtcGxlLmNvbQ==?= =?utf-8?q?x?=",
        "für Österreich  und  die Schweiz",
        '"><img src="https://example.com/x.png" onerror=x>',
        "Sales \u202egent\u2028\x00",
        HOSTILE,
    ],
)
def test_a_name_is_shown_in_the_subject_and_makes_no_header(name: str) -> None:
    check(failed(pipeline={"name": name}))


def test_all_mails_of_a_problem_have_one_subject_however_hostile() -> None:
    mails = list(map(made, THREAD))
    for mail, delivery in zip((each.message for each in mails), THREAD, strict=True):
        assert mail["Subject"] == "Pipeline failing: Sales agent"
        assert mail["References"] == mail["In-Reply-To"] == f"<{PROBLEM}@example.com>"
        assert mail["Message-ID"] == f"<{delivery.event_id}@example.com>"
    assert mails[3].body("plain").startswith("✓ Sales agent recovered after 41 m (7 failed)\n")
    name = hostile_text(Random(1), count=40)
    mails = [made(sample(EventType(each.type), pipeline={"name": name})) for each in THREAD]
    assert len({mail.message["Subject"] for mail in mails}) == 1


def whole(delivery: Delivery, **block: object) -> Delivery:
    """Return a failure as large as it is: what is stored is cut."""
    content = delivery.content
    content["data"]["execution"] |= block
    return replace(delivery, body=encode(content))


@pytest.mark.ci
@pytest.mark.parametrize("part", HOSTILE_PARTS)
def test_a_mail_is_below_100_kb_however_much_others_write(part: str) -> None:
    text, link = part * (8000 // len(part)), f"https://example.com/{'&' * 2000}"
    nodes = [{"id": "n", "name": text, "error": text}] * 4
    delivery = whole(of_text(text[:200], link=link, runbook=link), status=text, error=text, failedNodes=nodes)
    for batch in ([delivery], [delivery] * 6):
        assert len(made(*batch).content) < 100_000


def test_an_error_of_a_megabyte_is_cut() -> None:
    node = {"id": "n", "name": "Greeting", "error": "x" * 1_000_000}
    assert len(check(whole(failed(), failedNodes=[node])).content) < 10_000


# connections


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@asynccontextmanager
async def listening(serve: Serve, **more: object) -> AsyncIterator[EmailSettings]:
    """Serve each connection that way and close it."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(served, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield EmailSettings.model_validate(MailServer.block_at(port) | more)


@pytest.mark.parametrize("implicit", [False, True])
async def test_a_mail_goes_by_tls_and_with_a_login(ca: trustme.CA, tmp_path: Path, *, implicit: bool) -> None:
    async with MailServer(serving(ca, HOST), implicit=implicit, login=True) as server:
        mail = by_tls(server, tmp_path, implicit=implicit)
        assert await sent(mail) == TAKEN
        assert [mail.is_secured for mail in server.mails] == [True]
        assert server.commands[-4:] == ["AUTH", "MAIL", "RCPT", "DATA"]
        assert await mail.connect() == "connected and logged in, nothing sent"
        assert server.commands[-1] == "AUTH"


@pytest.mark.parametrize(
    ("more", "server", "security"),
    [
        ({}, "h.example:587", "starttls"),
        ({"server": "h.example"}, "h.example:587", "starttls"),
        ({"server": "[::1]:2525"}, "[::1]:2525", "starttls"),
        ({"server": "h.example:465"}, "h.example:465", "tls"),
        ({"server": "h.example:465", "tls": "starttls"}, "h.example:465", "starttls"),
        ({"tls": "none"}, "h.example:587", "none"),
    ],
)
def test_port_and_security_have_defaults_that_go_together(more: dict[str, str], server: str, security: str) -> None:
    mail = block(**{"server": "h.example:587"} | more)
    assert (mail.server, mail.security) == (server, security)


async def test_a_server_is_greeted_with_the_domain_of_the_sender_and_left_with_quit(server: MailServer) -> None:
    assert await sent(settings(server)) == TAKEN
    assert server.commands[0] == "EHLO example.com"
    async with asyncio.timeout(5):
        while not server.quits_count:
            await asyncio.sleep(0)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda ca: serving(ca, "other.example.com"), "mismatch"),
        (lambda ca: serving(ca, HOST, expired=True), "certificate has expired"),
        (lambda _: serving(trustme.CA(), HOST), "unable to get local issuer"),
    ],
)
async def test_a_server_with_a_wrong_certificate_gets_no_password_and_no_mail(
    certificate: Callable[[trustme.CA], ssl.SSLContext], reason: str, ca: trustme.CA, tmp_path: Path, *, implicit: bool
) -> None:
    async with MailServer(certificate(ca), implicit=implicit, login=True) as server:
        result = await sent(by_tls(server, tmp_path, implicit=implicit))
    assert (result.outcome, result.answer) == (SendOutcome.RETRY, "tls")
    assert reason in result.remedy
    assert "ca_file, or SSL_CERT_FILE" in result.remedy
    assert not {"AUTH", "MAIL"} & set(server.commands)


@pytest.mark.parametrize(("login", "more"), [(True, {"tls": "starttls"}), (False, {})])
async def test_a_server_without_starttls_or_login_gets_no_mail(login: bool, more: dict[str, str]) -> None:
    async with MailServer(login=login) as server:
        result = await sent(settings(server, **more, **LOGIN))
    assert (result.outcome, result.answer) == (SendOutcome.RETRY, "unfit")
    assert result.remedy.startswith("it offers no STARTTLS, or no login")
    assert server.commands == ["EHLO example.com"]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (closes, "reset"),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "no SMTP"),
        (says(b"x" * 100_000), "no SMTP"),
        (says(b"554 no\r\n"), "554"),
        (says(b"421 later\r\n"), "421"),
        (hangs, "timeout"),
    ],
)
async def test_what_is_no_mail_server_that_takes_mail_is_said(reply: Reply, answer: str) -> None:
    async with listening(lambda _, writer: reply(writer), timeout="200ms") as mail:
        result = await sent(mail)
        with pytest.raises(TransportFailedError, match=f"^{answer}$"):
            await mail.connect()
    outcome = SendOutcome.BUSY if answer == "421" else SendOutcome.RETRY
    assert (result.outcome, result.answer, bool(result.remedy)) == (outcome, answer, True)


@pytest.mark.parametrize(("server", "answer"), [(f"{HOST}:1", "refused"), ("nowhere.invalid", "dns")])
async def test_a_server_that_is_not_there_is_said(server: str, answer: str) -> None:
    result = await sent(block(server))
    assert (result.outcome, result.answer) == (SendOutcome.RETRY, answer)
    assert "server" in result.remedy


async def test_a_mail_takes_no_longer_than_timeout_and_is_taken_by_its_answer(server: MailServer) -> None:
    server.hangs = True
    async with asyncio.timeout(4):
        result = await sent(settings(server, timeout="100ms"))
        while server.connections[0].transport is not None:
            await asyncio.sleep(0)
    assert (result.outcome, result.answer) == (SendOutcome.RETRY, "timeout")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in ("220 hello", *["250 OK"] * 3, "354 go on"):
            writer.write(f"{reply}\r\n".encode())
            await reader.readuntil(b"\r\n.\r\n" if reply.startswith("354") else b"\r\n")
        writer.write(b"250 OK\r\n")

    async with listening(serve) as mail:
        assert await sent(mail) == TAKEN


# answers


@pytest.mark.parametrize(
    ("replies", "outcome", "answer"),
    [
        ({"MAIL": "451 later"}, SendOutcome.RETRY, "451"),
        ({"MAIL": "550 not s3cret ops@example.com"}, SendOutcome.RETRY, "550"),
        ({"DATA": "452 full"}, SendOutcome.RETRY, "452"),
        ({"DATA": "554 spam"}, SendOutcome.REFUSED, "554"),
        ({"MAIL": "421 closing"}, SendOutcome.BUSY, "421"),
        ({TO: "421 closing"}, SendOutcome.BUSY, "421"),
        ({"DATA": "421 closing"}, SendOutcome.BUSY, "421"),
        ({TO: "450 greylisted"}, SendOutcome.RETRY, "0 of 1 recipients taken; to[0]: 450"),
        ({TO: "550 nobody"}, SendOutcome.REFUSED, "0 of 1 recipients taken; to[0]: 550"),
    ],
)
async def test_4xx_is_for_now_and_5xx_of_recipient_or_content_refuses(
    server: MailServer, replies: dict[str, str], outcome: SendOutcome, answer: str
) -> None:
    server.replies = replies
    with capture_logs() as logs:
        result = await sent(settings(server))
    assert (result.outcome, result.answer, bool(result.remedy)) == (outcome, answer, True)
    assert server.mails == []
    assert "s3cret" not in f"{result}{logs}"  # no word of the server is passed on


@pytest.mark.parametrize(
    ("replies", "outcome", "answer"),
    [
        (
            ("250", "550 5.1.1 <b@example.com> left us", "250"),
            SendOutcome.DELIVERED,
            "250; 2 of 3 recipients taken; to[1]: 550",
        ),
        (("550", "553", "550"), SendOutcome.REFUSED, "0 of 3 recipients taken; to[0]: 550; to[1]: 553; to[2]: 550"),
        (("550", "553", "451"), SendOutcome.RETRY, "0 of 3 recipients taken; to[0]: 550; to[1]: 553; to[2]: 451"),
    ],
)
async def test_a_mail_is_taken_if_one_recipient_is(
    server: MailServer, replies: tuple[str, ...], outcome: SendOutcome, answer: str
) -> None:
    server.replies = {who: f"{reply} no" for who, reply in zip(THREE, replies, strict=True)}
    result = await sent(settings(server, to=THREE))
    assert (result.outcome, result.answer) == (outcome, answer)
    assert [mail.to for mail in server.mails] == ([[THREE[0], THREE[2]]] if outcome.is_taken else [])
    assert ("DATA" in server.commands) is outcome.is_taken


async def test_a_wrong_password_is_tried_once_and_the_mail_is_taken_once_it_is_right() -> None:
    async with MailServer(login=True) as server:
        server.password = "another"
        result = await sent(settings(server, **LOGIN))
        assert (result.outcome, result.answer, server.mails) == (SendOutcome.RETRY, "535", [])
        assert result.remedy.startswith("correct username and password")
        assert server.commands.count("AUTH") == 1  # by whatever methods it could be tried: many lock an account
        server.password = PASSWORD
        assert await sent(settings(server, **LOGIN)) == TAKEN


def test_headers_keep_machines_from_answering_and_events_wait_30_s_for_others() -> None:
    mail = made(failed()).message
    assert (mail["From"], mail["To"], mail["Date"].datetime) == (FROM, ", ".join(THREE), FakeClock().now())
    assert (mail["Auto-Submitted"], mail["X-Auto-Response-Suppress"]) == ("auto-generated", "All")
    assert block().rules.group == GroupRules(("pipeline",), 30.0, 10_000, Grouped.WITHOUT_PROBLEMS)
