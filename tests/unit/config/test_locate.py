from pathlib import Path

import pytest

from watcher.config.locate import daemon_document, http_token
from watcher.domain.errors import ConfigError

ENVIRON = {"WATCHER_HTTP_LISTEN": "0.0.0.0:9000", "PORT": "7000"}


@pytest.mark.parametrize("text", ["[]", "http: {listen: '127.0.0.1:7000'", "\x00", None])
def test_a_file_that_cannot_be_read_is_a_mistake(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=r"watcher\.yaml"):
        daemon_document(file, environ={})


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("http: {token: t0ken}", "t0ken"),
        ("http: {token: '${PORT}'}\nodd: '${NOPE}'\nwatch: nonsense", "7000"),
        ("http: {token_file: secret}", "from a file"),
        ("http: {token: '${NOPE}'}", None),
        ("http: {token: ''}", None),
        ("http: {token_file: nowhere}", None),
        ("http: {token: '', read_token: r3ad}", "r3ad"),
        ("http: {token_file: nowhere, read_token_file: secret}", "from a file"),
        ("http: {token: t0ken, read_token: r3ad}", "t0ken"),
        ("", None),
    ],
)
def test_the_token_is_found_whatever_else_is_wrong(text: str, token: str | None, tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    file.write_text(text)
    (tmp_path / "secret").write_text("from a file\n")
    assert http_token(daemon_document(file, environ=ENVIRON)) == token
