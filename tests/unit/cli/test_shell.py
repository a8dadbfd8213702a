"""Standard streams that take nothing, and signals: real pipes, a real full disk, a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.programme import COMMAND, environment

from watcher.cli.event_loop import ONE_SIGNAL_S

WATCH = """
accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, executions: [c2a4e6f8-3b5d-4f71-8c93-b1d2e3f4a5b6]}]
"""
BUFFERED = {"PYTHONUNBUFFERED": ""}
"""As it is without that variable: a few lines are written at the very end."""

COMMANDS = [("schema",), ("init", "--secret"), ("init", "--help")]
"""What prints much, what prints a line, and what Typer prints."""


@pytest.fixture
def abandoned() -> Iterator[int]:
    """A pipe whose reader has left."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    yield write_fd
    os.close(write_fd)


def ended(*words: str, stdout: int, folder: Path) -> tuple[int, str]:
    (folder / "watcher.yaml").write_text(WATCH)
    environ = environment() | BUFFERED
    outcome = subprocess.run(
        [*COMMAND, *words], cwd=folder, env=environ, stdout=stdout, stderr=subprocess.PIPE, check=False
    )
    return outcome.returncode, outcome.stderr.decode()


@pytest.mark.ci
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_reader_that_left_ends_it_without_a_word(words: tuple[str, ...], abandoned: int, tmp_path: Path) -> None:
    assert ended(*words, stdout=abandoned, folder=tmp_path) == (1, "")


@pytest.mark.parametrize("words", COMMANDS[:2], ids=" ".join)
def test_a_full_disk_is_reported(words: tuple[str, ...], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = ended(*words, stdout=full.fileno(), folder=tmp_path)
    assert (code, said) == (1, "error: cannot write to stdout (no space left on device)\n")


@pytest.mark.ci
def test_a_full_disk_is_reported_by_help_too(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = ended("schema", "--help", stdout=full.fileno(), folder=tmp_path)
    assert code == 1
    assert "no space left on device" in said.lower()


def test_an_error_that_a_full_disk_cannot_take_keeps_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "watcher.yaml").touch()
    with Path("/dev/full").open("wb") as full:
        outcome = subprocess.run([*COMMAND, "init"], cwd=tmp_path, env=environment(), stderr=full, check=False)
    assert outcome.returncode == 2


@pytest.mark.parametrize("words", ["run", "check", "--help"])
def test_a_closed_stdout_is_refused_before_anything_can_take_its_number(words: str, tmp_path: Path) -> None:
    code, said = ended_without(">&-", words, folder=tmp_path)
    assert (code, said) == (1, "error: stdout is closed; send it to a file, a pipe or /dev/null\n")


@pytest.mark.ci
def test_what_would_be_said_on_a_closed_stderr_is_not_said_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    assert ended_without("2>&- <&-", "init", "mine.yaml", folder=tmp_path) == (2, "")


def ended_without(redirections: str, *words: str, folder: Path) -> tuple[int, str]:
    """Run a command without some of its streams; return its code and what it said on the others."""
    shell = ["sh", "-c", f'exec "$@" {redirections}', "sh", *COMMAND, *words]
    environ = environment() | BUFFERED
    outcome = subprocess.run(shell, cwd=folder, env=environ, capture_output=True, check=False)
    return outcome.returncode, (outcome.stdout + outcome.stderr).decode()


SIGNAL_ITSELF = """
import asyncio, os, signal, sys
from watcher.cli.event_loop import run_until_stopped

async def work(stop):
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(float(sys.argv[1]))
    os.kill(os.getpid(), signal.Signals[sys.argv[2]])
    await asyncio.sleep(0.2)  # it would be over by then
    return stop.is_set()

print(run_until_stopped(work)[0])
"""


@pytest.mark.parametrize(
    ("wait_s", "second", "code"),
    [
        (0.0, "SIGTERM", 0),  # `timeout` signals a program and then its group
        (0.0, "SIGINT", 130),
        (2 * ONE_SIGNAL_S, "SIGTERM", 143),
    ],
)
def test_the_same_signal_twice_at_once_is_one(wait_s: float, second: str, code: int) -> None:
    command = [sys.executable, "-c", SIGNAL_ITSELF, str(wait_s), second]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "True\n" if code == 0 else "")
