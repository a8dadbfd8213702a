"""The command line on a terminal, in a process of its own."""

import os
import pty
import re
import subprocess
from collections.abc import Callable

import pytest
from e2e.programme import COMMAND, environment

OnTerminal = Callable[..., str]


@pytest.fixture(autouse=True)
def _alone(alone: None) -> None:
    """For every test here."""


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
        return re.sub("\x1b\\[[012]m", "", written.decode().replace("\r\n", "\n"))

    return on_terminal


def _read_all(fd: int) -> bytes:
    parts = []
    try:
        while part := os.read(fd, 65536):
            parts.append(part)
    except OSError:
        pass  # so a terminal says that its other end is gone
    return b"".join(parts)
