"""The sink that sends mails by SMTP: one for each event or group. The mails of a problem are one thread.

`mail_of` makes the bytes of a mail, as plain text and as HTML. `EmailSink` sends each mail on a connection of its own.
Only the code of a server's answer is passed on: the text of an answer may hold addresses.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from functools import cached_property, partial
from html import escape
from ssl import SSLContext
from typing import Annotated, Literal, Self

import aiosmtplib as smtp
from pydantic import AfterValidator, Field, SecretStr, model_validator

from watcher.domain.delivery import Delivery
from watcher.domain.errors import TransportFailedError
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import failure_of
from watcher.runtime.settings import Duration, Rate, as_written, file_twin, matching
from watcher.runtime.units import Address, InvalidValueError, is_loopback, parse_address
from watcher.sinks.alert import Alert, in_utc
from watcher.sinks.chat import Notice, notice_of_alerts
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext
from watcher.sinks.settings import EventGlobs, Grouping, GroupSettings, PemPath, RemoteSettings, client_context
from watcher.sinks.template import ALERT_EVENTS

SUBMISSION_PORT, TLS_PORT, BUSY_CODE = 587, 465, 421

_SERVER = re.compile(r"((?:[\w-]{1,63}\.)*[\w-]{1,63}\.?|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?", re.ASCII)
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_ADDRESS = rf"{_ATOM}(?:\.{_ATOM})*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"

_POLICY = SMTP_POLICY.clone(cte_type="7bit", refold_source="none")
"""The form of a mail that every server takes: 7-bit characters, at most 998 in a line."""

_HTML_HEAD = '<!doctype html>\n<html><body style="font-family: sans-serif; overflow-wrap: anywhere">'

_UNFIT = "it offers no STARTTLS, or no login by password: correct tls, or remove username and password"
_WAIT = "it has trouble of its own, or gets too much: wait, or lower rate_limit"
_REMEDIES: Mapping[type[Exception], str] = {
    smtp.SMTPAuthenticationError: "correct username and password; some providers want one made for this program",
    smtp.SMTPSenderRefused: "it takes no mail from this sender: correct from, username and password, or tls",
    smtp.SMTPRecipientRefused: "it takes no mail for them: correct to",
    smtp.SMTPDataError: "it takes no mail with this content: ask who runs it",
}
"""The remedies for a 5xx, by the error that aiosmtplib raises for the command."""

_TRANSPORT_REMEDIES = {
    "dns": "no such host is known here: correct server, or the DNS of this machine",
    "refused": "nothing listens there: correct server and its port",
    "reset": "it closed the connection: correct server, or tls, which is tls on port 465 and starttls on 587",
    "timeout": "it may be busy, or a firewall may block the port: raise timeout, open the port, or correct tls",
    "connection": "correct server, or let this machine reach it",
    "tls": "ca_file, or SSL_CERT_FILE, names the CA to trust; tls is tls on port 465 and starttls on 587",
}


def _server(value: str) -> str:
    """Return the server as `host:port`. The port is 587 unless one is given."""
    match = _SERVER.fullmatch(value)
    if match is None or not 0 < (port := int(match[2] or SUBMISSION_PORT)) < 65_536:
        raise InvalidValueError("is not host:port", remedy="write it like smtp.example.com:587")
    return f"{match[1]}:{port}"


MailAddress = Annotated[
    str, matching(_ADDRESS, "is not an address of mail", remedy="write it alone, like ops@example.com")
]


class EmailSettings(RemoteSettings):
    """`{type: email, server: …, from: …, to: […]}`."""

    type: Literal["email"] = Field(examples=["email"])
    """Sends mails. The mails of a problem are a thread, other events are sent in groups."""
    server: Annotated[str, AfterValidator(_server)] = Field(examples=["smtp.example.com:587"])
    """Host and port of the mail server. The default port is 587."""
    tls: Literal["starttls", "tls", "none"] | None = Field(default=None, examples=["tls"])
    """`tls` is TLS from the first byte, the default on port 465; else `starttls` is."""
    ca_file: PemPath | None = Field(default=None, examples=["/etc/watcher/ca.pem"])
    """The certificates (PEM) of the CAs to trust, instead of the system's."""
    username: str | None = Field(default=None, examples=["watcher"])
    """The user name for the login. Without a user name there is no login."""
    password: SecretStr | None = Field(default=None, examples=["${SMTP_PASSWORD}"])
    """The password of `username`."""
    password_file: str | None = file_twin("the password", example="/run/secrets/smtp_password")
    from_: MailAddress = Field(examples=["watcher@example.com"])
    """The address that mails come from."""
    to: tuple[MailAddress, ...] = Field(min_length=1, examples=["[ops@example.com]"])
    """The addresses that mails go to. Each mail shows all of them."""
    events: EventGlobs = ALERT_EVENTS
    timeout_s: Duration = Field(default=as_written("60s"), examples=["30s"])
    """The longest time for a mail, from connecting to the last answer. Many servers scan mails before they answer."""
    rate_limit: Rate = Field(default=as_written("30/m"), examples=["10/m"])
    """The highest rate of mails. Microsoft 365 accepts 30 a minute."""
    group: Grouping = Field(default=GroupSettings(), examples=["{by: [account], wait: 5m}"])
    """Groups events into one mail; as of every sink."""

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        """Check the keys, and make the TLS context in the loader's thread: an event loop must not read files."""
        if (self.username is None) is not (self.password is None):
            raise InvalidValueError("username and password go together", remedy="give both, or none", at="password")
        if self.security == "none" and self.password is not None and not is_loopback(self.endpoint.host):
            raise InvalidValueError("none shows others the password", remedy="write starttls, or tls", at="tls")
        assert self.context
        return self

    @property
    def is_chat(self) -> bool:
        """Whether people read each message: in a chat that keeps no state, or as mail."""
        return True

    @property
    def target(self) -> str:
        """Return host and port as a text. Neither is secret."""
        return self.server

    @property
    def endpoint(self) -> Address:
        """Return host and port as two values."""
        return parse_address(self.server)

    @property
    def security(self) -> str:
        """Return the security of the connection: `starttls`, `tls` or `none`."""
        return self.tls or ("tls" if self.endpoint.port == TLS_PORT else "starttls")

    @cached_property
    def context(self) -> SSLContext:
        """Return the TLS context. It is no field, so a comparison of settings ignores it."""
        return client_context(self.ca_file)

    @property
    def domain(self) -> str:
        """Return the domain of the sender's address."""
        return self.from_.rpartition("@")[2]

    def open(self, context: SinkContext) -> Sink:
        """Return the sink, with no connection yet."""
        return EmailSink(self, context)

    async def connect(self) -> str:
        """Connect, log in if there is a user name, and return a text about it. Raises `TransportFailedError`."""
        result = await EmailSink(self, SinkContext(Clock())).run_session()
        if not result.outcome.is_taken:
            raise TransportFailedError(result.answer, remedy=result.remedy)
        return f"connected{' and logged in' if self.username else ''}, nothing sent"


