import os
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from watcher.runtime.certificates import certificates_in, expires_at, load_key_pair


@pytest.mark.parametrize(
    "at", [datetime(2026, 11, 24, 12, tzinfo=UTC), datetime(2049, 12, 31, tzinfo=UTC), datetime(2051, 1, 2, tzinfo=UTC)]
)
def test_a_certificate_says_when_it_expires(at: datetime) -> None:
    leaf = trustme.CA().issue_cert("h.example", not_after=at)
    (certificate,) = certificates_in(leaf.cert_chain_pems[0].bytes())
    assert expires_at(certificate) == at


def test_a_file_may_hold_several_and_say_what_they_are() -> None:
    first, second = (trustme.CA().cert_pem.bytes() for _ in range(2))
    text = "# Müller's\n".encode() + first.replace(b"\n", b"\r\n") + b"\n# another\n" + second
    assert len(certificates_in(text)) == 2


def test_a_certificate_whose_end_is_no_time_is_broken() -> None:
    leaf = trustme.CA().issue_cert("h.example", not_after=datetime(2026, 11, 24, 12, tzinfo=UTC))
    der = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    with pytest.raises(ValueError, match="does not match"):
        certificates_in(ssl.DER_cert_to_PEM_cert(der.replace(b"261124120000Z", b"269924120000Z")).encode())


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_key_is_loaded_and_leaves_no_file(monkeypatch: pytest.MonkeyPatch, *, in_memory: bool) -> None:
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create")
    leaf = trustme.CA().issue_cert("h.example")
    before = set(Path("/dev/fd").iterdir())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_key_pair(context, certificate=leaf.cert_chain_pems[0].bytes(), key=leaf.private_key_pem.bytes())
    assert set(Path("/dev/fd").iterdir()) == before
