"""Work in threads of its own, which may hang; tasks that nobody awaits, and waits with a limit."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from threading import Event

import pytest

from watcher.runtime.tasks import start_task, stop_task, wait_at_most
from watcher.runtime.threads import DetachedExecutor, WorkerThreads, begin, run_detached


def test_an_executor_does_what_it_is_given_whoever_is_there_for_it() -> None:
    over = threading.Event()

    async def leave() -> None:
        async with asyncio.timeout(0):
            await run_detached(over.wait, name="work")

    with pytest.raises(TimeoutError):
        asyncio.run(leave())
    last = begin(lambda: None, name="work")
    over.set()
    last.result(10)

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


@pytest.mark.parametrize(
    "work", ['run_detached(threading.Event().wait, name="work")', "loop.run_in_executor(None, threading.Event().wait)"]
)
def test_what_hangs_keeps_no_process_from_ending(work: str) -> None:
    script = HANGING.format(work=work)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, b"TimeoutError")


# Threads that do one piece of work after the other


@pytest.fixture
async def one() -> AsyncIterator[WorkerThreads]:
    threads = WorkerThreads("test")
    yield threads
    await threads.finish()


def fail() -> None:
    raise LookupError


async def test_what_the_work_returns_or_raises_comes_back_one_piece_after_the_other(one: WorkerThreads) -> None:
    assert await one.run(lambda: 1) == 1
    with pytest.raises(LookupError):
        await one.run(fail)
    assert await one.run(lambda: 2) == 2
    done: list[int] = []
    await asyncio.gather(*(one.run(partial(done.append, number)) for number in range(100)))
    assert done == list(range(100))


async def test_work_goes_on_when_its_caller_is_cancelled(one: WorkerThreads) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    may_go_on = Event()
    done: list[int] = []
    pieces: list[Callable[[], object]] = [may_go_on.wait, fail, partial(done.append, 1)]
    tasks = [one.run(work) for work in pieces]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True, True, True]
    may_go_on.set()
    await one.finish()
    await asyncio.sleep(0)
    assert done == [1]
    assert complaints == []


async def test_what_hangs_in_one_of_several_holds_up_itself_alone() -> None:
    two, may_go_on = WorkerThreads("test", count=2), Event()
    hanging = two.run(may_go_on.wait)
    assert await two.run(lambda: 1) == 1
    closing = asyncio.create_task(two.finish())
    await asyncio.sleep(0.01)
    assert not closing.done()
    may_go_on.set()
    await closing
    assert hanging.done()


def test_what_ends_after_the_loop_is_reported_to_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    may_go_on, going = Event(), Event()

    def hang() -> None:
        going.set()
        may_go_on.wait()

    async def leave_behind() -> None:
        threads = WorkerThreads("test")
        threads.run(hang).cancel()
        left = threads.run(hang)
        await asyncio.to_thread(going.wait)
        left.cancel()

    asyncio.run(leave_behind())
    may_go_on.set()
    assert capfd.readouterr().err == ""


async def test_only_the_error_of_a_task_is_passed_on_and_not_its_end_or_its_cancellation() -> None:
    failed, errors = ValueError(), list[BaseException]()

    async def fail() -> None:
        raise failed

    await asyncio.wait([start_task(fail(), fatal=errors.append), start_task(asyncio.sleep(0), fatal=errors.append)])
    await stop_task(start_task(asyncio.sleep(1000), fatal=errors.append))
    assert errors == [failed]


async def test_a_stopped_task_has_ended_and_a_wait_ends_after_its_time() -> None:
    task = asyncio.create_task(asyncio.sleep(1000))
    await stop_task(task)
    await stop_task(None)
    assert task.cancelled()
    asked = asyncio.Event()
    assert await wait_at_most(1000, asyncio.sleep(0, "done")) == "done"
    assert await wait_at_most(0, asked.wait()) is None
