"""What a container asks every few seconds, against a real server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_daemon import FakeDaemon, Raw
from unit.conftest import Command


def test_a_ready_daemon_is_healthy_and_no_secret_need_be_there(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["GET /readyz"] = Raw(200, b"ok\n")
    Path("mine.yaml").write_text(
        "accounts: {default: {api_key: '${CLERK_API_KEY}'}, eu: {api_key_file: /run/secrets/nowhere}}\n"
        "watch: nonsense\n"
        "http: {listen: '${HOST:-127.0.0.1}:${PORT}'}\n"
    )
    assert command("health", "--config", "mine.yaml", PORT=str(daemon.server_port)) == (0, "ready\n", "")
    assert [asked.query for asked in daemon.asked] == [[("verbose", "")]]


@pytest.mark.parametrize(
    ("reply", "listen", "said"),
    [
        (
            Raw(503, b"not ok: maintenance has not run yet\nnot ok: \x1b[31mstore\n"),
            "0.0.0.0:{}",
            "maintenance has not run yet; \\x1b[31mstore",
        ),
        (Raw(404, b""), ":{}", "it answers 404; is clerk-watcher listening there?"),
    ],
)
def test_one_that_is_not_says_why(reply: Raw, listen: str, said: str, daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["GET /readyz"] = reply
    listening = {"WATCHER_HTTP_LISTEN": listen.format(daemon.server_port)}
    assert command("health", **listening) == (1, f"not ready: {said}\n", "")


@pytest.mark.parametrize(
    ("listen", "asked"), [("127.0.0.1:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), (":1", "127.0.0.1:1")]
)
def test_nobody_there_exits_4(listen: str, asked: str, command: Command) -> None:
    code, out, err = command("health", WATCHER_HTTP_LISTEN=listen)
    assert (code, out) == (4, "")
    assert err.startswith("error: no daemon answers at http://")
    assert re.findall(r"http://(\S+) \(", err) == [asked]


def test_a_port_that_is_any_free_one_is_not_asked_and_nothing_heavy_imported(command: Command) -> None:
    code, out, err = command("health", WATCHER_HTTP_LISTEN="127.0.0.1:0")
    assert (code, out) == (4, "")
    assert "http.listen has port 0, any free one, so nobody knows which; set a port" in err
    words = "import sys; import watcher.cli.commands.health; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout.split()
    assert not {"aiohttp", "pydantic", "rich.console", "sqlalchemy"} & set(loaded)
