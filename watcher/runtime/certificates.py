"""Certificates and keys in PEM form, read elsewhere, and the TLS contexts made of them. Nothing here waits for a disk.

The one thing taken from files is the system's trust, where no CA is named: whoever wants that makes the context in a
thread first.
"""

import os
import re
import ssl
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_CERTIFICATE = re.compile(_BEGIN + rb"([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")

CONTEXT_COUNT = 32
"""So many contexts are kept: the system's trust alone takes 20 ms to read."""

# RFC 5280, 4.1
_VERSION = 0xA0  # the tag of a certificate's version, which may be missing
_VALIDITY = 3  # the index of its validity among the fields after that
_UTC_TIME = 0x17  # the tag of a time whose year has two digits
_CENTURY = "50"  # from here on these are years of the last century


def certificates_in(pem: bytes) -> tuple[bytes, ...]:
    """Return the certificates of a file, in DER form. Raises `ValueError` if one is broken, or there is none."""
    found = tuple(b64decode(body) for body in _CERTIFICATE.findall(pem))
    if not found or len(found) != pem.count(_BEGIN):
        raise ValueError("no certificates in PEM form")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"".join(found))
    except ssl.SSLError as error:
        raise ValueError("a broken certificate") from error
    for each in found:
        expires_at(each)  # OpenSSL reads that only when it verifies
    return found


def is_trust_file(pem: bytes) -> bool:
    """Return whether OpenSSL takes a file with this content for one of CAs to trust: it takes all of it, or nothing."""
    with _unnamed_file(pem) as at:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=at)
        except ssl.SSLError:
            return False
    return True


def expires_at(certificate: bytes) -> datetime:
    """Return until when a certificate in DER form is valid."""
    ((_, whole),) = _parts(certificate)
    fields = [content for tag, content in _parts(_parts(whole)[0][1]) if tag != _VERSION]
    tag, content = _parts(fields[_VALIDITY])[1]
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = f"{'19' if text[:2] >= _CENTURY else '20'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def load_key_pair(context: ssl.SSLContext, *, certificate: bytes, key: bytes) -> None:
    """Have a context show this certificate. Raises `ssl.SSLError`, also for a key with a passphrase."""
    # OpenSSL reads keys by path alone, and would ask on the terminal for a passphrase.
    with _unnamed_file(certificate) as at, _unnamed_file(key) as key_at:
        context.load_cert_chain(at, key_at, password="")


@lru_cache(maxsize=CONTEXT_COUNT)
def client_context(*, ca: bytes | None, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
    """Return how to verify a server: by these CAs alone, or by the system's; and what to show it. Raises `SSLError`."""
    context = ssl.create_default_context(cadata=None if ca is None else b"".join(certificates_in(ca)))
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None and key is not None:
        load_key_pair(context, certificate=certificate, key=key)
    return context


@contextmanager
def _unnamed_file(content: bytes) -> Iterator[str]:
    """Yield a path to this content that other users cannot follow, and that ends with the block."""
    with _open_unnamed() as file:
        file.write(content)
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _open_unnamed() -> IO[bytes]:
    """Open a file in memory; where the system has none such, one on a disk that is removed already."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pem"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _parts(content: bytes) -> list[tuple[int, bytes]]:
    """Return the tags and contents of what stands one after the other, in DER."""
    parts = []
    while content:
        tag, size, begin = content[0], content[1], 2
        if size & 0x80:  # the size of the size
            begin += size & 0x7F
            size = int.from_bytes(content[2:begin], "big")
        parts.append((tag, content[begin : begin + size]))
        content = content[begin + size :]
    return parts
