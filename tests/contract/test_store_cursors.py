"""What every store promises about pipelines that are watched whole: how far they are read, and what was found."""

from dataclasses import replace

import pytest
from contract.conftest import prune
from stores import (
    DAY_US,
    PIPELINE,
    SECOND_US,
    START_US,
    StoreRig,
    change,
    claim,
    due,
    execution_id,
    executions_of,
    pipeline_change,
    settle,
    upkeep,
)

from watcher.domain.execution import ExecutionRecord, LostReason
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.account_store import AccountStore
from watcher.store.changes import ExecutionChange, Lease, PipelineRecord
from watcher.store.sql_store import SqlStore

OTHER = "77aa0000-0000-4000-8000-000000000000"
LATER = Micros(START_US + 3_600 * SECOND_US)
CURSOR = Cursor(
    since_at=START_US, complete_at=LATER, refused="forbidden", found=True, name="Sales agent", total=7, dated=True
)


async def test_a_pipeline_remembers_how_far_it_was_read(rig: StoreRig) -> None:
    begun = Cursor(START_US)
    await rig.store.record(pipeline_change(rig.account, cursor=begun))
    assert await rig.owned.load_pipeline(PIPELINE) == PipelineRecord(0, begun)
    await rig.store.record(pipeline_change(rig.account, cursor=CURSOR))
    assert await rig.owned.load_pipeline(PIPELINE) == PipelineRecord(0, CURSOR)
    assert await rig.owned.load_pipeline(OTHER) == PipelineRecord(0, None)


async def test_old_events_of_a_pipeline_go_and_its_sequence_stays(rig: StoreRig) -> None:
    await rig.store.record(pipeline_change(rig.account, cursor=CURSOR, sinks=("ops",)))
    (delivery,) = await due(rig.ops)
    await settle(rig.ops, delivery)
    await prune(rig.store, before=Micros(rig.clock.us + 1), keep=lambda *_: True)
    await rig.store.record(pipeline_change(rig.account, before=1, cursor=CURSOR, sinks=("ops",)))
    assert (await rig.owned.load_pipeline(PIPELINE)).sequence == 2


async def test_what_a_list_found_is_recorded_before_it_is_reported(rig: StoreRig) -> None:
    found = ExecutionRecord(execution_id(1), PIPELINE, found_at=START_US)
    await rig.store.record(ExecutionChange(rig.account, None, found, ()))
    assert await executions_of(rig.store, rig.account) == [found]
    emitted = change(rig.account)
    await rig.store.record(replace(emitted, before=0, known=replace(emitted.known, found_at=START_US)))
    (known,) = await executions_of(rig.store, rig.account)
    assert (known.status, known.sequence, known.found_at) == ("running", 1, START_US)
    assert len(await due(rig.ops)) == 1


async def test_after_the_clock_was_set_back_nothing_was_found_or_complete_later_than_now(rig: StoreRig) -> None:
    """Else no row would be settled, and whole lists be read again and again, until the clock has caught up."""
    found = ExecutionRecord(execution_id(1), PIPELINE, found_at=LATER)
    await rig.store.record(ExecutionChange(rig.account, None, found, ()))
    await rig.store.record(pipeline_change(rig.account, cursor=replace(CURSOR, dated=False)))
    rig.clock.us = START_US - DAY_US
    (known,) = await executions_of(rig.store, rig.account)
    record = await rig.owned.load_pipeline(PIPELINE)
    assert record.cursor is not None
    assert known.found_at == record.cursor.complete_at == rig.clock.us


async def test_what_is_open_is_loaded_by_its_pipelines(rig: StoreRig) -> None:
    other = await claim(rig.store, "account", "other")
    elsewhere = change(rig.account, 3)
    await rig.record(1, found_at=5)
    await rig.record(2, status="success", end_seen_at=9)
    await rig.store.record(replace(elsewhere, known=replace(elsewhere.known, pipeline=OTHER)))
    await rig.store.record(change(other, 4))
    first, _, third = await executions_of(rig.store, rig.account)
    assert list(await rig.owned.load_open([PIPELINE])) == [first]
    both = await rig.owned.load_open([OTHER, PIPELINE])
    assert {each.execution for each in both} == {first.execution, third.execution}
    assert list(await rig.owned.load_open([])) == []
    assert list(await rig.owned.load_open(["88bb0000-0000-4000-8000-000000000000"])) == []


async def test_the_last_reported_ends_of_a_pipeline_are_loaded_by_end_time(rig: StoreRig) -> None:
    for number in range(1, 63):  # each was seen earlier than the one that ended before it
        seen_at, status = START_US - number, "failed" if number % 3 else "success"
        await rig.record(number, status=status, end_seen_at=seen_at, ended_at=START_US - 100 + number)
    await rig.record(70, 71, status="unheard_of", end_seen_at=START_US, ended_at=START_US + 1)
    await rig.record(80, status="failed", lost=LostReason.NOT_FOUND, end_seen_at=START_US, ended_at=START_US)
    history = change(rig.account, 81, sequence=0, status="success", end_seen_at=START_US, ended_at=START_US)
    await rig.store.record(replace(history, before=None, entries=()))
    await rig.record(82)
    rig.clock.us = START_US
    found = await rig.owned.load_ends([PIPELINE, OTHER])
    assert found == {
        PIPELINE: [
            *((START_US - 100 + number, "failed" if number % 3 else "success") for number in range(5, 63)),
            *[(START_US, "unheard_of")] * 2,
        ],
        OTHER: [],
    }


async def absent(store: SqlStore, *, at: int, present: tuple[tuple[str, str], ...] = ()) -> None:
    await (await upkeep(store)).mark_absent_pipelines(present=present, now=Micros(at))


async def cursor_of(store: SqlStore, account: Lease) -> Cursor | None:
    return (await AccountStore(store, account).load_pipeline(PIPELINE)).cursor


@pytest.mark.parametrize(("absent_us", "after"), [(DAY_US, CURSOR), (DAY_US + 1, None)])
async def test_one_that_returns_within_a_day_is_read_on(rig: StoreRig, absent_us: int, after: Cursor | None) -> None:
    await rig.store.record(pipeline_change(rig.account, cursor=CURSOR, sinks=()))
    await absent(rig.store, at=START_US)
    await absent(rig.store, at=START_US + 9)  # still absent, not anew
    rig.clock.us = START_US + absent_us
    assert await rig.owned.load_pipeline(PIPELINE) == PipelineRecord(1, after)


@pytest.mark.parametrize("present", [(), (("default", PIPELINE),)], ids=["absent", "present"])
async def test_a_long_absence_is_not_forgotten_if_noted(rig: StoreRig, present: tuple[tuple[str, str], ...]) -> None:
    await rig.store.record(pipeline_change(rig.account, cursor=CURSOR))
    await absent(rig.store, at=START_US)
    await absent(rig.store, at=START_US + DAY_US + 1, present=present)
    assert await cursor_of(rig.store, rig.account) is None
