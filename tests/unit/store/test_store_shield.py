import asyncio

import pytest

from watcher.store.shield import Shield


async def test_work_goes_on_when_its_caller_is_cancelled() -> None:
    shield, begun, may_end = Shield(), asyncio.Event(), asyncio.Event()
    ended = []

    async def work() -> None:
        begun.set()
        await may_end.wait()
        ended.append(True)

    caller = asyncio.create_task(shield.run(work()))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    drained = asyncio.create_task(shield.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    may_end.set()
    await drained
    assert ended == [True]


async def test_work_that_is_itself_cancelled_is_let_go() -> None:
    shield = Shield()

    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await shield.run(work())
    await shield.drain()