class EmailSink(Sink):
    """One mail server, one sender, and the recipients."""

    def __init__(self, settings: EmailSettings, context: SinkContext) -> None:
        self._settings, self._context = settings, context

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        """Send the mail of a delivery or a group on a connection of its own."""
        at, public_url = self._context.clock.now(), self._context.public_url
        make = partial(mail_of, batch, self._settings, at=at, public_url=public_url)
        return await self.run_session(make() if len(batch) == 1 else await asyncio.to_thread(make))

    async def run_session(self, mail: bytes | None = None) -> SendResult:
        """Connect, log in if there is a user name, and send the mail if one is given. Limit all steps to `timeout`."""
        settings, (host, port), security = self._settings, self._settings.endpoint, self._settings.security
        password = settings.password.get_secret_value() if settings.password else None
        # Google's relay refuses a machine's name without a domain. `asyncio.timeout` limits all steps together.
        client = smtp.SMTP(hostname=host, port=port, local_hostname=settings.domain, timeout=None)
        try:
            async with asyncio.timeout(settings.timeout_s):
                await client.connect(
                    tls_context=settings.context, use_tls=security == "tls", start_tls=security == "starttls"
                )
                if settings.username is not None and password is not None:
                    await client.ehlo()
                    # Try one method only: with all methods a wrong password would be several failed logins per attempt.
                    methods = {"plain": client.auth_plain, "login": client.auth_login, "cram-md5": client.auth_crammd5}
                    offered = (log_in for name, log_in in methods.items() if name in client.supported_auth_methods)
                    await next(offered, client.login)(settings.username, password)
                result = await self._send_mail(client, mail) if mail else SendResult(SendOutcome.DELIVERED, "")
            if isinstance(client.transport, asyncio.WriteTransport):
                client.transport.write(b"QUIT\r\n")  # the answer does not matter
            client.close()
        except (smtp.SMTPException, OSError) as error:
            return _result_of(error)
        finally:
            if isinstance(client.transport, asyncio.WriteTransport):  # still open, so the session has failed
                client.transport.abort()
        return result

    async def _send_mail(self, client: smtp.SMTP, mail: bytes) -> SendResult:
        """Send a mail to the recipients that the server accepts. The answer names the others by their place in `to`."""
        to, refused = self._settings.to, dict[int, int]()
        await client.mail(self._settings.from_)
        for place, address in enumerate(to):
            try:
                await client.rcpt(address)
            except smtp.SMTPRecipientRefused as error:
                if error.code == BUSY_CODE:
                    raise
                refused[place] = error.code
        parts = [f"{len(to) - len(refused)} of {len(to)} recipients taken"] if refused else []
        parts += [f"to[{place}]: {code}" for place, code in refused.items()]
        if len(refused) < len(to):
            self._context.before_request()
            code, _ = await client.data(mail)
            return SendResult(SendOutcome.DELIVERED, "; ".join([str(code), *parts]))
        is_for_good = min(refused.values()) >= 500
        outcome = SendOutcome.REFUSED if is_for_good else SendOutcome.RETRY
        remedy = _REMEDIES[smtp.SMTPRecipientRefused] if is_for_good else _WAIT
        return SendResult(outcome, "; ".join(parts), remedy=remedy)


