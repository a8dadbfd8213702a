"""Secrets, templates and certificates in files of their own: read, refused, and rotated in place."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tls import key_pair, own_ca
from unit.config.conftest import Load, Mistakes, Warned

from watcher.config.document import ConfigProblemsError
from watcher.config.files import stamps_of
from watcher.config.loader import ConfigSource, changes_between, load_config
from watcher.config.models import Settings
from watcher.daemon.from_settings import fingerprint_of_settings, fingerprint_of_sink
from watcher.sinks.template import ALERT_EVENTS
from watcher.sinks.webhook import PRESETS, TemplateFile, WebhookSettings

FIRST = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
SECOND = "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0"
HOOK = "sinks:\n  ops:\n    type: webhook\n    url_file: ./url\n    secret_file: ./secret\n"
NOBODY = 65532


def webhook(settings: Settings) -> WebhookSettings:
    sink = settings.sinks["ops"]
    assert isinstance(sink, WebhookSettings)
    return sink


@pytest.mark.parametrize("text", [f"{FIRST}\n{SECOND}\n", f"\ufeff{FIRST}\r\n\r\n  {SECOND}"])
def test_a_file_of_signing_secrets_has_one_a_line(text: str, load: Load) -> None:
    load("")
    Path("url").write_text("https://h.example\n")
    Path("secret").write_text(text)
    assert [secret.get_secret_value() for secret in webhook(load(HOOK)).secret] == [FIRST, SECOND]


def test_tokens_and_the_heartbeat_may_stand_in_files_of_their_own(mistakes: Mistakes, load: Load) -> None:
    mistakes("- x")
    Path("token").write_text("t0ken\n")
    (line, _) = mistakes("http:\n  token_file: token\n  read_token_file: token")
    assert line.startswith("watcher.yaml:3:20: http.read_token_file: is the same as token; ")
    load("")
    Path("url").write_text("https://hc.example/x\n")
    Path("token").write_text("t0ken\n")
    Path("read").write_text("r3ad\n")
    settings = load("heartbeat: {url_file: url}\nhttp: {token_file: token, read_token_file: read}")
    assert settings.heartbeat is not None
    assert (settings.heartbeat.url.get_secret_value(), settings.heartbeat.every_s) == ("https://hc.example/x", 60.0)
    tokens = (settings.http.token, settings.http.read_token)
    assert [token.get_secret_value() for token in tokens if token] == ["t0ken", "r3ad"]


def test_a_key_is_read_from_a_file_beside_the_configuration_by_a_path_with_variables(
    tmp_path: Path, load: Load
) -> None:
    (tmp_path / "key").write_text("k$3cret${X}\n")
    config = tmp_path / "watcher.yaml"
    config.write_text("accounts:\n  default:\n    api_key:\n    api_key_file: key\n")
    account = load_config(config, environ={}).accounts["default"]
    assert account.api_key.get_secret_value() == "k$3cret${X}"
    assert account.api_key_file == "key"
    load("")
    Path("key").write_text("k")
    settings = load("accounts: {default: {api_key_file: '${DIR}/key'}}", DIR=str(Path.cwd()))
    assert settings.accounts["default"].api_key.get_secret_value() == "k"


@pytest.mark.parametrize("text", ["hunter2\nhunter3\n", "hunter2\r\nhunter3", "\nhunter2\n"])
def test_a_file_of_one_secret_has_one_line(text: str, mistakes: Mistakes) -> None:
    mistakes("- x")
    Path("key").write_bytes(text.encode())
    assert mistakes("accounts: {default: {api_key_file: key}}")[0] == (
        "watcher.yaml:1:36: accounts.default.api_key_file: key holds more than one line; write the secret alone into it"
    )


def test_what_is_wrong_in_a_file_is_reported_at_the_key_that_names_it(mistakes: Mistakes) -> None:
    mistakes("- x")
    Path("url").write_text("hunter2")
    Path("secret").write_text(f"{FIRST}\nhunter2\n")
    lines = mistakes(HOOK)
    assert [line.split("; ")[0] for line in lines] == [
        "watcher.yaml:4:15: sinks.ops.url_file: does not begin with http:// or https://",
        "watcher.yaml:5:18: sinks.ops.secret_file: not a signing secret",
        "2 problems in watcher.yaml",
    ]
    assert "hunter2" not in "".join(lines)
    mistakes("- x")
    Path("key").write_text("k")
    lines = mistakes("accounts:\n  a: {api_key_file: key}\n  b: {api_key: k}\n")
    assert lines[0].startswith("watcher.yaml:3:16: accounts.b.api_key: the same key as another account's at line 2;")


CORRECT = f", running as uid {os.geteuid()}); correct the path or its permissions"
MISSING = f"(no such file or directory{CORRECT}"
DIRECTORY = "(a directory); name a file; Docker makes a directory where the file of a mount is missing"
NOT_REGULAR = "(not a regular file); name a regular file"
UNREADABLE = [
    ("./none", f"cannot read ./none {MISSING}"),
    ("/nowhere/key", f"cannot read /nowhere/key {MISSING}"),
    (f"/nowhere/{'long/' * 40}key", f"cannot read /nowhere/{'long/' * 40}key {MISSING}"),
    ("./empty/none", f"cannot read ./empty/none (not a directory{CORRECT}"),
    ("./loop", f"cannot read ./loop (too many levels of symbolic links{CORRECT}"),
    (".", f"cannot read . {DIRECTORY}"),
    ("./pipe", f"cannot read ./pipe {NOT_REGULAR}"),
    ("/dev/zero", f"cannot read /dev/zero {NOT_REGULAR}"),
    ("./large", "cannot read ./large (larger than 64 KiB); correct the path"),
    ("./empty", "./empty is empty; write the secret into it"),
    ("./latin", "./latin is not UTF-8 text; write the secret into it as text"),
    ('"./a\\0b"', rf"cannot read ./a\u0000b (no usable path{CORRECT}"),
    ("clerk_api_key", f"cannot read clerk_api_key {MISSING}"),
    ("nowhere/api-key.txt", f"cannot read nowhere/api-key.txt {MISSING}"),
    ("hunter2", f"cannot read this file {MISSING}"),
    ("https://h/hunter2", f"cannot read this file {MISSING}"),
    ("h.example/hunter2", f"cannot read this file {MISSING}"),
]


@pytest.mark.parametrize(("file", "problem"), UNREADABLE, ids=[file for file, _ in UNREADABLE])
def test_a_file_without_a_secret_is_one_line(file: str, problem: str, mistakes: Mistakes) -> None:
    mistakes("- x")
    Path("empty").write_text(" \n\n")
    Path("latin").write_bytes(b"\xff")
    Path("large").write_bytes(b"x" * (64 * 1024 + 1))
    Path("secrets").mkdir()
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")
    assert mistakes(f"accounts:\n  a:\n    api_key_file: {file}\n") == [
        f"watcher.yaml:3:19: accounts.a.api_key_file: {problem}",
        "1 problem in watcher.yaml",
    ]


@pytest.mark.parametrize(
    ("written", "value", "shown"),
    [
        *(
            ("${KEY}", value, "${KEY}")
            for value in ("hunter2", "/nowhere/hunter2", "h.example/hunter2", "https://h/hunter2")
        ),
        ("${KEY}/key", "/nowhere", "/nowhere/key, from ${KEY}/key"),
        ("${KEY}/key", "hunter2", "${KEY}/key"),
        ("${NONE:-/nowhere/etc}/key", "", "/nowhere/etc/key, from ${NONE:-/nowhere/etc}/key"),
        *((written, "hunter2", "this file") for written in ("${KEY:-/nowhere/hunter2}", "${NONE:-hunter2}", "x${KEY}")),
    ],
)
def test_a_key_where_its_file_belongs_is_not_shown(written: str, value: str, shown: str, mistakes: Mistakes) -> None:
    lines = mistakes(f"accounts:\n  a:\n    api_key_file: {written}\n", KEY=value)
    assert f"cannot read {shown} (no" in lines[0]
    assert "hunter2" not in "".join(lines)


@pytest.fixture
def locked() -> Iterator[Path]:
    """A directory of which one file cannot be read, not by root either, who becomes somebody else meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "key").touch(mode=0o000)
        (directory / "watcher.yaml").write_text(f"accounts: {{a: {{api_key_file: {directory / 'key'}}}}}")
        was = os.geteuid()
        if was == 0:
            os.seteuid(NOBODY)
        yield directory
        os.seteuid(was)


