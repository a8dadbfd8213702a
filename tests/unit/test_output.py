"""What becomes of a command whose stdout takes nothing: real pipes, a real full disk."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.programme import COMMAND, environment

WATCH = """
accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, executions: [9a1b0000-0000-4000-8000-000000000001]}]
"""
COMMANDS = [("schema",), ("check",), ("init", "--secret"), ("--help",), ("check", "--help"), ("--version",)]


@pytest.fixture
def abandoned() -> Iterator[int]:
    """A pipe whose reader has left."""
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    yield write_fd
    os.close(write_fd)


def ended(*words: str, stdout: int, folder: Path) -> tuple[int, str]:
    (folder / "watcher.yaml").write_text(WATCH)
    environ = environment(measured=True)
    outcome = subprocess.run(
        [*COMMAND, *words], cwd=folder, env=environ, stdout=stdout, stderr=subprocess.PIPE, check=False
    )
    return outcome.returncode, outcome.stderr.decode()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_reader_that_left_ends_it_without_a_word(words: tuple[str, ...], abandoned: int, tmp_path: Path) -> None:
    assert ended(*words, stdout=abandoned, folder=tmp_path) == (1, "")


@pytest.mark.parametrize("words", COMMANDS[:3], ids=" ".join)
def test_a_full_disk_is_told(words: tuple[str, ...], tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = ended(*words, stdout=full.fileno(), folder=tmp_path)
    assert (code, said) == (1, "error: cannot write to stdout (no space left on device)\n")
