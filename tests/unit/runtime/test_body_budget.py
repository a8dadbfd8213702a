"""What is received at once is bounded, and nobody waits for ever."""

import asyncio

from watcher.runtime.body_budget import BodyBudget


async def waits(task: asyncio.Task[None]) -> bool:
    """Let everything go on that can, and say whether that one cannot."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


async def test_whoever_finds_no_room_waits_until_somebody_leaves() -> None:
    budget = BodyBudget(10, first=1)
    await budget.hold("a", 6)
    await budget.hold("b", 4)
    growing = asyncio.create_task(budget.hold("c", 1))
    assert await waits(growing)
    budget.leave("b")
    await growing


async def test_the_first_get_on_in_any_case_and_then_whoever_is_next() -> None:
    budget = BodyBudget(10, first=2)
    await budget.hold("a", 50)
    await budget.hold("b", 50)
    third, fourth = (asyncio.create_task(budget.hold(name, 50)) for name in "cd")
    assert await waits(third)
    budget.leave("a")
    await third
    assert await waits(fourth)
    budget.leave("c")
    await fourth


async def test_a_holder_may_grow_and_counts_once() -> None:
    budget = BodyBudget(10, first=0)
    for size in range(10):
        await budget.hold("a", size)
    await budget.hold("b", 1)


async def test_whoever_gives_up_waiting_leaves_nothing_behind() -> None:
    budget = BodyBudget(10, first=1)
    await budget.hold("a", 10)
    growing = asyncio.create_task(budget.hold("b", 10))
    assert await waits(growing)
    growing.cancel()
    await asyncio.gather(growing, return_exceptions=True)
    budget.leave("b")
    budget.leave("a")
    budget.leave("a")
    await budget.hold("c", 10)
    await budget.hold("d", 0)
