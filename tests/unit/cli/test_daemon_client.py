"""How a command finds its daemon, and what it says when that does not do what it should: against a real server."""

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_daemon import Asked, FakeDaemon, Raw
from receiver import Receiver, answer, says
from tls import own_ca, serving
from unit.conftest import Command

from watcher.cli.daemon_client import DaemonClient, find_daemon
from watcher.domain.errors import WatcherError
from watcher.web.models import DeliveryView, Page, Trouble

NONE_OPEN = Page[DeliveryView](items=())
ELSEWHERE = "hint: is `watcher run` up? Elsewhere: WATCHER_URL=http://host:8080. 401 instead: set WATCHER_TOKEN\n"


@pytest.fixture(autouse=True)
def _open(daemon: FakeDaemon) -> None:
    daemon.replies["GET /deliveries"] = NONE_OPEN
    daemon.replies["GET /proxied/api/v1/deliveries"] = NONE_OPEN


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        (("--url", "{url}"), {"WATCHER_URL": "http://127.0.0.1:1"}),
        (("--url", "{url}/proxied/"), {}),
        ((), {"WATCHER_URL": "{url}"}),
        (("--config", "mine.yaml"), {}),
        ((), {"WATCHER_CONFIG": "mine.yaml", "WATCHER_URL": ""}),
        ((), {"WATCHER_HTTP_LISTEN": "0.0.0.0:{port}"}),
    ],
)
def test_the_daemon_is_where_option_variable_or_file_say(
    words: tuple[str, ...], environ: dict[str, str], daemon: FakeDaemon, command: Command
) -> None:
    Path("mine.yaml").write_text(f"http: {{listen: '127.0.0.1:{daemon.server_port}', token: '${{NOPE}}'}}\nodd: 1")
    places = {"url": daemon.url, "port": daemon.server_port}
    filled = {name: value.format(**places) for name, value in environ.items()}
    assert command("deliveries", *(word.format(**places) for word in words), **filled)[0] == 0
    assert len(daemon.asked) == 1


@pytest.mark.parametrize(("environ", "token"), [({}, "of the file"), ({"WATCHER_TOKEN": "of the environment"}, None)])
def test_the_token_is_of_environment_or_file(
    environ: dict[str, str], token: str | None, daemon: FakeDaemon, command: Command
) -> None:
    Path("watcher.yaml").write_text("http: {token: of the file}")
    assert command("deliveries", "--url", daemon.url, **environ)[0] == 0
    assert daemon.asked[0].token == (token or environ["WATCHER_TOKEN"])


NO_ADDRESS = "error: --url, or WATCHER_URL, is no address of a daemon; write http://127.0.0.1:8080\n"
NOBODY = f"error: no daemon answers at http://127.0.0.1:1 (connection refused)\n{ELSEWHERE}"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        *((("deliveries", "--url", url), 2, NO_ADDRESS) for url in ("127.0.0.1:8080", "ftp://x", "http://", "[::1")),
        *((("deliveries", "--url", url), 2, NO_ADDRESS) for url in ("http://x:99999", "http://me:secret@x")),
        *((words, 4, NOBODY) for words in (("status",), ("events",), ("silence", "--list"), ("test-sink", "ops"))),
    ],
)
def test_an_address_that_is_none_or_nobodys_is_said_with_what_to_do(
    words: tuple[str, ...], code: int, said: str, command: Command
) -> None:
    assert command(*words, WATCHER_URL="http://127.0.0.1:1") == (code, "", said)


OTHER = "error: what answers is another program, or another version ("
REFUSES = "error: the daemon at {url} refuses "
SILENT = "error: no daemon answers at {url} (no answer)\n"


