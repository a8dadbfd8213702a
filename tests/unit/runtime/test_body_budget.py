"""What is received at once is bounded, and nobody waits for ever."""

import asyncio

from watcher.runtime.body_budget import Room


async def waits(task: asyncio.Task[None]) -> bool:
    """Let everything go on that can, and tell whether that one cannot."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


async def test_whoever_finds_no_room_waits_until_somebody_leaves() -> None:
    room = Room(10, first=1)
    await room.hold("a", 6)
    await room.hold("b", 4)
    growing = asyncio.create_task(room.hold("c", 1))
    assert await waits(growing)
    room.leave("b")
    await growing


async def test_the_first_get_on_in_any_case_and_then_whoever_is_next() -> None:
    room = Room(10, first=2)
    await room.hold("a", 50)
    await room.hold("b", 50)
    third, fourth = (asyncio.create_task(room.hold(name, 50)) for name in "cd")
    assert await waits(third)
    room.leave("a")
    await third
    assert await waits(fourth)
    room.leave("c")
    await fourth


async def test_a_holder_may_grow_and_counts_once() -> None:
    room = Room(10, first=0)
    for size in range(10):
        await room.hold("a", size)
    await room.hold("b", 1)


async def test_whoever_gives_up_waiting_leaves_nothing_behind() -> None:
    room = Room(10, first=1)
    await room.hold("a", 10)
    growing = asyncio.create_task(room.hold("b", 10))
    assert await waits(growing)
    growing.cancel()
    await asyncio.gather(growing, return_exceptions=True)
    room.leave("b")
    room.leave("a")
    room.leave("a")
    await room.hold("c", 10)
    await room.hold("d", 0)
