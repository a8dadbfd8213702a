"""The command line in this process, and on a terminal in one of its own."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from e2e.programme import COMMAND, environment

from watcher.cli import main


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Ended]
OnTerminal = Callable[..., str]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with nothing in the environment that would configure the program."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("WATCHER_", "CLERK_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with its output into pipes; return how it ended."""

    def command(*words: str, **environ: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["watcher", *words])
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return command


@pytest.fixture
def on_terminal() -> OnTerminal:
    """Run a command on a terminal that wide; return all it wrote there, without colours."""

    def on_terminal(*words: str, columns: int = 100, **environ: str) -> str:
        read_fd, write_fd = pty.openpty()
        screen = {"TERM": "xterm-256color", "COLUMNS": str(columns), "NO_COLOR": "1"}
        with subprocess.Popen(
            [*COMMAND, *words],
            env=environment() | screen | environ,
            stdin=subprocess.DEVNULL,
            stdout=write_fd,
            stderr=write_fd,
        ):
            os.close(write_fd)
            written = _read_all(read_fd)
        os.close(read_fd)
        return written.decode().replace("\r\n", "\n").replace("\x1b[1m", "").replace("\x1b[0m", "")

    return on_terminal


def _read_all(fd: int) -> bytes:
    parts = []
    try:
        while part := os.read(fd, 65536):
            parts.append(part)
    except OSError:
        pass  # so a terminal says that its other end is gone
    return b"".join(parts)
