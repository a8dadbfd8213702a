"""In how few transactions a store writes what is handed in, and what one bad write costs the others."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from stores import (
    LATER,
    attempt_record,
    change,
    claim,
    due,
    execution_id,
    executions_of,
    settle_all,
    sink_of,
)

from watcher.domain.errors import StoreError
from watcher.runtime.threads import WorkerThreads
from watcher.store.changes import Lease, Take, Turn
from watcher.store.sql_store import GROUP_COUNT, MOST_TURNS, QUIET_TURNS, SqlStore

Trips = list[object]


@pytest.fixture
async def account(store: SqlStore) -> Lease:
    lease = await claim(store, "account", "default")
    await store.record(change(lease, 9_999))  # what is named is numbered by now
    return lease


@pytest.fixture
def trips(store: SqlStore, account: Lease, monkeypatch: pytest.MonkeyPatch) -> Trips:
    """Return the transactions that are begun from now on."""
    write, begun = store.database.write, Trips()

    def note(work: Callable[[Any], Any]) -> Awaitable[Any]:
        begun.append(work)
        return write(work)

    monkeypatch.setattr(store.database, "write", note)
    return begun


async def record_all(store: SqlStore, account: Lease, count: int, **of_100: Any) -> list[int]:
    """Record so many at once; return the numbers of those that were refused."""
    changes = [change(account, number, **(of_100 if number == 100 else {})) for number in range(count)]
    outcomes = await asyncio.gather(*map(store.record, changes), return_exceptions=True)
    errors = [outcome for outcome in outcomes if outcome is not None]
    assert all(isinstance(error, StoreError) for error in errors)
    assert len({id(error) for error in errors}) == len(errors)
    return [number for number, outcome in enumerate(outcomes) if outcome is not None]


async def record_each_turn(store: SqlStore, account: Lease, numbers: range) -> None:
    writes = []
    for number in numbers:
        writes.append(store.record(change(account, number)))
        await asyncio.sleep(0)
    await asyncio.gather(*writes)


async def test_what_is_handed_in_together_is_written_together(store: SqlStore, account: Lease, trips: Trips) -> None:
    assert await record_all(store, account, 10) == []
    assert len(trips) == 1


async def test_a_group_is_never_larger_than_its_limit(store: SqlStore, account: Lease, trips: Trips) -> None:
    await record_all(store, account, 2 * GROUP_COUNT + 88)
    assert len(trips) == 3


async def test_what_comes_turn_by_turn_is_gathered_but_not_for_ever(
    store: SqlStore, account: Lease, trips: Trips
) -> None:
    await record_each_turn(store, account, range(20))
    assert len(trips) == 1
    await record_each_turn(store, account, range(20, 20 + 2 * MOST_TURNS))
    assert len(trips) > 2


async def test_what_comes_alone_is_not_kept_waiting(store: SqlStore, account: Lease, trips: Trips) -> None:
    write = store.record(change(account))
    for _ in range(QUIET_TURNS + 3):  # to be handed in, taken and begun
        await asyncio.sleep(0)
    assert len(trips) == 1
    await write


async def test_a_full_group_waits_for_nothing_more(store: SqlStore, account: Lease, trips: Trips) -> None:
    writes = []
    for turn in range(MOST_TURNS):
        writes += [store.record(change(account, number)) for number in range(100 * turn, 100 * turn + 100)]
        await asyncio.sleep(0)
        if trips:
            break
    assert turn <= GROUP_COUNT // 100 + 2
    await asyncio.gather(*writes)


async def test_bad_writes_are_found_by_halving(store: SqlStore, account: Lease, trips: Trips) -> None:
    assert await record_all(store, account, GROUP_COUNT, status="\ud800") == [100]
    assert len(trips) == 17
    recorded = {each.execution for each in await executions_of(store, account, count=GROUP_COUNT)}
    assert recorded == {execution_id(number) for number in range(GROUP_COUNT)} - {execution_id(100)}


async def test_what_stands_in_the_way_of_all_is_tried_once(
    store: SqlStore, account: Lease, trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(work: object) -> None:
        trips.append(work)
        cause = sqlite3.OperationalError()
        cause.sqlite_errorname = "SQLITE_FULL"
        raise OperationalError(None, None, cause)

    with monkeypatch.context() as full:
        full.setattr(store.database, "write", fail)
        assert len(await record_all(store, account, GROUP_COUNT)) == GROUP_COUNT
    assert len(trips) == 1
    assert await record_all(store, account, 3) == []


async def test_whoever_is_notified_of_a_write_cannot_end_the_writing(store: SqlStore, account: Lease) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context["message"]))

    def fail(_told: Collection[str]) -> None:
        raise RuntimeError

    store.on_recorded = fail
    for number in (1, 2):
        await store.record(change(account, number))
    await asyncio.sleep(0)
    assert len(complaints) == 2


async def test_an_event_that_is_recorded_and_delivered_takes_two_trips(
    store: SqlStore, account: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    ops = await sink_of(store)
    await settle_all(ops)
    await store.record(change(account, 1))
    trips, run = Trips(), WorkerThreads.run
    woken = asyncio.Event()
    store.wakes["ops"] = woken.set

    async def count(self: WorkerThreads, work: Any) -> object:
        trips.append(work)
        return await run(self, work)

    monkeypatch.setattr(WorkerThreads, "run", count)
    recorded = store.record(change(account, 2))
    await woken.wait()
    one, other = await due(ops)
    await recorded
    attempts = (attempt_record(one), attempt_record(other))
    await ops.record(Turn(ops.lease, attempts, take=Take(LATER, 1, frozenset())))
    assert len(trips) == len(("record and take", "settle and take"))
