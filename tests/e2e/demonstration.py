"""The demonstration as a process, with its output collected by a thread: it runs while other tests do."""

import os
import pty
import subprocess
import threading
from pathlib import Path
from typing import Self

from e2e.programme import COMMAND, environment

LASTS_S = 60.0
"""It should last 30 s; this is when a test gives up."""


class Demonstration:
    """A run of `watcher demo`, with its stdout on a terminal or on a pipe."""

    def __init__(self, *arguments: str, on_terminal: bool, folder: Path) -> None:
        self._read_fd, write_fd = pty.openpty() if on_terminal else os.pipe()
        self._parts: list[bytes] = []
        self._stderr = folder / f"stderr of {write_fd}"
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*COMMAND, "demo", *arguments],
                cwd=folder,
                env=environment() | {"TERM": "xterm-256color", "COLUMNS": "200"},
                stdin=subprocess.DEVNULL,
                stdout=write_fd,
                stderr=stderr,
            )
        os.close(write_fd)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        code = self._process.wait(LASTS_S)
        self._reader.join()
        return code

    def printed(self) -> str:
        return b"".join(self._parts).decode()

    def said(self) -> str:
        """Return what was said on stderr."""
        return self._stderr.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self.end()
        os.close(self._read_fd)

    def _read(self) -> None:
        try:
            while part := os.read(self._read_fd, 65536):
                self._parts.append(part)
        except OSError:
            return  # so a terminal says that its other end is gone
