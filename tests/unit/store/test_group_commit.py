import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain

import pytest

from watcher.domain.errors import StoreError
from watcher.store.database import DatabaseFault
from watcher.store.sql_store import GROUP_COUNT, MOST_TURNS, QUIET_TURNS, GroupWriter


class FullError(Exception):
    """Something that stands in the way of every write."""


@dataclass
class Disk:
    """Takes groups of numbers, unless one of them is bad, and gives each back as a negative."""

    bad: set[int] = field(default_factory=set)
    full: bool = False
    groups: list[list[int]] = field(default_factory=list)
    emitted: list[str] = field(default_factory=list)
    attempts: int = 0

    async def write(self, items: Sequence[int]) -> tuple[list[str], list[int]]:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.full:
            raise FullError
        if self.bad & set(items):
            raise ValueError("secret")
        self.groups.append(list(items))
        return ["ops"], [-item for item in items]

    def explain(self, error: Exception) -> DatabaseFault:
        return DatabaseFault(StoreError, type(error).__name__, concerns_all=isinstance(error, FullError))


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def writer(disk: Disk) -> AsyncIterator[GroupWriter[int, int]]:
    writer: GroupWriter[int, int] = GroupWriter(write=disk.write, explain=disk.explain, on_written=disk.emitted.extend)
    yield writer
    await writer.close()


async def write_all(writer: GroupWriter[int, int], count: int) -> list[int | BaseException]:
    return await asyncio.gather(*(writer.write(number) for number in range(count)), return_exceptions=True)


async def test_what_is_handed_in_together_is_written_together(disk: Disk, writer: GroupWriter[int, int]) -> None:
    assert await write_all(writer, 10) == [-number for number in range(10)]
    assert disk.groups == [list(range(10))]
    assert disk.emitted == ["ops"]


async def test_a_group_is_never_larger_than_its_limit(disk: Disk, writer: GroupWriter[int, int]) -> None:
    await write_all(writer, 600)
    assert [len(group) for group in disk.groups] == [GROUP_COUNT, GROUP_COUNT, 88]
    assert list(chain(*disk.groups)) == list(range(600))


async def hand_in_each_turn(writer: GroupWriter[int, int], count: int) -> None:
    writes = []
    for number in range(count):
        writes.append(asyncio.ensure_future(writer.write(number)))
        await asyncio.sleep(0)
    await asyncio.gather(*writes)


async def test_what_comes_turn_by_turn_is_gathered_but_not_for_ever(disk: Disk, writer: GroupWriter[int, int]) -> None:
    await hand_in_each_turn(writer, 20)
    assert [len(group) for group in disk.groups] == [20]
    await hand_in_each_turn(writer, 2 * MOST_TURNS)
    assert MOST_TURNS <= len(disk.groups[1]) <= MOST_TURNS + 2


async def test_what_comes_alone_is_not_kept_waiting(disk: Disk, writer: GroupWriter[int, int]) -> None:
    write = asyncio.ensure_future(writer.write(1))
    for _ in range(QUIET_TURNS + 3):  # to be handed in, taken and begun
        await asyncio.sleep(0)
    assert disk.attempts == 1
    await write


async def test_bad_writes_are_found_by_halving(disk: Disk, writer: GroupWriter[int, int]) -> None:
    disk.bad = {100}
    outcomes = await write_all(writer, GROUP_COUNT)
    assert [number for number, outcome in enumerate(outcomes) if outcome != -number] == [100]
    assert list(chain(*disk.groups)) == [number for number in range(GROUP_COUNT) if number != 100]
    assert disk.attempts == 17


async def test_what_stands_in_the_way_of_all_is_tried_once(disk: Disk, writer: GroupWriter[int, int]) -> None:
    disk.full = True
    outcomes = await write_all(writer, GROUP_COUNT)
    assert disk.attempts == 1
    assert len({id(outcome) for outcome in outcomes if isinstance(outcome, StoreError)}) == GROUP_COUNT
    disk.full = False
    assert await write_all(writer, 3) == [0, -1, -2]


async def test_whoever_is_notified_of_a_write_cannot_end_the_writing(disk: Disk) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context["message"]))

    def fail(_told: Collection[str]) -> None:
        raise RuntimeError

    writer: GroupWriter[int, int] = GroupWriter(write=disk.write, explain=disk.explain, on_written=fail)
    await writer.write(1)
    await writer.write(2)
    await writer.close()
    assert len(complaints) == 2


async def test_a_full_group_waits_for_nothing_more(disk: Disk, writer: GroupWriter[int, int]) -> None:
    writes = []
    for turn in range(MOST_TURNS):
        writes += [asyncio.ensure_future(writer.write(number)) for number in range(100 * turn, 100 * turn + 100)]
        await asyncio.sleep(0)
        if disk.attempts:
            break
    assert turn <= GROUP_COUNT // 100 + 2
    await asyncio.gather(*writes)
