import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from watcher.config.load import load_config
from watcher.config.models import Settings
from watcher.config.problems import ConfigProblemsError
from watcher.sinks.webhook import WebhookSettings

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]

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


def test_a_path_may_hold_a_variable(load: Load) -> None:
    load("")
    Path("key").write_text("k")
    settings = load("accounts: {default: {api_key_file: '${DIR}/key'}}", DIR=str(Path.cwd()))
    assert settings.accounts["default"].api_key.get_secret_value() == "k"


def test_what_is_wrong_in_a_file_is_told_at_the_key_that_names_it(mistakes: Mistakes) -> None:
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


def test_two_accounts_may_not_share_a_key_through_files(mistakes: Mistakes) -> None:
    mistakes("- x")
    Path("key").write_text("k")
    lines = mistakes("accounts:\n  a: {api_key_file: key}\n  b: {api_key: k}\n")
    assert lines[0].startswith("watcher.yaml:3:16: accounts.b.api_key: the same key as another account's at line 2;")


UID = os.geteuid()
UNREADABLE = [
    (
        "./none",
        f"cannot read ./none (no such file or directory, running as uid {UID}); mount it there, or correct the path",
    ),
    (".", f"cannot read this file (is a directory, running as uid {UID}); mount it there, or correct the path"),
    ("./empty", "./empty is empty; write the secret into it"),
    ("./latin", "./latin is not UTF-8 text; write the secret into it as text"),
    ('"./a\\0b"', r"./a\u0000b is no path; write a path such as /run/secrets/name"),
    (
        "hunter2",
        f"cannot read this file (no such file or directory, running as uid {UID}); mount it there, or correct the path",
    ),
    (
        "https://h/hunter2",
        f"cannot read this file (no such file or directory, running as uid {UID}); mount it there, or correct the path",
    ),
]


@pytest.mark.parametrize(("file", "told"), UNREADABLE, ids=[file for file, _ in UNREADABLE])
def test_a_file_without_a_secret_is_one_line(file: str, told: str, mistakes: Mistakes) -> None:
    mistakes("- x")
    Path("empty").write_text(" \n\n")
    Path("latin").write_bytes(b"\xff")
    assert mistakes(f"accounts:\n  a:\n    api_key_file: {file}\n") == [
        f"watcher.yaml:3:19: accounts.a.api_key_file: {told}",
        "1 problem in watcher.yaml",
    ]


def test_a_key_put_where_its_file_belongs_is_not_shown(mistakes: Mistakes) -> None:
    lines = mistakes("accounts:\n  a:\n    api_key_file: ${KEY}\n", KEY="/hunter2")
    assert "cannot read this file (no such file" in lines[0]
    assert "hunter2" not in "".join(lines)


@pytest.mark.parametrize("file", ["${NOPE}", "[key]"])
def test_of_a_file_that_is_not_named_one_thing_is_told(file: str, mistakes: Mistakes) -> None:
    assert len(mistakes(f"accounts:\n  a:\n    api_key_file: {file}\n")) == 2


def test_a_sink_may_not_have_both_either(mistakes: Mistakes) -> None:
    text = "sinks:\n  ops:\n    type: webhook\n    url: https://h\n    url_file: u\n    secret_file: s\n    secret: s\n"
    assert [line.split("; ")[0] for line in mistakes(text)[:-1]] == [
        "watcher.yaml:5:5: sinks.ops: both url and url_file are given",
        "watcher.yaml:6:5: sinks.ops: both secret and secret_file are given",
        "watcher.yaml:7:13: sinks.ops.secret: not a signing secret",
    ]


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
    assert caught.value.problems[0].remedy == "chmod 0440 and the right group"
