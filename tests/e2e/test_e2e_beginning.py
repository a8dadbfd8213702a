"""A signal before anything has begun: the program ends cleanly and at once, whatever it was still importing."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.programme import COMMAND, environment

STALLING = "import time\nprint('importing', flush=True)\nwhile True:\n    time.sleep(0.01)\n"
"""Not `signal.pause`: a signal in the moment before it begins to wait would be heard only after the next one."""


SCRIPT = (str(Path(COMMAND[0]).with_name("watcher")),)


@pytest.fixture(autouse=True)
def hangups_are_not_ignored() -> Iterator[None]:
    """Let programs inherit the default, which `nohup` in front of the tests takes away."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


async def importing(*words: str, folder: Path) -> asyncio.subprocess.Process:
    """Start the program and return once it imports a module, which never ends."""
    (folder / "typer.py").write_text(STALLING)
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env=environment() | {"PYTHONPATH": os.fspath(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"importing\n"
    return process


@pytest.mark.parametrize(
    ("entry", "command", "signals", "code"),
    [
        (COMMAND, "run", [signal.SIGTERM], 0),
        (COMMAND, "--help", [signal.SIGTERM], 128 + signal.SIGTERM),
        (SCRIPT, "demo", [signal.SIGINT], 0),
        (SCRIPT, "simulate", [signal.SIGINT], 128 + signal.SIGINT),
        (COMMAND, "demo", [signal.SIGHUP], -signal.SIGHUP),
        (COMMAND, "check", [signal.SIGHUP], -signal.SIGHUP),
        (COMMAND, "run", [signal.SIGHUP, signal.SIGTERM], 0),  # which reads its file later
    ],
)
async def test_a_signal_while_modules_are_imported_ends_it_without_a_word_but_a_hangup_no_daemon(
    entry: tuple[str, ...], command: str, signals: list[signal.Signals], code: int, tmp_path: Path
) -> None:
    process = await importing(*entry, command, folder=tmp_path)
    for signum in signals:
        process.send_signal(signum)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == code
