import subprocess
import sys

import pytest

from watcher.cli.shell import ONE_SIGNAL_S

SIGNAL_ITSELF = """
import asyncio, os, signal, sys
from watcher.cli.shell import Interruption

async def main():
    interruption = Interruption()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(float(sys.argv[1]))
    os.kill(os.getpid(), signal.Signals[sys.argv[2]])
    await asyncio.sleep(0.2)  # it would be over by then
    print(interruption.stop.is_set())

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("wait_s", "second", "code"),
    [
        (0.0, "SIGTERM", 0),  # `timeout` signals a program and then its group
        (0.0, "SIGINT", 130),
        (2 * ONE_SIGNAL_S, "SIGTERM", 143),
    ],
)
def test_the_same_signal_twice_at_once_is_one(wait_s: float, second: str, code: int) -> None:
    command = [sys.executable, "-c", SIGNAL_ITSELF, str(wait_s), second]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "True\n" if code == 0 else "")
