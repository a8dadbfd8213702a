from pathlib import Path

import pytest

from watcher.config.locate import daemon_document, find_config, http_token, listen_address
from watcher.config.models import HttpSettings
from watcher.domain.errors import ConfigError, Exit
from watcher.runtime.units import Address, parse_address

ENVIRON = {"WATCHER_HTTP_LISTEN": "0.0.0.0:9000", "PORT": "7000"}


def test_the_file_is_of_the_command_line_variable_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_config(Path("a.yaml"), environ={"WATCHER_CONFIG": "b.yaml"}) == Path("a.yaml")
    monkeypatch.chdir(tmp_path)
    Path("watcher.yaml").touch()
    assert find_config(None, environ={"WATCHER_CONFIG": "b.yaml"}) == Path("b.yaml")
    assert find_config(None, environ={"WATCHER_CONFIG": ""}) == Path("watcher.yaml")
    monkeypatch.chdir(tmp_path)
    Path("watcher.yaml").unlink()
    Path("watcher.yaml").symlink_to("..data/watcher.yaml")
    assert find_config(None, environ={}) == Path("watcher.yaml")


def test_without_a_file_every_place_that_was_tried_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        find_config(None, environ={})
    assert str(caught.value) == (
        "no configuration: --config is not given, $WATCHER_CONFIG is not set, there is no ./watcher.yaml "
        "and no /etc/watcher/watcher.yaml; write watcher.yaml, or name a file with --config"
    )
    assert caught.value.exit_code is Exit.USAGE


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("http: {listen: '127.0.0.1:7000'}", 7000),
        ("odd: x\nhttp:\n  listen: 127.0.0.1:${PORT}", 7000),
        *(
            (text, 9000)
            for text in ("", "http: x", "http: {listen: [a]}", "http: {listen: no}", "http: {listen: '${NO}'}")
        ),
    ],
)
def test_what_the_file_says_wins_over_the_environment(text: str, port: int, tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    file.write_text(text)
    assert listen_address(daemon_document(file, environ=ENVIRON), environ=ENVIRON).port == port


@pytest.mark.parametrize("environ", [{}, {"WATCHER_HTTP_LISTEN": ""}, {"WATCHER_HTTP_LISTEN": "nonsense"}])
def test_without_either_there_is_the_default_which_is_the_daemons(environ: dict[str, str]) -> None:
    found = listen_address(daemon_document(None, environ=environ), environ=environ)
    assert found == parse_address(HttpSettings().listen) == Address("127.0.0.1", 8080)


@pytest.mark.parametrize("text", ["[]", "http: {listen: '127.0.0.1:7000'", "\x00", None])
def test_a_file_that_cannot_be_read_is_a_mistake(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=r"^cannot read .*watcher\.yaml"):
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
