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


@pytest.mark.untraced  # much longer with coverage, which others give
@pytest.mark.parametrize(
    ("entry", "command", "signum"),
    [
        (COMMAND, "run", signal.SIGTERM),
        (COMMAND, "--help", signal.SIGTERM),
        (SCRIPT, "demo", signal.SIGINT),
        (SCRIPT, "simulate", signal.SIGINT),
    ],
)
async def test_a_signal_while_modules_are_imported_ends_it_without_a_word(
    entry: tuple[str, ...], command: str, signum: signal.Signals, tmp_path: Path
) -> None:
    process = await importing(*entry, command, folder=tmp_path)
    process.send_signal(signum)
    said = await process.communicate()
    assert said == (b"", b"")
    assert process.returncode == (0 if command in {"run", "demo"} else 128 + signum)


@pytest.mark.parametrize("command", ["demo", "check"])
async def test_a_hangup_that_early_ends_a_command(command: str, tmp_path: Path) -> None:
    process = await importing(*COMMAND, command, folder=tmp_path)
    process.send_signal(signal.SIGHUP)
    await process.communicate()
    assert process.returncode == -signal.SIGHUP


async def test_a_hangup_that_early_does_not_end_the_daemon_which_reads_its_file_later(tmp_path: Path) -> None:
    process = await importing(*COMMAND, "run", folder=tmp_path)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0
