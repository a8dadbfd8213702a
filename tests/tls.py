"""Servers with certificates of a CA of our own, and a proxy that leads to them: for TLS on real sockets."""

import asyncio
import base64
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import trustme
from receiver import Receiver

NAME = "hooks.example.com"
EXPIRED_AT = datetime(2026, 1, 2, tzinfo=UTC)


def own_ca(folder: Path, name: str = "ca.pem") -> trustme.CA:
    """Make a CA and write its certificate."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / name)
    return ca


def key_pair(folder: Path, ca: trustme.CA, *names: str, not_after: datetime | None = None) -> trustme.LeafCert:
    """Have the CA make a certificate, and write it and its key as cert-manager does."""
    before = None if not_after is None else datetime(2025, 1, 1, tzinfo=UTC)
    leaf = ca.issue_cert(*names, not_before=before, not_after=not_after)
    (folder / "tls.crt").write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(folder / "tls.key")
    return leaf


def serving(ca: trustme.CA, *names: str, expired: bool = False, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """Return the context of a server with these names, which asks for a certificate if it is told whose `clients`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    before, after = (datetime(2025, 1, 1, tzinfo=UTC), EXPIRED_AT) if expired else (None, None)
    ca.issue_cert(*names, not_before=before, not_after=after).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def asking(context: ssl.SSLContext) -> Iterator[int]:
    """Serve one connection, and say what is wrong in its handshake, as asyncio does not; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as thread:
        served = thread.submit(_serve_one, listening, context)
        yield listening.getsockname()[1]
        served.result()


def _serve_one(listening: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listening.accept()
    with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
        with suppress(ssl.SSLError):
            secured.do_handshake()
        while socket.socket.recv(secured, 4096):  # what was sent meanwhile: to close before would be a reset
            pass


class Tunnel(Receiver):
    """A proxy that wants a login, and leads every CONNECT to this machine, whatever name stands before the port."""

    def __init__(self, *, login: str = "me:hunter2", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.heads: list[str] = []
        self._login = login

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.url = self.url.replace("//", f"//{self._login}@")
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(request)
        login = base64.b64encode(self._login.encode()).decode()
        if f"Proxy-Authorization: Basic {login}\r\n" not in request:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        port = int(request.split(" ")[1].rpartition(":")[2])
        there, back = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(back)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()
