import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.config.conftest import Load, Mistakes

from watcher.config.document import ConfigProblemsError
from watcher.config.loader import load_config
from watcher.config.models import Settings
from watcher.sinks.webhook import WebhookSettings

FIRST = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
SECOND = "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0"
HOOK = "sinks:\n  ops:\n    type: webhook\n    url_file: ./url\n    secret_file: ./secret\n"
NOBODY = 65532


def webhook(settings: Settings) -> WebhookSettings:
    sink = settings.sinks["ops"]
    assert isinstance(sink, WebhookSettings)
    return sink


def test_a_key_is_read_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k$3cret${X}\n")
    config = tmp_path / "watcher.yaml"
    config.write_text("accounts:\n  default:\n    api_key:\n    api_key_file: key\n")
    account = load_config(config, environ={}).accounts["default"]
    assert account.api_key.get_secret_value() == "k$3cret${X}"
    assert account.api_key_file == "key"


@pytest.mark.parametrize("text", [f"{FIRST}\n{SECOND}\n", f"\ufeff{FIRST}\r\n\r\n  {SECOND}"])
def test_a_file_of_signing_secrets_has_one_a_line(text: str, load: Load) -> None:
    load("")
    Path("url").write_text("https://h.example\n")
    Path("secret").write_text(text)
    assert [secret.get_secret_value() for secret in webhook(load(HOOK)).secret] == [FIRST, SECOND]


def test_the_heartbeat_and_the_tokens_may_stand_in_files(load: Load) -> None:
    load("")
    Path("url").write_text("https://hc.example/x\n")
    Path("token").write_text("t0ken\n")
    Path("read").write_text("r3ad\n")
    settings = load("heartbeat: {url_file: url}\nhttp: {token_file: token, read_token_file: read}")
    assert settings.heartbeat is not None
    assert (settings.heartbeat.url.get_secret_value(), settings.heartbeat.every_s) == ("https://hc.example/x", 60.0)
    tokens = (settings.http.token, settings.http.read_token)
    assert [token.get_secret_value() for token in tokens if token] == ["t0ken", "r3ad"]


def test_one_file_of_both_tokens_is_a_mistake(mistakes: Mistakes) -> None:
    mistakes("- x")
    Path("token").write_text("t0ken\n")
    (line, _) = mistakes("http:\n  token_file: token\n  read_token_file: token")
    assert line.startswith("watcher.yaml:3:20: http.read_token_file: is the same as token; ")


def test_a_path_may_hold_a_variable(load: Load) -> None:
    load("")
    Path("key").write_text("k")
    settings = load("accounts: {default: {api_key_file: '${DIR}/key'}}", DIR=str(Path.cwd()))
    assert settings.accounts["default"].api_key.get_secret_value() == "k"


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


@pytest.mark.parametrize("text", ["hunter2\nhunter3\n", "hunter2\r\nhunter3", "\nhunter2\n"])
def test_a_file_of_one_secret_has_one_line(text: str, mistakes: Mistakes) -> None:
    mistakes("- x")
    Path("key").write_bytes(text.encode())
    assert mistakes("accounts: {default: {api_key_file: key}}")[0] == (
        "watcher.yaml:1:36: accounts.default.api_key_file: key holds more than one line; write the secret alone into it"
    )


def test_two_accounts_may_not_share_a_key_through_files(mistakes: Mistakes) -> None:
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
def test_a_key_put_where_its_file_belongs_is_not_shown(
    written: str, value: str, shown: str, mistakes: Mistakes
) -> None:
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
