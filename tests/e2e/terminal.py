"""A program on a terminal of its own, whose screen is read as it is written."""

import asyncio
import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from pathlib import Path

from e2e.programme import COMMAND, PATIENCE_S, Board, environment

CONTROL = re.compile(r"\x1b\[\??([0-9;]*)([A-Za-z])")


class Terminal:
    """One program with all three streams on a pseudo-terminal."""

    def __init__(self, process: asyncio.subprocess.Process, *, master_fd: int, board: Board) -> None:
        self.process = process
        self.written = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._fd = master_fd
        self._board = board
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(master_fd, self._read)

    @property
    def plain(self) -> str:
        """What was written, without what steers the cursor and the colours."""
        return CONTROL.sub("", self.written)

    async def until(self, text: str, *, within_s: float = PATIENCE_S) -> None:
        """Wait until a text was written."""
        await self._board.until(lambda: text in self.plain, within_s=within_s, what=f"{text!r} was shown")

    async def end(self, *, within_s: float = PATIENCE_S) -> int:
        """Wait for the end and return the exit code."""
        async with asyncio.timeout(within_s):
            code = await self.process.wait()
        self._read_rest()
        return code

    def hang_up(self) -> None:
        """Close it, as closing a window does: the system says so to its programs."""
        self._close()
        self.process.send_signal(signal.SIGHUP)

    async def clear_away(self) -> None:
        """Leave nothing behind."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bool:
        try:
            part = os.read(self._fd, 65536)
        except OSError:  # so a terminal says that its other end is gone
            self._loop.remove_reader(self._fd)
            return False
        self.written += self._decoder.decode(part)
        self._board.notice()
        return True

    def _read_rest(self) -> None:
        while self._read():
            pass


def set_size(fd: int, *, columns: int) -> None:
    """Set the width of a terminal; its programs are notified."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


async def on_terminal(*arguments: str, folder: Path, board: Board, columns: int, **variables: str) -> Terminal:
    """Start the program on a terminal so wide."""
    master_fd, slave_fd = pty.openpty()
    set_size(slave_fd, columns=columns)
    kept = {name: value for name, value in environment().items() if name not in {"COLUMNS", "LINES"}}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=folder,
        env=kept | {"TERM": "xterm-256color", **variables},
        stdin=slave_fd,
        stdout=slave_fd,
        stderr=slave_fd,
    )
    os.close(slave_fd)
    return Terminal(process, master_fd=master_fd, board=board)
