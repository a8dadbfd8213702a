"""Threads for what would hold up the event loop: in order, to its end, whoever still waits for it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from threading import Event

import pytest

from watcher.runtime.threads import WorkerThreads


@pytest.fixture
async def one() -> AsyncIterator[WorkerThreads]:
    threads = WorkerThreads("test")
    yield threads
    await threads.finish()


def fail() -> None:
    raise LookupError


async def test_what_the_work_returns_or_raises_comes_back(one: WorkerThreads) -> None:
    assert await one.run(lambda: 1) == 1
    with pytest.raises(LookupError):
        await one.run(fail)
    assert await one.run(lambda: 2) == 2


async def test_one_piece_is_done_after_the_other(one: WorkerThreads) -> None:
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
