"""Watches that change while the store is asked what it knows of them, and all goes on meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

import pytest
from virtual import (
    EPOCH,
    PIPELINE,
    RULES,
    WHOLE,
    Account,
    FakeClock,
    Start,
    account_of,
    name_of,
    pages_of,
    said,
    watch_of,
)

from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.watch import FirstSight, Watch
from watcher.store.changes import SourceChange, Taken
from watcher.store.recording import Item
from watcher.store.sql_store import SqlStore, Work

A, B, C = map(name_of, (10, 11, 12))
OTHER = Watch("default", "77aa0000-0000-4000-8000-000000000000", (), name="Onboarding")


T = TypeVar("T")


@dataclass
class HeldStore:
    """The real store, but what it read of executions, and an event without one, goes through only once it may."""

    store: SqlStore
    clock: FakeClock
    may: asyncio.Event = field(default_factory=asyncio.Event)
    was_read: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may.set()

    def __getattr__(self, name: str) -> Callable[..., object]:
        method: Callable[..., object] = getattr(self.store, name)
        return method

    async def read(self, work: Work[T]) -> T:
        return await self._held(await self.store.read(work))

    async def record(self, item: Item) -> Taken | None:
        await self._held(item, holds=isinstance(item, SourceChange) and item.rules is None and bool(item.entries))
        return await self.store.record(item)

    async def _held(self, found: T, *, holds: bool = True) -> T:
        if holds and not self.may.is_set():
            self.was_read.set()
            await self.may.wait()
        return found


async def changed(account: Account, held: HeldStore, *watches: Watch) -> asyncio.Task[None]:
    """Begin to change what is watched; return once the store was read."""
    held.may.clear()
    held.was_read.clear()
    changing = asyncio.create_task(account.watcher.watch(watches))
    await held.was_read.wait()
    return changing


def row(execution: str, status: str) -> ExecutionSnapshot:
    return ExecutionSnapshot(execution, status, started_at=EPOCH + timedelta(seconds=1001))


async def ended(changing: asyncio.Task[None], held: HeldStore) -> None:
    held.may.set()
    await changing


@pytest.fixture
def held(store: SqlStore, clock: FakeClock) -> HeldStore:
    return HeldStore(store, clock)


async def account_over(held: HeldStore, *watches: Watch) -> Account:
    account = await account_of(held, held.clock, watches=watches, rules=replace(RULES, first_sight=FirstSight.NOTIFY))  # type: ignore[arg-type]
    account.api.pipelines.add(OTHER.pipeline)
    await account.run_for(5)
    return account


@pytest.mark.parametrize("is_before", [True, False])  # what was read of it is handed out
@pytest.mark.parametrize("status", ["running", "success"])
async def test_what_a_list_shows_while_named_is_watched_once(held: HeldStore, status: str, *, is_before: bool) -> None:
    account = await account_over(held, WHOLE)
    changing = await changed(account, held, watch_of(A))
    held.was_read.clear()
    account.api.pages, account.api.script[A] = pages_of(row(A, status)), said(A, status)
    if is_before:
        await pass_by(account, held)
    else:
        held.clock.advance(2.0)
        await account.watcher.tick()
        await held.was_read.wait()  # now the scan has read as well, and waits as the change does
    await ended(changing, held)
    await follow_to_its_end(account)
    expected = ["execution.success"] if status == "success" else ["execution.running", "execution.success"]
    assert [type_ for type_, _, _ in await account.emitted()] == expected


async def test_several_changes_at_once_watch_what_is_open_once(held: HeldStore) -> None:
    account = await account_over(held, WHOLE)
    account.api.pages, account.api.script[A] = pages_of(row(A, "running")), said(A, "running")
    await account.run_for(5)
    await account.watcher.watch([OTHER])
    await account.run_for(5)
    first = await changed(account, held, WHOLE, OTHER)
    second = asyncio.create_task(account.watcher.watch([WHOLE]))
    await asyncio.sleep(0)
    await ended(first, held)
    await second
    assert list(account.watcher._list_poller._lists) == [PIPELINE]
    account.api.pages = {}
    await follow_to_its_end(account)
    emitted = [event["type"] for event in await account.events() if event.get("subject") == A]
    assert emitted == ["execution.running", "execution.success"]


@pytest.mark.parametrize("moved_to", [watch_of(A), WHOLE])
@pytest.mark.parametrize("status", ["running", "success"])
async def test_what_was_dropped_and_is_wanted_again_goes_on(held: HeldStore, moved_to: Watch, status: str) -> None:
    account = await account_over(held, watch_of(A))
    account.api.script[A] = said(A, "running")
    await account.run_for(70)
    account.api.gate.clear()
    await account.run_for(10)
    await account.watcher.watch([watch_of(B)])
    changing = await changed(account, held, moved_to)
    account.api.script[A] = said(A, status)
    account.api.gate.set()
    await account.settle()  # it has left
    account.api.pages = pages_of(row(A, status)) if moved_to.whole else {}
    await ended(changing, held)
    await follow_to_its_end(account)
    emitted = [type_ for type_, _, _ in await account.emitted()]
    assert [type_ for type_ in emitted if type_ != "execution.lost"] == ["execution.running", "execution.success"]


async def test_what_is_reported_nobody_when_a_list_shows_it_is_reported_once_it_is_named(held: HeldStore) -> None:
    account = await account_of(held, held.clock, watches=[WHOLE])  # type: ignore[arg-type]
    changing = await changed(account, held, watch_of(A))
    account.api.pages = pages_of(ExecutionSnapshot(A, "success", finished_at=EPOCH), ExecutionSnapshot(B, "running"))
    await pass_by(account, held)
    assert await account.emitted() == [("execution.running", "running", None)]
    await ended(changing, held)
    await follow_to_its_end(account)
    assert [type_ for type_, _, _ in await account.emitted()] == ["execution.success"]


async def test_a_list_that_is_watched_again_goes_on_behind_what_was_still_being_reported_of_it(held: HeldStore) -> None:
    account = await account_over(held, WHOLE)
    for _ in range(2):
        account.api.pages, account.api.script[A] = pages_of(row(A, "running")), said(A, "running")
        await account.run_for(620)  # a list that was refused is asked again
        account.api.pages = {1: Outcome.NOT_FOUND}  # a gap is to be reported
        held.may.clear()
        held.was_read.clear()
        running = asyncio.create_task(account.run_for(300))
        async with asyncio.timeout(10):
            await held.was_read.wait()
        held.may, first = asyncio.Event(), held.may
        held.may.set()
        await account.watcher.watch([OTHER])
        again = asyncio.create_task(account.watcher.watch([WHOLE]))
        await asyncio.wait([again], timeout=0.1)
        first.set()
        async with asyncio.timeout(10):
            await again
            await running
    assert account.fatal == []
    gaps = [event for event in await account.events() if event["type"] == "pipeline.gap"]
    of_this = [event["sequence"] for event in gaps if event["source"].endswith(PIPELINE)]
    assert of_this == ["0000000001", "0000000002"]


async def pass_by(account: Account, held: HeldStore) -> None:
    """Let all else go on while what was read for a change is held back."""
    held_back, held.may = held.may, asyncio.Event()
    held.may.set()
    await account.run_for(5)
    held.may = held_back


async def follow_to_its_end(account: Account) -> None:
    """Let A end, which nobody may ask for twice at once, nor hear of twice."""
    account.api.gate.clear()
    await account.run_for(20)
    account.api.gate.set()
    await account.settle()
    account.api.pages, account.api.script[A] = {}, said(A, "success")
    await account.run_for(200)
    assert (account.fatal, account.api.most_at_once.get(A, 0) <= 1) == ([], True)
    assert A not in account.watcher._registry.entries


# Watches that change while their executions are polled


async def test_an_execution_that_is_added_is_polled_and_one_that_is_removed_no_more(start: Start) -> None:
    account = await start(A)
    account.api.script[B] = said(B, "paused")
    await account.run_for(5)
    await account.watcher.watch([watch_of(B)])
    polled = len(account.api.times(A))
    await account.run_for(50)
    assert len(account.api.times(A)) == polled
    assert await account.emitted() == [("execution.running", "running", None), ("execution.paused", "paused", None)]


async def test_an_execution_that_is_watched_again_goes_on_from_what_was_reported(start: Start) -> None:
    account = await start(A)
    await account.run_for(5)
    await account.watcher.watch([])
    account.api.script[A] = said(A, "success")
    await account.run_for(500)
    await account.watcher.watch([watch_of(A)])
    await account.run_for(5)
    await account.watcher.watch([watch_of(A)])
    await account.run_for(500)
    first, last = await account.emitted()
    assert (first, last) == (("execution.running", "running", None), ("execution.success", "success", "running"))
    assert len(account.api.times(A)) == 7


async def test_labels_that_change_are_in_the_next_event_and_nothing_else_comes_of_it(start: Start) -> None:
    account = await start(A)
    await account.run_for(100)
    polled = len(account.api.asked)
    await account.watcher.watch([replace(watch_of(A), labels={"team": "ops"})])
    await account.run_for(0.5)
    assert len(account.api.asked) == polled
    account.api.script[A] = said(A, "failed")
    await account.run_for(60)
    assert [event["data"]["labels"]["team"] for event in await account.events()] == ["sales", "ops"]


async def test_one_that_is_removed_while_a_poll_is_under_way_is_let_go_when_it_is_back(start: Start) -> None:
    account = await start(A, B)
    account.api.gate.clear()
    await account.run_for(0.1)
    await account.watcher.watch([watch_of(B)])
    account.api.gate.set()
    await account.run_for(60)
    assert len(account.api.times(A)) == 1
    assert await account.emitted() == [("execution.running", "running", None)] * 2
    assert account.metrics.total("watcher_open_executions", account="default", status="running") == 1


async def test_those_polled_longest_ago_come_first_at_a_start(start: Start) -> None:
    account = await start(A, B, C)
    account.api.script[A] = said(A, "paused")
    await account.run_for(1)
    account.api.script[B] = said(B, "paused")
    await account.run_for(2)
    again = await start(A, B, C, rate_per_s=1.0)
    await again.run_for(5)
    assert [name for _, name in again.api.asked][:3] == [A, C, B]


async def test_a_refused_key_is_tried_at_once_when_the_configuration_is_read_anew(start: Start) -> None:
    account = await start(A)
    account.api.script[A] = Outcome.UNAUTHORIZED
    await account.run_for(5)
    polled = len(account.api.asked)
    await account.watcher.watch([watch_of(A)])
    await account.run_for(5)
    assert len(account.api.asked) == polled + 1
