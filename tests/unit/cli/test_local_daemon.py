"""Where the daemon of this machine listens. What `watcher health` says about it is tested with the command."""

from pathlib import Path

import pytest

from watcher.cli.local_daemon import daemon_address
from watcher.config.locate import daemon_document
from watcher.config.models import HttpSettings
from watcher.runtime.units import Address, parse_address

ENVIRON = {"WATCHER_HTTP_LISTEN": "0.0.0.0:9000", "PORT": "7000"}


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
    assert daemon_address(daemon_document(file, environ=ENVIRON).get(("http", "listen")), environ=ENVIRON).port == port


@pytest.mark.parametrize("environ", [{}, {"WATCHER_HTTP_LISTEN": ""}, {"WATCHER_HTTP_LISTEN": "nonsense"}])
def test_without_either_there_is_the_default_which_is_the_daemons(environ: dict[str, str]) -> None:
    assert daemon_address(None, environ=environ) == parse_address(HttpSettings().listen) == Address("127.0.0.1", 8080)