def test_a_file_one_may_not_read_says_as_whom(locked: Path) -> None:
    with pytest.raises(ConfigProblemsError) as caught:
        load_config(locked / "watcher.yaml", environ={})
    assert caught.value.problems[0].problem == (
        f"cannot read {locked}/key (permission denied, running as uid {os.geteuid()})"
    )
    assert caught.value.problems[0].remedy == "correct the path or its permissions"


ACCOUNT = "accounts: {default: {api_key: k}}\nwatch: [{pipeline: 3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31}]\n"
TEMPLATED = "sinks:\n  chat:\n    type: webhook\n    url: https://h.example\n    template: "
GOOD = '{"text": {{ headline | tojson }}}'
UID = f"running as uid {os.geteuid()}"
REST = f"rite {', '.join(PRESETS)} or the path of a Jinja2 file, which begins beside this file"
ABSENT = 'write default(""), or ask by "is defined"; what a template sees is in docs/receivers/template.md'


def chat_sink(settings: Settings) -> WebhookSettings:
    sink = settings.sinks["chat"]
    assert isinstance(sink, WebhookSettings)
    return sink


@pytest.mark.parametrize("name", ["chat.json.j2", "./chat.json.j2", "${DIR}/chat.json.j2", "chat"])
def test_a_template_is_read_from_a_file_beside_the_configuration(name: str, load: Load) -> None:
    load("")
    Path("chat.json.j2").write_text(f"\ufeff{GOOD}")
    Path("chat").write_text(GOOD)
    sink = chat_sink(load(TEMPLATED + name, DIR=str(Path.cwd())))
    assert sink.template == TemplateFile(name, GOOD)
    assert (sink.events, sink.rate_limit) == (ALERT_EVENTS, 100.0)
    assert not sink.model_fields_set & {"events"}
    assert "headline" not in repr(sink)
    assert chat_sink(load(TEMPLATED + name + "\n    events: ['*']", DIR=str(Path.cwd()))).events == ("*",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("slak", f'cannot read "slak" (no such file or directory, {UID}); did you mean "slack"? W{REST}'),
        ("mine", f'cannot read "mine" (no such file or directory, {UID}); w{REST}'),
        ("slack.j2", f'cannot read "slack.j2" (no such file or directory, {UID}); w{REST}'),
        ("./", f'cannot read "./" (a directory); w{REST}'),
        ("${NAME}", f"cannot read the filled-in value (no such file or directory, {UID}); w{REST}"),
        ("large.j2", f'cannot read "large.j2" (larger than 64 KiB); w{REST}'),
        ("latin.j2", '"latin.j2" is not UTF-8 text; name a Jinja2 file'),
        ("typo.j2", f"typo.j2:2: for execution.failed: UndefinedError: 'hedline' is undefined; {ABSENT}"),
        ("{path: good.j2, source: x}", "is a block of keys, not a single value; write one value behind the key"),
    ],
)
def test_what_is_wrong_with_a_template_is_said_at_load(name: str, message: str, mistakes: Mistakes) -> None:
    mistakes("- x")
    Path("large.j2").write_text(GOOD + " " * 65_536)
    Path("latin.j2").write_bytes(b"\xe4")
    Path("typo.j2").write_text("\n{{ hedline }}")
    assert mistakes(TEMPLATED + name, NAME="hunter2")[0] == f"watcher.yaml:5:15: sinks.chat.template: {message}"


