"""Work in threads of its own, which may hang."""

import asyncio
import subprocess
import sys
import threading

import pytest

from watcher.aside import aside, begin


async def test_what_it_returns_is_returned() -> None:
    assert await aside(lambda: 7, name="work") == 7


async def test_what_it_raises_is_raised() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await aside(fail, name="work")


async def test_whoever_waits_may_leave() -> None:
    over = threading.Event()
    waiting = asyncio.create_task(aside(over.wait, name="work"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    over.set()


def test_an_outcome_nobody_is_there_for_any_more_is_no_error() -> None:
    over = threading.Event()

    async def leave() -> None:
        async with asyncio.timeout(0):
            await aside(over.wait, name="work")

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    last = begin(lambda: None, name="work")
    over.set()
    last.result(10)


HANGING = """
import asyncio, threading
from watcher.aside import aside

async def main():
    async with asyncio.timeout(0.01):
        await aside(threading.Event().wait, name="work")

asyncio.run(main())
"""


def test_what_hangs_keeps_no_process_from_ending() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, b"TimeoutError")
