"""Certificates and keys that a configuration names, as real files: read, refused, and rotated in place."""

import os
from pathlib import Path

import pytest
import trustme
from tls import key_pair, own_ca
from unit.config.conftest import Load, Mistakes

from watcher.config.files import stamps_of
from watcher.config.loader import ConfigSource
from watcher.daemon.from_settings import fingerprint_of_settings, fingerprint_of_sink
from watcher.sinks.webhook import WebhookSettings

HOOK = "sinks:\n  ops:\n    type: webhook\n    template: alertmanager\n    url: https://h.example\n"
ALL = HOOK + "    tls: {ca_file: pem/ca.pem, cert_file: pem/tls.crt, key_file: pem/tls.key}\n"
PAIR = HOOK + "    tls: {cert_file: pem/tls.crt, key_file: pem/tls.key}\n"
WATCH = "accounts: {default: {api_key: k}}\nwatch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f}]\n"
AT_PEM = "write it as PEM, which begins with -----BEGIN CERTIFICATE-----"
AS_PEM = "name a certificate and its own key, both as PEM, the key without a passphrase"


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
         f"{os.geteuid()}); correct the path or its permissions")),
        ("ca_file: ./pem", {}, ("ca_file: cannot read ./pem (a directory); "
         "name a file; Docker makes a directory where the file of a mount is missing")),
        ("ca_file: [a]", {}, "ca_file: is not a single value; write one path"),
        ("ca_file: x", {"x": b""}, f"ca_file: holds no certificate, or a broken one; {AT_PEM}"),
        ("ca_file: pem/tls.key", {}, f"ca_file: holds no certificate, or a broken one; {AT_PEM}"),
        ("ca_file: x", {"x": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
         f"ca_file: holds no certificate, or a broken one; {AT_PEM}"),
        ("ca_file: x", {"x": b" " * (1024 * 1024 + 1)},
         "ca_file: cannot read x (larger than 1024 KiB); correct the path"),
        ("cert_file: pem/tls.crt", {},
         "key_file: cert_file is given without key_file; name both, or none"),
        ("key_file: ./pem/tls.key", {}, "key_file: is given without cert_file; name both, or none"),
        ("cert_file: pem/tls.crt, key_file: x", {"x": trustme.CA().issue_cert("x").private_key_pem.bytes()},
         f"key_file: cannot be used with cert_file (key values mismatch); {AS_PEM}"),
        ("cert_file: pem/tls.crt, key_file: pem/tls.crt", {},
         f"key_file: cannot be used with cert_file (not readable); {AS_PEM}"),
        ("cert_file: pem/tls.crt, key_file: x", {"x": ENCRYPTED},
         f"key_file: cannot be used with cert_file (not readable); {AS_PEM}"),
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


def test_a_rotation_in_place_is_another_sink_and_the_same_configuration(tmp_path: Path) -> None:
    ca = trustme.CA()
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        key_pair(tmp_path / day, ca, "watcher.example.com")
    data = tmp_path / "pem"
    data.symlink_to("monday")  # as Kubernetes mounts a secret
    (tmp_path / "watcher.yaml").write_text(PAIR + WATCH)
    source = ConfigSource(tmp_path / "watcher.yaml", environ={})
    before = source.load()
    assert stamps_of(source.files) == source.files
    (tmp_path / "new").symlink_to("tuesday")
    (tmp_path / "new").replace(data)
    assert stamps_of(source.files) != source.files
    after = source.load()
    assert before.sinks["ops"] != after.sinks["ops"]
    assert fingerprint_of_sink(before.sinks["ops"]) != fingerprint_of_sink(after.sinks["ops"])
    assert fingerprint_of_settings(before) == fingerprint_of_settings(after)


MAIL = "sinks: {mail: {type: email, server: h, from: w@example.com, to: [o@example.com], ca_file: %s}}\n"


def test_the_ca_of_a_mail_server_is_read_beside_the_configuration_and_a_changed_one_is_another_sink(
    load: Load, pem: Path
) -> None:
    before = fingerprint_of_sink(load(MAIL % "pem/ca.pem").sinks["mail"])
    assert before == fingerprint_of_sink(load(MAIL % "pem/ca.pem").sinks["mail"])
    own_ca(pem)
    assert before != fingerprint_of_sink(load(MAIL % "pem/ca.pem").sinks["mail"])


@pytest.mark.parametrize(
    ("file", "problem"),
    [("nowhere.pem", "cannot read nowhere.pem"), ("pem/tls.key", f"holds no certificate, or a broken one; {AT_PEM}")],
)
def test_a_ca_of_a_mail_server_that_cannot_be_used_is_an_error(
    mistakes: Mistakes, pem: Path, file: str, problem: str
) -> None:
    assert pem.is_dir()
    (line, _) = mistakes(MAIL % file)
    assert f"sinks.mail.ca_file: {problem}" in line