def test_a_group_is_tried_where_there_is_one_also_at_a_known_receiver(
    mistakes: Mistakes, load: Load, warned: Warned
) -> None:
    load("")
    Path("chat.j2").write_text("{% if events | length > 1 %}oops{% else %}{}{% endif %}")
    assert load(TEMPLATED + "chat.j2")
    (line, *_) = mistakes(TEMPLATED + "chat.j2\n    group: {by: [pipeline], wait: 1m}")
    assert line.startswith("watcher.yaml:5:15: sinks.chat.template: chat.j2: for a group: renders no JSON")
    Path("chat.j2").write_text(GOOD)
    text = ACCOUNT + TEMPLATED.replace("h.example", "hooks.slack.com/services/T/B/x") + "chat.j2"
    assert warned(text) == []


def test_a_change_of_the_file_is_a_change_of_the_sink(tmp_path: Path) -> None:
    path, template = tmp_path / "watcher.yaml", tmp_path / "chat.j2"
    path.write_text(ACCOUNT + TEMPLATED + "chat.j2")
    template.write_text(GOOD)
    source = ConfigSource(path, environ={})
    before = source.load()
    assert stamps_of(source.files) == source.files
    template.write_text('{"text": "new"}')
    assert stamps_of(source.files) != source.files
    assert changes_between(before, source.load()) == ["sinks changed"]


