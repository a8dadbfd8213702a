"""A signal before anything has begun: the program ends cleanly and at once, whatever it was still importing."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from e2e.programme import COMMAND, environment

STALLING = "import signal\nprint('importing', flush=True)\nsignal.pause()\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["run", "demo", "simulate", "--help"])
@pytest.mark.parametrize("entry", [COMMAND, (str(Path(COMMAND[0]).with_name("watcher")),)])
async def test_a_signal_while_modules_are_imported_ends_it_without_a_word(
    entry: tuple[str, ...], command: str, signum: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "typer.py").write_text(STALLING)
    process = await asyncio.create_subprocess_exec(
        *entry,
        command,
        cwd=tmp_path,
        env=environment(measured=True) | {"PYTHONPATH": os.fspath(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"importing\n"
    process.send_signal(signum)
    said = await process.communicate()
    assert said == (b"", b"")
    assert process.returncode == (0 if command in {"run", "demo"} else 128 + signum)
