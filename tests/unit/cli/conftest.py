"""The command line on a terminal, in a process of its own."""

import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
from e2e.programme import COMMAND, environment
from fake_daemon import FakeDaemon, fake_daemon

OnTerminal = Callable[..., str]


@pytest.fixture(autouse=True)
def _alone(alone: None) -> None:
    """For every test here."""


@pytest.fixture
def on_terminal() -> OnTerminal:
    """Run a command on a terminal that wide; return all it wrote there, without colours.

    `typed` is typed when it asks; once it has written `until`, it is interrupted.
    """

    def on_terminal(*words: str, columns: int = 100, typed: str = "", until: str = "", **environ: str) -> str:
        read_fd, write_fd = pty.openpty()
        screen = {"TERM": "xterm-256color", "COLUMNS": str(columns), "NO_COLOR": "1"}
        with subprocess.Popen(
            [*COMMAND, *words],
            env=environment() | screen | environ,
            stdin=write_fd if typed else subprocess.DEVNULL,
            stdout=write_fd,
            stderr=write_fd,
        ) as process:
            os.close(write_fd)
            if typed:
                os.write(read_fd, typed.encode())
            written = _read_all(read_fd, until=until.encode(), found=lambda: process.send_signal(signal.SIGINT))
        os.close(read_fd)
        return re.sub("\x1b\\[[012]m", "", written.decode().replace("\r\n", "\n"))

    return on_terminal


def _read_all(fd: int, *, until: bytes, found: Callable[[], None]) -> bytes:
    written = b""
    try:
        while part := os.read(fd, 65536):
            was_there, written = until in written, written + part
            if not was_there and until in written:
                found()
    except OSError:
        pass  # so a terminal says that its other end is gone
    return written


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with fake_daemon() as daemon:
        yield daemon
