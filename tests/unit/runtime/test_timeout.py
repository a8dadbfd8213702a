"""One time limit over many tasks."""

import asyncio
from contextlib import suppress

import pytest

from watcher.runtime.http_client import TimeLimit

LIMIT_S = 0.02


async def hang(limit: TimeLimit) -> float:
    """Return how long it took until the limit ended it."""
    begun_at = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), limit:
        await asyncio.Event().wait()
    return asyncio.get_running_loop().time() - begun_at


async def test_what_takes_too_long_is_interrupted_not_before_its_time() -> None:
    assert await hang(TimeLimit(LIMIT_S)) >= LIMIT_S


async def test_what_is_done_in_time_is_left_alone() -> None:
    limit = TimeLimit(LIMIT_S)
    with limit:
        await asyncio.sleep(0)
    assert await hang(limit) >= LIMIT_S  # the timer of the first is over by then, and hits nobody


async def test_several_at_once_have_each_their_own_time() -> None:
    limit = TimeLimit(LIMIT_S)
    first = asyncio.create_task(hang(limit))
    with suppress(TimeoutError), limit:  # on a machine that stalls it may take too long, too
        await asyncio.sleep(LIMIT_S / 2)
    second = asyncio.create_task(hang(limit))
    assert min(await asyncio.gather(first, second)) >= LIMIT_S


async def test_what_began_in_the_same_moment_ends_in_the_same() -> None:
    limit = TimeLimit(LIMIT_S)
    assert min(await asyncio.gather(*(hang(limit) for _ in range(5)))) >= LIMIT_S


async def test_the_error_says_that_the_task_goes_on() -> None:
    await hang(TimeLimit(LIMIT_S))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_from_elsewhere_comes_through() -> None:
    task = asyncio.create_task(hang(TimeLimit(LIMIT_S)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_that_comes_while_time_runs_out_wins() -> None:
    limit, interrupted = TimeLimit(LIMIT_S), asyncio.Event()

    async def tidy_up_slowly() -> None:
        with limit:
            try:
                await asyncio.Event().wait()
            finally:
                interrupted.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(tidy_up_slowly())
    await interrupted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_interrupted_once_and_takes_its_time_is_not_interrupted_again() -> None:
    limit, interruptions = TimeLimit(LIMIT_S), 0

    async def be_stubborn() -> None:
        nonlocal interruptions
        with limit:
            for _ in range(2):
                try:
                    await asyncio.wait_for(asyncio.Event().wait(), 3 * LIMIT_S)
                except asyncio.CancelledError:
                    interruptions += 1
                except TimeoutError:
                    return

    stubborn = asyncio.create_task(be_stubborn())
    await hang(limit)
    await hang(limit)
    await stubborn
    assert interruptions == 1