def trouble(status: int, title: str = "No", **fields: str) -> Trouble:
    return Trouble(title=title, status=status, **fields)


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (trouble(401, "Unauthorized"), 4, REFUSES + "(401): Unauthorized\nhint: set"),
        (trouble(403, detail="this Host"), 4, REFUSES + "(403): this Host\n"),
        (trouble(403, detail="add vm to http.names"), 4, REFUSES + "(403): add vm to http.names\n"),
        (trouble(429, detail="too fast"), 4, REFUSES + "(429): too fast\nhint: set"),
        (trouble(404, detail="no such \x1b[31mthing"), 5, "error: no such \\x1b[31mthing\n"),
        (trouble(409, detail="its executions are named"), 2, "error: its executions are named\n"),
        (trouble(503, "Not ready"), 1, "error: Not ready\n"),
        (Raw(404, b"404: Not Found"), 4, OTHER + "{url} answers 404 to GET /api/v1/deliveries)\nhint: is it clerk-"),
        (Raw(200, b"<html>"), 4, OTHER + "{url} answers 200 to GET"),
        (Raw(302, b""), 4, OTHER + "{url} answers 302 to GET"),
        (Raw(200, b"[]"), 4, OTHER + "{url} answers 200 to GET"),
        (Raw(200, b"{}"), 4, OTHER + 'no "items" in its answer)'),
        (Raw(0, b""), 4, SILENT + ELSEWHERE),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_an_exit_code(
    reply: Trouble | Raw, code: int, said: str, daemon: FakeDaemon, command: Command
) -> None:
    daemon.replies["GET /deliveries"] = reply
    ended, out, err = command("deliveries", WATCHER_URL=daemon.url)
    assert (ended, out) == (code, "")
    assert err.startswith(said.format(url=daemon.url)), err
    assert len(err.splitlines()) <= 2
    assert "http.names" not in err or err.endswith("names\n")  # no token mends that


def test_with_json_an_error_is_json_too(daemon: FakeDaemon, command: Command) -> None:
    daemon.replies["GET /deliveries"] = Trouble(title="No", status=404, detail="no such thing")
    code, out, err = command("deliveries", "--json", WATCHER_URL=daemon.url)
    assert (code, out) == (5, "")
    assert json.loads(err) == {"error": {"code": "not_found", "message": "no such thing", "hint": "", "exit": 5}}
    said = json.loads(command("deliveries", "--json", WATCHER_URL="http://127.0.0.1:1")[2])["error"]
    assert (said["code"], said["exit"], f"hint: {said['hint']}\n") == ("unreachable", 4, ELSEWHERE)


def test_a_file_that_is_named_must_be_there_and_a_token_fit_a_header(daemon: FakeDaemon, command: Command) -> None:
    for how in ({"args": ("--config", "prodd.yaml")}, {"args": (), "WATCHER_CONFIG": "prodd.yaml"}):
        code, out, err = command("deliveries", *how.pop("args"), **how)
        assert (code, out) == (2, "")
        assert err.startswith("prodd.yaml: cannot read this file (no such file or directory")
    assert command("deliveries", "--config", "prodd.yaml", WATCHER_URL=daemon.url)[0] == 0
    code, _, err = command("deliveries", WATCHER_URL=daemon.url, WATCHER_TOKEN="a\nb")
    assert (code, err.startswith("error: WATCHER_TOKEN, or http.token, holds")) == (2, True)


async def test_a_certificate_counts_if_its_ca_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = says(answer(200, body=b'{"items": []}', Connection="close"))
    async with Receiver(found, tls=serving(own_ca(tmp_path), "127.0.0.1")) as receiver:

        def ask() -> list[Any]:
            return [*find_daemon(None, url=receiver.url).items("/deliveries")]

        with pytest.raises(WatcherError, match="unable to get local issuer certificate"):
            await asyncio.to_thread(ask)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert await asyncio.to_thread(ask) == []
    assert [request.line for request in receiver.requests] == ["GET /api/v1/deliveries?limit=200 HTTP/1.1"]


def test_a_command_waits_as_long_as_the_daemon_answers_anybody(daemon: FakeDaemon) -> None:
    asked_twice = threading.Event()

    def alive(_: Asked) -> Raw:
        if [each.path for each in daemon.asked].count("/livez") == 2:
            asked_twice.set()
        return Raw(503, b"not ok: account:eu")

    def report(_: Asked) -> Trouble:
        asked_twice.wait(10)
        return Trouble(title="Late", status=200)

    daemon.replies |= {"GET /livez": alive, "GET /report": report}
    assert DaemonClient(daemon.url, None, timeout_s=0.05).ask("GET", "/report")["title"] == "Late"
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # it takes connections, and answers none
        client = DaemonClient(f"http://127.0.0.1:{hangs.getsockname()[1]}", None, timeout_s=0.05)
        with pytest.raises(WatcherError, match="no daemon answers"):
            client.ask("GET", "/report")
