"""Certificates and keys that a configuration names, as real files: read, refused, warned of, and rotated in place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from tls import EXPIRED_AT, key_pair, own_ca

from watcher.config.models import Settings
from watcher.config.source import ConfigSource
from watcher.daemon.fingerprint import fingerprint_of_settings, fingerprint_of_sink
from watcher.delivery.sinks.webhook import WebhookSettings
from watcher.runtime.clock import SystemClock

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]
Warned = Callable[..., list[str]]

HOOK = "sinks:\n  ops:\n    type: webhook\n    template: alertmanager\n    url: https://h.example\n"
ALL = HOOK + "    tls: {ca_file: pem/ca.pem, cert_file: pem/tls.crt, key_file: pem/tls.key}\n"
PAIR = HOOK + "    tls: {cert_file: pem/tls.crt, key_file: pem/tls.key}\n"
WATCH = "accounts: {default: {api_key: k}}\nwatch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f}]\n"
AT_PEM = "write it as PEM, which begins with -----BEGIN CERTIFICATE-----"


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """Return a directory beside the configuration with a CA, a certificate and its key."""
    folder = tmp_path / "pem"
    folder.mkdir()
    key_pair(folder, own_ca(folder), "watcher.example.com")
    return folder


def test_paths_begin_beside_the_configuration_and_the_key_never_shows(load: Load, pem: Path) -> None:
    sink = load(ALL).sinks["ops"]
    assert isinstance(sink, WebhookSettings)
    assert sink.tls is not None
    assert (sink.tls.ca_file, sink.tls.key_file) != (None, None)
    key = (pem / "tls.key").read_text().split("\n")[1]
    assert key not in f"{sink!r}{sink.model_dump()}{sink.model_dump_json()}"


ENCRYPTED = b"""\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIH0MF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBA5D/neohYlCKz695w0
ZiTbAgIIADAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQLF9NPzaUrZZs5Z8t
MahoKwSBkFBYzif1FXDHtv9GiRd2QVDb3TAPqFmEDQiW7VOugB8FeAHzxnxbDYAU
NWWNa9YRHNuyNHJvvqKRwp4cxR+lwtRlEasgTvFCo+8GeekNL4hADaVfZUmLhcoT
FJSsMqTj9EZOg6s1sDFmDS5fKvbT8mAtVN/v2hVDK7ukSMsQ7wD2Vt/u/tohcY0+
ZQz8Ny+rLQ==
-----END ENCRYPTED PRIVATE KEY-----
"""
"""A key made for this test, which waits for a passphrase."""


@pytest.mark.parametrize(
    ("text", "content", "problem"),
    [
        ("ca_file: nowhere.pem", {}, ("ca_file: cannot read nowhere.pem (no such file or directory, running as uid "
         f"{os.geteuid()}); mount it there, or correct the path")),
        ("ca_file: ./pem", {}, ("ca_file: cannot read ./pem (is a directory, running as uid "
         f"{os.geteuid()}); name a file; Docker makes a directory where the file of a mount is missing")),
        ("ca_file: [a]", {}, "ca_file: is not a single value; write one path"),
        ("ca_file: x", {"x": b""}, f"ca_file: holds no certificate, or a broken one; {AT_PEM}"),
        ("ca_file: pem/tls.key", {}, f"ca_file: holds no certificate, or a broken one; {AT_PEM}"),
        ("ca_file: x", {"x": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
         f"ca_file: holds no certificate, or a broken one; {AT_PEM}"),
        ("ca_file: x", {"x": b" " * (1024 * 1024 + 1)},
         "ca_file: cannot read x (larger than 1 MiB); name a file that holds this alone"),
        ("cert_file: pem/tls.crt", {},
         "key_file: cert_file is given without key_file; name its key, or remove cert_file"),
        ("key_file: ./pem/tls.key", {}, "key_file: is given without cert_file; name its certificate, or remove it"),
        ("cert_file: pem/tls.crt, key_file: x", {"x": trustme.CA().issue_cert("x").private_key_pem.bytes()},
         "key_file: is not the key of cert_file; name the two that were made together"),
        ("cert_file: pem/tls.crt, key_file: pem/tls.crt", {},
         "key_file: holds no private key; write it as PEM, which begins with -----BEGIN PRIVATE KEY-----"),
        ("cert_file: pem/tls.crt, key_file: x", {"x": ENCRYPTED},
         "key_file: is encrypted; write it without a passphrase"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(
    text: str, content: dict[str, bytes], problem: str, pem: Path, mistakes: Mistakes
) -> None:
    for name, data in content.items():
        (pem.parent / name).write_bytes(data)
    line, count = mistakes(f"{HOOK}    tls: {{{text}}}\n")
    assert line.split(": sinks.ops.tls.", 1)[1] == problem
    assert line.startswith("watcher.yaml:6:")
    assert count == "1 problem in watcher.yaml"


def test_a_certificate_put_where_its_path_belongs_is_not_shown(pem: Path, mistakes: Mistakes) -> None:
    key = (pem / "tls.key").read_text()
    lines = mistakes(f"{HOOK}    tls: {{ca_file: '{key.replace(chr(10), ' ')}'}}\n")
    assert key.split("\n")[1] not in "".join(lines)


def test_it_is_for_https_only(pem: Path, mistakes: Mistakes) -> None:
    assert pem.exists()
    (line, _) = mistakes(ALL.replace("https://", "http://"))
    assert line == (
        "watcher.yaml:5:10: sinks.ops.url: has tls, and does not begin with https://; write https://, or remove tls"
    )


OF_TRUST = "no CA in it is trusted, and https:// may fail"
BROKEN = "holds no certificate, or a broken one"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, (f'cannot read "own.pem" (no such file or directory, running as uid {os.geteuid()}): {OF_TRUST}; '
         "correct the path or its permissions, or unset the variable")),
        (b"", f'"own.pem" {BROKEN}: {OF_TRUST}; write all of it as PEM, or unset the variable'),
        (b"nonsense", f'"own.pem" {BROKEN}: {OF_TRUST}; write all of it as PEM, or unset the variable'),
        (b"CA\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
         f'"own.pem" {BROKEN}: {OF_TRUST}; write all of it as PEM, or unset the variable'),
        (b"CA", None),
    ],
)  # fmt: skip
def test_a_file_of_the_environments_cas_that_openssl_passes_over_is_a_warning(
    tmp_path: Path, warned: Warned, content: bytes | None, problem: str | None
) -> None:
    if content is not None:
        ca = trustme.CA().cert_pem.bytes()
        (tmp_path / "own.pem").write_bytes(content.replace(b"CA", ca))
    found = warned(HOOK + WATCH, SSL_CERT_FILE="own.pem")
    assert found == ([] if problem is None else [f"$SSL_CERT_FILE: {problem}"])


def test_it_is_none_where_nothing_is_verified_by_it(pem: Path, warned: Warned) -> None:
    here = WATCH.replace("api_key: k", "api_key: k, base_url: 'http://127.0.0.1:9000'")
    assert pem.exists()
    assert warned(here, SSL_CERT_FILE="/nowhere") == []
    assert warned(ALL + here, SSL_CERT_FILE="/nowhere") == []
    assert len(warned(PAIR + here, SSL_CERT_FILE="/nowhere")) == 1
    assert len(warned(WATCH, SSL_CERT_FILE="")) == 1


def test_what_has_expired_is_a_warning(pem: Path, warned: Warned) -> None:
    assert warned(ALL + WATCH) == []
    ca = own_ca(pem)
    key_pair(pem, ca, "watcher.example.com", not_after=EXPIRED_AT)
    over = ca.issue_cert("old.example.com", not_before=EXPIRED_AT.replace(year=2025), not_after=EXPIRED_AT)
    (pem / "ca.pem").write_bytes(over.cert_chain_pems[0].bytes())
    assert warned(ALL + WATCH) == [
        (
            "6:20: sinks.ops.tls.ca_file: the last of its certificates expired on 2026-01-02, so nothing is trusted; "
            "get those that are valid now"
        ),
        (
            "6:43: sinks.ops.tls.cert_file: its certificate expired on 2026-01-02; "
            "renew it; a new one is taken up by itself"
        ),
    ]
    with (pem / "ca.pem").open("ab") as bundle:
        bundle.write(ca.cert_pem.bytes())
    assert [line.split(": ")[1] for line in warned(ALL + WATCH)] == ["sinks.ops.tls.cert_file"]


def test_a_private_url_is_a_warning_where_it_is_refused(warned: Warned) -> None:
    assert warned(HOOK.replace("h.example", "10.0.0.1") + WATCH) == []
    assert warned(HOOK.replace("h.example", "10.0.0.1") + "    allow_private: false\n" + WATCH) == [
        (
            "5:10: sinks.ops.url: is a private address, which allow_private: false refuses: nothing will be sent; "
            "correct it, or remove allow_private"
        )
    ]


def test_a_proxy_that_resolves_names_is_a_warning(warned: Warned, monkeypatch: pytest.MonkeyPatch) -> None:
    assert warned(HOOK + "    allow_private: false\n" + WATCH) == []
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy.example.com:3128")
    assert warned(HOOK + WATCH) == []
    assert warned(HOOK + "    allow_private: false\n" + WATCH) == [
        (
            "6:20: sinks.ops.allow_private: HTTPS_PROXY resolves the name in url, so it is not judged here; "
            "have the proxy refuse private addresses"
        )
    ]
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.example.com")
    assert warned(HOOK + "    allow_private: false\n" + WATCH) == []


def test_a_rotation_in_place_is_another_sink_and_the_same_configuration(tmp_path: Path) -> None:
    ca = trustme.CA()
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        key_pair(tmp_path / day, ca, "watcher.example.com")
    data = tmp_path / "pem"
    data.symlink_to("monday")  # as Kubernetes mounts a secret
    (tmp_path / "watcher.yaml").write_text(PAIR + WATCH)
    source = ConfigSource(tmp_path / "watcher.yaml", environ={}, clock=SystemClock())
    before = source.load()
    assert not source.changed()
    assert tmp_path / "monday" in source.directories()
    (tmp_path / "new").symlink_to("tuesday")
    (tmp_path / "new").replace(data)
    assert source.changed()
    after = source.load()
    assert before.sinks["ops"] != after.sinks["ops"]
    assert fingerprint_of_sink(before.sinks["ops"]) == fingerprint_of_sink(after.sinks["ops"])
    assert fingerprint_of_settings(before) == fingerprint_of_settings(after)