WITH_TLS = "sinks:\n  ops:\n    type: webhook\n    template: alertmanager\n    url: https://h.example\n"
WITH_ALL = WITH_TLS + "    tls: {ca_file: pem/ca.pem, cert_file: pem/tls.crt, key_file: pem/tls.key}\n"
PAIR = WITH_TLS + "    tls: {cert_file: pem/tls.crt, key_file: pem/tls.key}\n"
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
    sink = load(WITH_ALL).sinks["ops"]
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
def test_a_certificate_that_cannot_be_used_is_one_line(
    text: str, content: dict[str, bytes], problem: str, pem: Path, mistakes: Mistakes
) -> None:
    for name, data in content.items():
        (pem.parent / name).write_bytes(data)
    line, count = mistakes(f"{WITH_TLS}    tls: {{{text}}}\n")
    assert line.split(": sinks.ops.tls.", 1)[1] == problem
    assert line.startswith("watcher.yaml:6:")
    assert count == "1 problem in watcher.yaml"


def test_tls_is_for_https_only_and_a_certificate_as_its_path_not_shown(pem: Path, mistakes: Mistakes) -> None:
    assert pem.exists()
    (line, _) = mistakes(WITH_ALL.replace("https://", "http://"))
    assert line == (
        "watcher.yaml:5:10: sinks.ops.url: has tls, and does not begin with https://; write https://, or remove tls"
    )
    key = (pem / "tls.key").read_text()
    lines = mistakes(f"{WITH_TLS}    tls: {{ca_file: '{key.replace(chr(10), ' ')}'}}\n")
    assert key.split("\n")[1] not in "".join(lines)


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


def test_a_mail_servers_ca_is_read_beside_the_file_and_a_changed_one_is_another_sink(load: Load, pem: Path) -> None:
    before = fingerprint_of_sink(load(MAIL % "pem/ca.pem").sinks["mail"])
    assert before == fingerprint_of_sink(load(MAIL % "pem/ca.pem").sinks["mail"])
    own_ca(pem)
    assert before != fingerprint_of_sink(load(MAIL % "pem/ca.pem").sinks["mail"])


@pytest.mark.parametrize(
    ("file", "problem"),
    [("nowhere.pem", "cannot read nowhere.pem"), ("pem/tls.key", f"holds no certificate, or a broken one; {AT_PEM}")],
)
def test_a_mail_servers_ca_that_is_none_is_an_error(mistakes: Mistakes, pem: Path, file: str, problem: str) -> None:
    assert pem.is_dir()
    (line, _) = mistakes(MAIL % file)
    assert f"sinks.mail.ca_file: {problem}" in line
