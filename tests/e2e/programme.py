"""The program in a process of its own: started, read, asked for its pages, signalled, waited for."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

COMMAND = (sys.executable, "-m", "watcher")
PATIENCE_S = 60.0
"""How long a test waits for what is to come before it gives up; how soon something must come is a test of its own."""

SMALLEST_BYTES = 4096
"""No pipe can be smaller."""


class Board:
    """Wakes whoever waits for a condition, whenever anything was read or received anywhere."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notice(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], object], *, what: str, within_s: float = PATIENCE_S) -> None:
        """Return once the condition holds. Raises `AssertionError`, naming `what`, when time is up."""
        deadline = asyncio.get_running_loop().time() + within_s
        while not condition():
            self._changed.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                raise AssertionError(f"waited {within_s} s in vain until {what}") from None


class Lines(asyncio.Protocol):
    """What a process writes into a pipe, by line; `tail` is what has no line end yet."""

    def __init__(self, notice: Callable[[], None]) -> None:
        self.lines: list[bytes] = []
        self.tail = b""
        self.ended = asyncio.Event()
        self._notice = notice

    def data_received(self, data: bytes) -> None:
        *lines, self.tail = (self.tail + data).split(b"\n")
        self.lines += lines
        self._notice()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self._notice()

    def everything(self) -> bytes:
        return b"\n".join([*self.lines, self.tail])


class Pipe:
    """A pipe whose reader is here: it can stop reading, or leave."""

    def __init__(self, notice: Callable[[], None]) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.lines = Lines(notice)
        self._transport: asyncio.ReadTransport | None = None

    async def open(self) -> Self:
        pipe = os.fdopen(self.read_fd, "rb", buffering=0)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self.lines, pipe)
        return self

    def stop_reading(self) -> None:
        """Read no more, and let the system keep as little as it can."""
        assert self._transport is not None
        self._transport.pause_reading()
        fcntl.fcntl(self.read_fd, fcntl.F_SETPIPE_SZ, SMALLEST_BYTES)

    def read_on(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()

    def leave(self) -> None:
        assert self._transport is not None
        self._transport.close()


class Life:
    """One life of the daemon, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process, *, stdout: Pipe, stderr: Pipe, board: Board) -> None:
        self.process = process
        self.stdout = stdout
        self.stderr = stderr
        self.began_at = time.monotonic()
        self._board = board

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_over(self) -> bool:
        return self.process.returncode is not None

    @property
    def emitted(self) -> list[bytes]:
        """The lines of stdout so far."""
        return self.stdout.lines.lines

    def events(self, type_: str | None = None) -> list[dict[str, Any]]:
        """Return what was reported on stdout so far, or that of one type."""
        events = [json.loads(line) for line in self.emitted]
        return [event for event in events if type_ in {None, event["type"]}]

    def logged(self, name: str) -> list[dict[str, Any]]:
        """Return the log lines of that name so far."""
        entries = [json.loads(line) for line in self.stderr.lines.lines if line.startswith(b"{")]
        return [entry for entry in entries if entry["event"] == name]

    async def until(self, condition: Callable[[], object], *, what: str, within_s: float = PATIENCE_S) -> None:
        """Wait for a condition; should it stay away, show what the program said last."""
        try:
            await self._board.until(condition, within_s=within_s, what=what)
        except AssertionError as error:
            said = self.stderr.lines.everything()[-2000:].decode()
            raise AssertionError(f"{error}; the program (exit code {self.process.returncode}) said: {said}") from None

    async def started(self) -> str:
        """Wait for the start and return the address of the daemon's pages."""
        await self.until(lambda: self.logged("started") or self._closed(), what="it had started")
        assert self.logged("started"), self.stderr.lines.everything().decode()
        return f"http://{self.logged('started')[0]['http']}"

    def send(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    async def end(self, *, within_s: float = PATIENCE_S) -> int:
        """Wait for the end and return the exit code; all that was written has been read then."""
        try:
            async with asyncio.timeout(within_s):
                code = await self.process.wait()
        except TimeoutError:
            said = self.stderr.lines.everything()[-2000:].decode()
            raise AssertionError(f"it had not ended after {within_s} s; it said: {said}") from None
        await self._read_to_the_end()
        return code

    async def stop(self, signum: signal.Signals = signal.SIGTERM, *, within_s: float = PATIENCE_S) -> int:
        """Ask it to end, and return the exit code."""
        self.send(signum)
        return await self.end(within_s=within_s)

    async def kill(self) -> None:
        """End it as a power failure would."""
        self.send(signal.SIGKILL)
        await self.process.wait()
        await self._read_to_the_end()

    async def clear_away(self) -> None:
        """Leave nothing behind, whatever a test left running."""
        if not self.is_over:
            self.process.kill()
        await self.process.wait()
        self.stdout.leave()
        self.stderr.leave()
        await self.stdout.lines.ended.wait()
        await self.stderr.lines.ended.wait()

    async def _read_to_the_end(self) -> None:
        self.stdout.read_on()
        self.stderr.read_on()
        await self.stdout.lines.ended.wait()
        await self.stderr.lines.ended.wait()

    def _closed(self) -> bool:
        return self.stderr.lines.ended.is_set()


async def begin(*arguments: str, folder: Path, board: Board, environ: Mapping[str, str] | None = None) -> Life:
    """Start the program in a folder; `environ` is added to its environment."""
    stdout, stderr = await Pipe(board.notice).open(), await Pipe(board.notice).open()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=folder,
        env=environment() | dict(environ or {}),
        stdin=subprocess.DEVNULL,
        stdout=stdout.write_fd,
        stderr=stderr.write_fd,
    )
    os.close(stdout.write_fd)
    os.close(stderr.write_fd)
    return Life(process, stdout=stdout, stderr=stderr, board=board)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a short command ended."""

    code: int
    stdout: str
    stderr: str


async def outcome_of(
    *arguments: str, folder: Path, within_s: float = PATIENCE_S, environ: Mapping[str, str] | None = None
) -> Outcome:
    """Run a command that ends by itself; `environ` is added to its environment."""
    life = await begin(*arguments, folder=folder, board=Board(), environ=environ)
    try:
        code = await life.end(within_s=within_s)
    finally:
        await life.clear_away()
    return Outcome(code, life.stdout.lines.everything().decode(), life.stderr.lines.everything().decode())


def environment() -> dict[str, str]:
    """Return this process's environment without what would configure the program, and without proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WATCHER_", "CLERK_")) and not name.lower().endswith("_proxy")
    }


async def ready(pages: str, *, within_s: float = PATIENCE_S) -> None:
    """Ask until the daemon is ready, as whoever started it would."""
    async with asyncio.timeout(within_s):
        while (await page(f"{pages}/readyz"))[0] != 200:
            await asyncio.sleep(0.05)


async def page(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()
