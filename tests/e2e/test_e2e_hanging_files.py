"""Files and names that never answer: said clearly, and in nobody's way, the end least of all."""

import os
import time

import pytest
from e2e.programme import outcome_of
from e2e.stage import API_KEY, Stage, document_of, world_of

pytestmark = pytest.mark.untraced

AT_MOST_S = 8.0

HANGING = """
import os, pathlib, socket, threading

stat, resolve = pathlib.Path.stat, socket.getaddrinfo

def stat_or_hang(self, **options):
    if self.name == "key" and os.path.exists("the-server-is-gone"):
        threading.Event().wait()
    return stat(self, **options)

def resolve_or_hang(host, *rest, **options):
    if host == "hangs.example":
        threading.Event().wait()
    return resolve(host, *rest, **options)

pathlib.Path.stat, socket.getaddrinfo = stat_or_hang, resolve_or_hang
"""


@pytest.fixture
def hanging(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server and a name server that do not answer."""
    (stage.folder / "sitecustomize.py").write_text(HANGING)
    monkeypatch.setenv("PYTHONPATH", str(stage.folder))


@pytest.mark.long
@pytest.mark.usefixtures("hanging")
async def test_a_secret_that_hangs_is_loud_holds_up_no_reload_and_no_end(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    document = document_of({"default": simulator})
    well = {**document, "log": {"level": "debug"}}
    document["accounts"] = {"default": {**document["accounts"]["default"], "api_key_file": "./key"}}
    del document["accounts"]["default"]["api_key"]
    (stage.folder / "key").write_text(API_KEY)
    life = await stage.start(document)
    await life.started()
    gone = stage.folder / "the-server-is-gone"
    gone.touch()
    await life.until(lambda: life.logged("config.rejected"), within_s=25, what="it was said")
    (problem,) = life.logged("config.rejected")[0]["problems"]
    assert "accounts.default.api_key_file: cannot read ./key (no answer" in problem
    asked = len(simulator.request_log.entries)
    await life.until(lambda: len(simulator.request_log.entries) > asked + 9, within_s=10, what="it polled on")

    stage.write(well)
    await life.until(lambda: life.logged("config.reloaded"), within_s=25, what="the next file was taken")
    stage.write(document)
    await life.until(lambda: len(life.logged("config.rejected")) > 1, within_s=25, what="it was said again")
    asked_at = time.monotonic()
    assert await life.stop() == 0
    assert time.monotonic() - asked_at <= AT_MOST_S


@pytest.mark.usefixtures("hanging")
async def test_it_ends_in_time_while_a_reload_hangs(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    document = document_of({"default": simulator})
    life = await stage.start(document)
    await life.started()
    (stage.folder / "the-server-is-gone").touch()
    document["accounts"]["default"] |= {"api_key_file": "./key", "api_key": None}
    stage.write(document)
    await life.until(lambda: simulator.request_log.entries, within_s=10, what="it polled")
    asked_at = time.monotonic()
    assert await life.stop() == 0
    assert time.monotonic() - asked_at <= AT_MOST_S


@pytest.mark.long
@pytest.mark.usefixtures("hanging")
async def test_a_name_that_hangs_keeps_it_no_longer_than_8_s(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    sink = {"type": "webhook", "url": "http://hangs.example/", "timeout": "60s"}
    life = await stage.start(document_of({"default": simulator}, {"ops": sink}))
    await life.until(lambda: life.emitted, within_s=15, what="something was to be sent")
    asked_at = time.monotonic()
    assert await life.stop() == 0
    assert time.monotonic() - asked_at <= AT_MOST_S


@pytest.mark.long
@pytest.mark.usefixtures("hanging")
async def test_a_name_to_listen_at_that_hangs_is_said(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=60, ends_within_s=90))
    document = document_of({"default": simulator}) | {"http": {"listen": "hangs.example:8080"}}
    outcome = await outcome_of("run", "--config", str(stage.write(document)), folder=stage.folder)
    assert "http.listen: cannot listen on hangs.example:8080 (its name was not resolved within 5 s)" in outcome.stderr


async def test_a_pipe_in_place_of_a_secret_is_said_at_once(stage: Stage) -> None:
    os.mkfifo(stage.folder / "key")
    path = stage.write({"accounts": {"default": {"api_key_file": "./key"}}})
    outcome = await outcome_of("check", "--config", str(path), folder=stage.folder)
    assert outcome.code == 2
    assert "accounts.default.api_key_file: cannot read ./key (a named pipe, not a regular file)" in outcome.stderr


@pytest.mark.long
async def test_a_configuration_nobody_writes_is_said_soon(stage: Stage) -> None:
    os.mkfifo(stage.folder / "pipe")
    outcome = await outcome_of("run", "--config", "pipe", folder=stage.folder)
    assert outcome.code == 2
    assert "pipe: cannot read this file (a pipe that nobody wrote and closed within 5 s)" in outcome.stderr