def _result_of(error: Exception) -> SendResult:
    """Return the result of a failed session. Only a 5xx to DATA means that the mail itself is refused."""
    if isinstance(error, smtp.SMTPResponseException):
        code, refuses = error.code, error.code >= 500 and isinstance(error, smtp.SMTPDataError)
        outcome = SendOutcome.REFUSED if refuses else SendOutcome.BUSY if code == BUSY_CODE else SendOutcome.RETRY
        remedy = _WAIT if 400 <= code < 500 else _REMEDIES.get(type(error), "correct server, or ask who runs it")
        return SendResult(outcome, str(code) if code > 0 else "no SMTP", remedy=remedy)
    if not isinstance(error, OSError):
        return SendResult(SendOutcome.RETRY, "unfit", remedy=_UNFIT)
    cause: BaseException = error.__cause__ if isinstance(error.__cause__, OSError) else error
    cause = ConnectionResetError() if isinstance(cause, smtp.SMTPServerDisconnected) else cause
    failed = failure_of(cause, remedies=_TRANSPORT_REMEDIES)
    return SendResult(SendOutcome.RETRY, failed.kind, remedy=failed.remedy)


def mail_of(batch: Sequence[Delivery], settings: EmailSettings, *, at: datetime, public_url: str = "") -> bytes:
    """Return the mail about a delivery or a group. Its id is the same on every attempt.

    The mails of a problem refer to one id, made from the id of the problem, and share one subject. Mail programs need
    both to show a thread.
    """
    alerts = [Alert.of_delivery(each, public_url) for each in batch]
    is_single = len(alerts) == 1
    notice, problem = notice_of_alerts(alerts), (alerts[0].problem if is_single else None) or {}
    text, html = bodies_of(notice)
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = settings.from_
    mail["To"] = ", ".join(settings.to)
    mail["Date"] = at
    mail["Message-ID"] = f"<{notice.id}@{settings.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    # Set raw values: else Python would decode an encoded word in a subject, line ends included, and encode long ids.
    subject = Header((is_single and alerts[0].topic) or notice.headline, "utf-8", header_name="Subject")
    mail.set_raw("Subject", subject.encode())
    for name in ("References", "In-Reply-To") if problem else ():
        mail.set_raw(name, f"<{problem['id']}@{settings.domain}>")
    mail.set_content(text)
    mail.add_alternative(html, subtype="html")
    return mail.as_bytes()


def bodies_of(notice: Notice) -> tuple[str, str]:
    """Return a message as plain text and as HTML, with the same content."""
    sections = [section for section in _sections(notice) if section]
    text = "\n\n".join("\n".join(plain for plain, _ in section) for section in sections)
    html = "".join(f"<p>{'<br>'.join(marked for _, marked in section)}</p>\n" for section in sections)
    return f"{text}\n", f"{_HTML_HEAD}\n{html}</body></html>\n"


def _sections(notice: Notice) -> Iterator[list[tuple[str, str]]]:
    """Yield the paragraphs of a message: a list of lines, each as plain text and as HTML."""
    facts = {notice.moment[0]: in_utc(notice.moment[1])} if notice.moment else {}
    yield [_line(notice.headline)]
    yield [*map(_line, notice.error.splitlines())]
    yield [*map(_line, ("Also failed:", *notice.nodes))] if notice.nodes else []
    yield [_line(f"{name}: {value}") for name, value in (facts | dict(notice.facts)).items()]
    yield [_line(name, link) for name, link in notice.links.items()]
    yield [_line(f"The newest {len(notice.newest)}:")] if notice.newest else []
    for each in notice.newest:
        yield [*map(_line, (each.headline, *each.details)), *([_line("Open", each.link)] if each.link else [])]
    yield [_line(notice.footer)]


def _line(text: str, link: str = "") -> tuple[str, str]:
    return (f"{text}: {link}", f'<a href="{escape(link)}">{escape(text)}</a>') if link else (text, escape(text))
