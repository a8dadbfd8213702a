"""Work in threads of its own, which may hang."""

import asyncio
import subprocess
import sys
import threading

import pytest

from watcher.runtime.threads import DetachedExecutor, begin, run_detached


def test_an_outcome_nobody_is_there_for_any_more_is_no_error() -> None:
    over = threading.Event()

    async def leave() -> None:
        async with asyncio.timeout(0):
            await run_detached(over.wait, name="work")

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    last = begin(lambda: None, name="work")
    over.set()
    last.result(10)


def test_an_executor_of_such_threads_does_what_it_is_given() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(DetachedExecutor())
        return await loop.run_in_executor(None, lambda: 7)

    assert asyncio.run(main()) == 7


HANGING = """
import asyncio, threading
from watcher.runtime.threads import DetachedExecutor, run_detached

async def main():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(DetachedExecutor())
    async with asyncio.timeout(0.01):
        await {work}

asyncio.run(main())
"""


@pytest.mark.untraced  # much longer with coverage, which others give
@pytest.mark.parametrize(
    "work", ['run_detached(threading.Event().wait, name="work")', "loop.run_in_executor(None, threading.Event().wait)"]
)
def test_what_hangs_keeps_no_process_from_ending(work: str) -> None:
    script = HANGING.format(work=work)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, b"TimeoutError")
