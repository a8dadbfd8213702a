import os
from pathlib import Path

import pytest

from watcher.config.daemon_address import daemon_address
from watcher.config.models import HttpSettings
from watcher.config.store_settings import StoreSettings
from watcher.runtime.units import Address, parse_address

ENVIRON = {"WATCHER_HTTP_LISTEN": "0.0.0.0:9000", "WATCHER_STORE_URL": "sqlite:////data/w.db", "PORT": "7000"}
FROM_ENVIRONMENT = (Address("0.0.0.0", 9000), Path("/data/w.db"))  # noqa: S104 (asked, not listened on)
DEFAULTS = (Address("127.0.0.1", 8080), Path("watcher.db"))


@pytest.mark.parametrize(
    "text",
    [
        "http: {listen: '127.0.0.1:7000'}\nstore: {url: sqlite:///kept/7000.db}",
        "http:\n  listen: 127.0.0.1:${PORT}\nstore:\n  url: sqlite:///kept/${PORT}.db",
        "odd: x\nhttp: {listen: 127.0.0.1:7000}\nstore: {url: sqlite:///kept/7000.db, retention: nonsense}",
    ],
)
def test_what_the_file_says_wins(text: str, tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    file.write_text(text)
    assert daemon_address(file, environ=ENVIRON) == (("127.0.0.1", 7000), Path("kept/7000.db"))


def test_a_file_that_is_a_pipe_is_read_to_its_end() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"http: {listen: '127.0.0.1:7000'}\nstore: {url: sqlite:///kept/7000.db}")
    os.close(writer)
    assert daemon_address(Path(f"/dev/fd/{reader}"), environ=ENVIRON) == (("127.0.0.1", 7000), Path("kept/7000.db"))
    os.close(reader)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "http:\nstore:",
        "http: x\nstore: x",
        "http: {}\nstore: {}",
        "http: {listen: }\nstore: {url: }",
        "http: {listen: [a]}\nstore: {url: [a]}",
        "http: {listen: nonsense}\nstore: {url: nonsense}",
        "http: {listen: '${NOPE}'}\nstore: {url: '${NOPE}'}",
        "http: {listen: '127.0.0.1:7000'",
        "\x00",
    ],
)
def test_what_is_not_there_is_taken_from_the_environment(text: str, tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    file.write_text(text)
    assert daemon_address(file, environ=ENVIRON) == FROM_ENVIRONMENT


@pytest.mark.parametrize("file", [None, Path("/nowhere/watcher.yaml")])
@pytest.mark.parametrize("value", [None, "", "nonsense"])
def test_without_either_there_are_the_defaults(file: Path | None, value: str | None) -> None:
    environ = {} if value is None else {"WATCHER_HTTP_LISTEN": value, "WATCHER_STORE_URL": value}
    assert daemon_address(file, environ=environ) == DEFAULTS


def test_the_defaults_are_those_of_the_daemon() -> None:
    assert parse_address(HttpSettings().listen) == DEFAULTS[0]
    assert StoreSettings().url == f"sqlite:///{DEFAULTS[1]}"


def test_postgresql_has_no_file(tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    file.write_text("http: {listen: '127.0.0.1:7000'}\nstore: {url: 'postgresql://watcher@db/watcher'}")
    assert daemon_address(file, environ=ENVIRON) == (("127.0.0.1", 7000), None)
