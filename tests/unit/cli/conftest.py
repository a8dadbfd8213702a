"""The command line on a terminal."""

import os
import pty
import re
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from fake_daemon import FakeDaemon, fake_daemon
from unit.conftest import RunMain

OnTerminal = Callable[..., str]


@pytest.fixture(autouse=True)
def _alone(alone: None) -> None:
    """For every test here."""


@pytest.fixture
def on_terminal(run_main: RunMain, monkeypatch: pytest.MonkeyPatch) -> OnTerminal:
    """Run a command on a terminal that wide; return all it wrote there, without colours.

    `typed` is typed when it asks; once it has written `until`, it is interrupted.
    """

    def on_terminal(*words: str, columns: int = 100, typed: str = "", until: str = "", **environ: str) -> str:
        read_fd, write_fd = pty.openpty()
        screen = {"TERM": "xterm-256color", "COLUMNS": str(columns), "NO_COLOR": "1"}
        encoding = environ.get("PYTHONIOENCODING", "utf-8")
        with ThreadPoolExecutor(1) as reader, ExitStack() as streams, monkeypatch.context() as patch:
            reading = reader.submit(_read_all, read_fd, until=until.encode())
            stdin = os.dup(write_fd) if typed else os.open(os.devnull, os.O_RDONLY)
            patch.setattr(sys, "stdin", streams.enter_context(os.fdopen(stdin)))
            patch.setattr(sys, "stdout", streams.enter_context(os.fdopen(write_fd, "w", encoding=encoding)))
            patch.setattr(sys, "stderr", streams.enter_context(os.fdopen(os.dup(write_fd), "w", encoding=encoding)))
            os.write(read_fd, typed.encode())
            run_main(*words, **screen, **environ)
            streams.close()
            written = reading.result()
        os.close(read_fd)
        return re.sub("\x1b\\[[012]m", "", written.decode().replace("\r\n", "\n"))

    return on_terminal


def _read_all(fd: int, *, until: bytes) -> bytes:
    written = b""
    try:
        while part := os.read(fd, 65536):
            was_there, written = until in written, written + part
            if not was_there and until in written:
                os.kill(os.getpid(), signal.SIGINT)
    except OSError:
        pass  # so a terminal says that its other end is gone
    return written


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with fake_daemon() as daemon:
        yield daemon


@pytest.fixture
def served(daemon: FakeDaemon, alone: None, monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    """A daemon that commands find by the environment."""
    monkeypatch.setenv("WATCHER_URL", daemon.url)
    return daemon
