"""A mail server on a real socket, with STARTTLS, TLS and a login, which keeps mails and answers as the test says."""

import asyncio
import ssl
import warnings
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from types import TracebackType
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

HOST = "127.0.0.1"
USERNAME, PASSWORD = "watcher", "pässword"
FROM, TO = "watcher@example.com", "ops@example.com"


@dataclass(frozen=True, slots=True)
class Mail:
    """What came with DATA, and from whom to whom it is by its envelope."""

    sender: str | None
    to: list[str]
    content: bytes
    is_secured: bool

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.content, policy=default)

    def body(self, kind: str) -> str:
        """Return the body of this kind, `plain` or `html`."""
        part = self.message.get_body((kind,))
        assert part is not None
        return str(part.get_content()).replace("\r\n", "\n")


class MailServer:
    """Listens on a free port of the loopback interface. `replies` are by command, of RCPT by address.

    With a certificate it speaks STARTTLS, or TLS from the first byte. While it `hangs` it answers no DATA.
    """

    def __init__(
        self, certificate: ssl.SSLContext | None = None, *, implicit: bool = False, login: bool = False
    ) -> None:
        self.mails: list[Mail] = []
        self.commands: list[str] = []
        self.replies: dict[str, str] = {}
        self.password = PASSWORD
        self.hangs = False
        self.quits_count = 0
        self.connections: list[SMTP] = []
        self._certificate = certificate
        self._is_implicit = implicit
        self._login = login

    async def __aenter__(self) -> Self:
        ssl_ = self._certificate if self._is_implicit else None
        self._server = await asyncio.get_running_loop().create_server(self._connection, HOST, 0, ssl=ssl_)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        for each in self.connections:
            if isinstance(each.transport, asyncio.WriteTransport):
                each.transport.abort()  # a farewell of TLS would outlive the test
        await asyncio.sleep(0)

    def block(self, **more: object) -> dict[str, object]:
        """Return a sink's block for this server."""
        return self.block_at(self.port) | more

    @staticmethod
    def block_at(port: int) -> dict[str, object]:
        """Return a sink's block for another server."""
        return {"type": "email", "server": f"{HOST}:{port}", "tls": "none", "from": FROM, "to": [TO]}

    def _connection(self) -> SMTP:
        offers_tls = self._certificate is not None and not self._is_implicit
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a login may go without STARTTLS
            connection = SMTP(
                self,
                hostname="mail.example.com",
                tls_context=self._certificate if offers_tls else None,
                require_starttls=offers_tls,
                auth_required=self._login,
                auth_require_tls=offers_tls,
                authenticator=self._authenticate,
            )
        self.connections.append(connection)
        return connection

    def _authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        self.commands.append("AUTH")
        assert isinstance(data, LoginPassword)
        is_right = (data.login.decode(), data.password.decode()) == (USERNAME, self.password)
        return AuthResult(success=is_right, handled=False)

    # The names and parameters of what follows are aiosmtpd's.

    async def handle_EHLO(  # noqa: N802
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.commands.append(f"EHLO {hostname}")
        return [each for each in responses if self._login or "AUTH" not in each]

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        self.commands.append("MAIL")
        envelope.mail_from = address
        return self.replies.get("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        self.commands.append("RCPT")
        if (reply := self.replies.get(address, "250 OK")).startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        self.quits_count += 1
        return "221 Bye"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.commands.append("DATA")
        if self.hangs:
            await asyncio.Event().wait()
        if (reply := self.replies.get("DATA", "250 OK")).startswith("250"):
            assert isinstance(envelope.content, bytes)
            assert server.transport is not None
            is_secured = server.transport.get_extra_info("sslcontext") is not None
            self.mails.append(Mail(envelope.mail_from, envelope.rcpt_tos, envelope.content, is_secured))
        return reply
