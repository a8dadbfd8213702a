"""What a container asks every half a minute, against a real server."""

import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from e2e.programme import outcome_of
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


def test_a_port_that_is_any_free_one_is_not_asked(command: Command) -> None:
    code, out, err = command("health", WATCHER_HTTP_LISTEN="127.0.0.1:0")
    assert (code, out) == (4, "")
    assert err == "error: http.listen has port 0, any free one, so nobody knows which; set a port\n"


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_10.0\r\n", b"HTTP/1.1\r\n\r\n"])
def test_another_program_there_is_no_answer(answer: bytes, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:
        thread.submit(_answer_once, server, answer)
        code, out, err = command("health", WATCHER_HTTP_LISTEN=f"127.0.0.1:{server.getsockname()[1]}")
    assert (code, out) == (4, "")
    assert err.splitlines()[0].endswith(" (no answer)")


def _answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        while b"\r\n\r\n" not in connection.recv(4096):
            pass
        connection.sendall(answer)


@pytest.mark.parametrize("words", [("health",), ("health", "-c", "mine.yaml"), ("health", "--config", "mine.yaml")])
async def test_a_container_asks_it_in_a_process_of_its_own(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("http: {listen: '127.0.0.1:1'}")
    outcome = await outcome_of(*words, folder=tmp_path, environ={"WATCHER_HTTP_LISTEN": "127.0.0.1:2"})
    assert (outcome.code, outcome.stdout) == (4, "")
    assert outcome.stderr.startswith(f"error: no daemon answers at http://127.0.0.1:{1 if words[1:] else 2} (")


LOADED = """
import sys
before = set(sys.modules)
sys.argv[1:] = {words}
from watcher.__main__ import main
try:
    main()
except SystemExit:
    pass
print("loaded:", *sorted(set(sys.modules) - before))
"""
"""Runs a command and prints which modules that took, beyond those of an interpreter that does nothing."""

FILES = {"plain": "# listen: here", "listens": "http: {listen: '127.0.0.1:1'}"}


@pytest.mark.parametrize(
    ("words", "file", "limit", "without"),
    [
        (["health"], "plain", 80, {"yaml", "dataclasses", "json", "http.client"}),
        (["health"], "listens", 120, {"dataclasses", "http.client"}),
        (["--help"], "plain", 250, {"pydantic", "rich", "yaml", "http.client"}),
        (["status"], "plain", 450, {"sqlalchemy", "prometheus_client"}),
    ],
    ids=["health", "health with http.listen", "--help", "status"],
)
def test_a_command_that_is_often_asked_imports_little(
    words: list[str], file: str, limit: int, without: set[str], tmp_path: Path
) -> None:
    (tmp_path / "watcher.yaml").write_text(FILES[file])
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environ["WATCHER_HTTP_LISTEN"] = "127.0.0.1:1"
    command = [sys.executable, "-c", LOADED.format(words=words)]
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    loaded = ended.stdout.rpartition("loaded: ")[2].split()
    never = {"aiohttp", "asyncio", "structlog"} | ({"ssl", "typer", "pydantic"} if words == ["health"] else set())
    assert sorted((never | without) & set(loaded)) == []
    assert len(loaded) <= limit, loaded
