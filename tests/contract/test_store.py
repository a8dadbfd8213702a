"""The promises of every store, over each kind of database."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest
from contract.conftest import on_both, prune
from pydantic import TypeAdapter
from sqlalchemy import select
from stores import (
    DAY_US,
    LATER,
    PIPELINE,
    SECOND_US,
    START_US,
    StoreRig,
    backlog_of,
    change,
    claim,
    closed,
    due,
    execution_id,
    executions_of,
    names,
    of,
    opened,
    overdue,
    settle,
    settle_all,
    sink_of,
    source_change,
    upkeep,
)

from watcher.domain.delivery import DeliveryState
from watcher.domain.errors import OwnershipLostError, SequenceConflictError, StoreError
from watcher.domain.execution import ExecutionRecord, LostReason
from watcher.domain.snapshots import AccountSnapshot, PipelineSnapshot, SinkSnapshot
from watcher.domain.timestamps import Micros
from watcher.store.account_store import AccountStore
from watcher.store.changes import Backlog, BackoffState, Lease, Turn
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore, open_store
from watcher.store.tables import snapshot

DEAD, WAITING = DeliveryState.DEAD, DeliveryState.WAITING
NO_BACKOFF = BackoffState()


def hold(_account: str, _pipeline: str, _execution: str, _ended_at: int) -> bool:
    return True


@on_both
async def test_a_recorded_execution_is_loaded_as_it_was(rig: StoreRig) -> None:
    known = ExecutionRecord(
        execution=execution_id(1),
        pipeline=PIPELINE,
        status="odd",
        since_at=Micros(1),
        polled_at=Micros(2),
        sequence=1,
        counts=(("running", 2), ("unrecognized:a,b=c", 1), ("new", 1)),
        overdue_sequence=1,
        lost=LostReason.FORBIDDEN,
        lost_at=Micros(3),
        end_seen_at=Micros(4),
        was_paused=True,
    )
    await rig.store.record(replace(change(rig.account), known=known))
    record = await rig.owned.load_account()
    assert await executions_of(rig.store, rig.account) == [known]
    assert (record.sequence, record.trouble) == (0, None)


@pytest.mark.parametrize("sequence", [1, 2, 4])
async def test_a_change_from_another_sequence_is_lost_and_writes_nothing(rig: StoreRig, sequence: int) -> None:
    for recorded in (1, 2):
        await rig.record(sequence=recorded)
    with pytest.raises(SequenceConflictError):
        await rig.record(sequence=sequence, status="failed")
    assert [each.status for each in await executions_of(rig.store, rig.account)] == ["running"]
    assert (await backlog_of(rig.store))["ops"].pending_count == 2


async def test_who_lost_the_lease_writes_nothing(rig: StoreRig) -> None:
    await rig.record()
    (delivery,) = await due(rig.ops)
    winner = await claim(rig.store, "account", rig.account.name)
    sink_winner = await sink_of(rig.store)
    for write in (
        rig.record(sequence=2),
        rig.record(2),
        rig.store.record(source_change(rig.account)),
        rig.store.record(source_change(rig.ops.lease, sinks=())),
        rig.owned.save_poll_times({execution_id(1): LATER}),
        rig.owned.save_backoff(BackoffState(60.0, 40.0)),
        rig.owned.save_snapshot(AccountSnapshot(1.0, 0.0, 0.0)),
        rig.ops.save_snapshot(SinkSnapshot("204")),
        rig.ops.record(Turn(rig.ops.lease, backoff=BackoffState(60.0, 40.0), clock_s=9.0)),
        settle(rig.ops, delivery),
        rig.ops.record(Turn(rig.ops.lease, calls_forward=True)),
        rig.ops.release(),
        rig.ops.load(fingerprint="x"),
        rig.ops.enable(),
        rig.owned.load_pipeline(PIPELINE),
        rig.ops.give_up(clock_s=10.0, after_s=5.0, skip=(), group_wait_s=0.0),
    ):
        with pytest.raises(OwnershipLostError):
            await write
    assert [(each.sequence, each.polled_at) for each in await executions_of(rig.store, winner)] == [(1, START_US)]
    record = await AccountStore(rig.store, winner).load_account()
    assert (record.sequence, record.backoff, record.snapshot) == (0, NO_BACKOFF, None)
    assert await due(sink_winner) == [delivery]


async def test_of_how_an_account_and_a_sink_stand_the_last_is_kept(rig: StoreRig) -> None:
    pipeline = PipelineSnapshot({"running": 2}, {"running": START_US}, "sf", START_US, LATER, LATER, START_US)
    several = [AccountSnapshot(1.0, 0.5, 0.0), AccountSnapshot(2.0, 1.5, 30.0, {PIPELINE: pipeline})]
    failing = SinkSnapshot("503", START_US, LATER, has_failed=True)
    await rig.owned.load_account()  # so that all is written together
    await asyncio.gather(*map(rig.owned.save_snapshot, several), rig.ops.save_snapshot(failing))
    assert (await rig.owned.load_account()).snapshot == several[1]
    await rig.owned.save_snapshot(several[0])
    assert (await rig.owned.load_account()).snapshot == several[0]
    every = select(snapshot.c.body).order_by(snapshot.c.source_id)
    bodies = await rig.store.read(lambda connection: list(connection.scalars(every)))
    assert failing in [TypeAdapter(SinkSnapshot).validate_json(body) for body in bodies if b"last_success_at" in body]


async def test_polls_are_kept_and_never_go_back(rig: StoreRig) -> None:
    rig.clock.us = LATER
    await rig.record(1)
    await rig.record(2, polled_at=LATER)
    await rig.owned.save_poll_times({execution_id(1): LATER, execution_id(2): START_US, execution_id(3): LATER})
    assert {each.polled_at for each in await executions_of(rig.store, rig.account)} == {LATER}


async def test_a_delivery_carries_the_event_as_it_was_recorded(rig: StoreRig) -> None:
    rig.clock.wall_offset_s = 86_400.0  # a clock somebody sets does not reach what decides
    recorded = change(rig.account)
    await rig.store.record(recorded)
    (delivery,) = await due(rig.ops)
    emitted = recorded.entries[0].event
    assert (delivery.event_id, delivery.type, delivery.body) == (emitted.id, emitted.type, emitted.body)
    assert (delivery.ordering_key, delivery.group_key, delivery.sink) == (emitted.ordering_key, None, "ops")
    assert (delivery.recorded_at, delivery.due_at) == (rig.clock.us, rig.clock.us)
    assert (delivery.attempts, delivery.rejections, delivery.replayed) == (0, 0, False)
    assert (delivery.tried_at, delivery.first_due_at_s) == (0, None)


async def test_a_sink_that_was_sent_an_event_is_also_sent_the_one_that_ends_it(rig: StoreRig) -> None:
    log = await sink_of(rig.store, "log")
    await rig.record(sinks=("ops", "log"), problems=opened(overdue(1)))
    rig.woken.names.clear()
    await rig.record(sequence=2, sinks=("ops",), problems=closed(overdue(1)))
    assert set(rig.woken.names) == {"log", "ops"}
    for sink in (rig.ops, log):
        await settle(sink, *await due(sink))
        (end,) = await due(sink)
        assert (names([end]), end.only_closes) == ([of(1, sequence=2)], sink is log)


async def test_the_end_of_an_event_of_the_same_group_finds_its_sinks(rig: StoreRig) -> None:
    opens, ends = opened(overdue(1)), closed(overdue(1))
    both = [rig.record(sinks=("log",), problems=opens), rig.record(sequence=2, sinks=(), problems=ends)]
    await asyncio.gather(*both)
    assert (await backlog_of(rig.store))["log"].pending_count == 2


async def test_sinks_are_woken_when_it_is_handed_in_and_those_that_took_nothing_once_more(rig: StoreRig) -> None:
    recorded = asyncio.gather(rig.record(1, sinks=("ops", "log")), rig.record(2, sinks=("ops",)))
    await asyncio.sleep(0)
    assert sorted(rig.woken.names) == ["log", "ops", "ops"]
    rig.woken.names.clear()
    taken = await due(rig.ops)
    await recorded
    assert (names(taken), rig.woken.names) == ([of(1), of(2)], ["log"])


@on_both
async def test_one_bad_write_of_a_group_harms_no_other(rig: StoreRig) -> None:
    await rig.record(3)
    stolen = await claim(rig.store, "account", "stolen")
    await claim(rig.store, "account", "stolen")
    bad = {
        2: change(rig.account, 2, status="\ud800"),
        3: change(rig.account, 3),
        5: change(stolen, 5),
        6: change(rig.account, 6, since_at=1 << 70),
    }
    writes = [rig.store.record(bad.get(number, change(rig.account, number))) for number in range(8)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    errors = {number: type(outcome) for number, outcome in enumerate(outcomes) if outcome is not None}
    assert errors == {2: StoreError, 3: SequenceConflictError, 5: OwnershipLostError, 6: StoreError}
    assert sorted(names(await due(rig.ops))) == sorted(of(number) for number in (0, 1, 3, 4, 7))


async def test_a_cancelled_caller_leaves_its_write_and_the_store_whole(rig: StoreRig) -> None:
    writes = [asyncio.ensure_future(rig.record(number)) for number in range(300)]
    await asyncio.sleep(0)
    for write in writes[:150]:
        write.cancel()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 150
    await rig.record(300)
    assert len(await due(rig.ops, count=999)) == 301


async def test_closing_finishes_what_was_handed_in(rig: StoreRig, url: str) -> None:
    writes = [asyncio.ensure_future(rig.record(number)) for number in range(300)]
    await asyncio.sleep(0)
    await rig.store.close()
    assert all(write.done() and write.exception() is None for write in writes)
    again = await open_store(url, clock=rig.clock)
    assert len(await due(await sink_of(again), count=999)) == 300
    await again.close()


async def test_a_closed_store_refuses_and_may_be_closed_again(rig: StoreRig) -> None:
    await rig.store.close()
    for use in (partial(rig.store.record, change(rig.account)), rig.owned.load_account, partial(backlog_of, rig.store)):
        with pytest.raises(StoreError):
            await use()
    await rig.store.close()


async def test_the_deliveries_of_a_sink_gone_for_a_day_die(rig: StoreRig) -> None:
    log = await sink_of(rig.store, "log")
    for number in range(3):
        await rig.record(number, sinks=("ops", "log"))
    tidied = await upkeep(rig.store)
    died = [
        await tidied.mark_absent_sinks(present=["log"], now=Micros(START_US + late_us), dead_after_us=DAY_US)
        for late_us in (0, DAY_US - 1, DAY_US, DAY_US)
    ]
    assert died == [0, 0, 3, 0]
    assert await due(rig.ops) == []
    assert len(await due(log)) == 3


async def test_the_backlog_counts_what_waits_and_finds_the_oldest(rig: StoreRig) -> None:
    for number in (1, 2, 3):
        await rig.record(number, sinks=("ops", "log"))
        rig.clock.us += SECOND_US
    await settle(rig.ops, (await due(rig.ops))[0])
    first, second, third = (Micros(START_US + nth * SECOND_US) for nth in range(3))
    assert await backlog_of(rig.store) == {"ops": Backlog(2, second, second), "log": Backlog(3, first, first)}
    head = (await due(rig.ops, now=LATER))[0]
    await settle(rig.ops, replace(head, due_at=LATER), state=DeliveryState.WAITING, answer="400")
    assert (await backlog_of(rig.store))["ops"] == Backlog(2, second, third)  # what failed is due at its next attempt


async def emitted_and_settled(store: SqlStore, account: Lease, ops: SinkStore, *, end: DeliveryState) -> None:
    """Record an execution that ends at `START_US` with two events, and settle both."""
    await store.record(change(account))
    await store.record(change(account, sequence=2, status="success", end_seen_at=START_US))
    await settle_all(ops, state=end)


@on_both
async def test_what_ended_long_ago_goes(rig: StoreRig) -> None:
    await emitted_and_settled(rig.store, rig.account, rig.ops, end=DeliveryState.DELIVERED)
    assert await prune(rig.store, before=START_US) == 0
    assert await prune(rig.store, before=START_US + 1) == 1
    assert await executions_of(rig.store, rig.account) == []
    await rig.record()  # nothing of it is left that a new beginning could collide with
    assert names(await due(rig.ops)) == [of(1)]


async def test_what_is_kept_leaves_its_id_behind_and_no_events(rig: StoreRig) -> None:
    asked = []

    def keep(account: str, pipeline: str, execution: str, ended_at: int) -> bool:
        asked.append((account, pipeline, execution, ended_at))
        return True

    await emitted_and_settled(rig.store, rig.account, rig.ops, end=DeliveryState.DELIVERED)
    assert await prune(rig.store, before=LATER, keep=keep) == 1
    assert asked == [("default", PIPELINE, execution_id(1), START_US)]
    assert await prune(rig.store, before=LATER, keep=hold) == 0
    (known,) = await executions_of(rig.store, rig.account)
    assert (known.sequence, known.end_seen_at) == (2, START_US)
    with pytest.raises(SequenceConflictError):
        await rig.record()
    assert await prune(rig.store, before=LATER) == 0
    assert await executions_of(rig.store, rig.account) == []


async def test_what_waits_stays_for_ever_with_its_execution(rig: StoreRig) -> None:
    await rig.record()
    await rig.record(sequence=2, end_seen_at=START_US)
    (delivery,) = await due(rig.ops)
    await settle(rig.ops, delivery)
    assert await prune(rig.store, before=START_US + 999 * DAY_US) == 0
    assert names(await due(rig.ops)) == [of(1, sequence=2)]
    assert len(await executions_of(rig.store, rig.account)) == 1


async def test_a_dead_letter_stays_as_long_again_from_its_death(rig: StoreRig) -> None:
    rig.clock.us = START_US + 5 * DAY_US
    await emitted_and_settled(rig.store, rig.account, rig.ops, end=DEAD)
    assert await prune(rig.store, before=START_US + 5 * DAY_US) == 0
    assert len(await executions_of(rig.store, rig.account)) == 1
    assert await prune(rig.store, before=START_US + 5 * DAY_US + 1) == 1


async def test_many_executions_are_pruned_page_by_page(rig: StoreRig) -> None:
    await asyncio.gather(*(rig.record(number, sinks=(), end_seen_at=START_US) for number in range(600)))
    steps = (await upkeep(rig.store)).prune(ended_before=LATER, keep=lambda _a, _p, name, _at: name == execution_id(1))
    assert [count async for count in steps if count] == [250, 250, 100]
    assert [each.execution for each in await executions_of(rig.store, rig.account)] == [execution_id(1)]


async def test_old_events_of_accounts_and_sinks_go_once_nothing_of_them_waits(rig: StoreRig) -> None:
    await rig.store.record(source_change(rig.account))
    rig.clock.us += DAY_US
    await rig.store.record(source_change(rig.account, sequence=2, sinks=()))
    await prune(rig.store, before=START_US + 1)
    (delivery,) = await due(rig.ops)
    await settle(rig.ops, delivery)
    await prune(rig.store, before=START_US + 1)
    record = await rig.owned.load_account()
    assert (record.sequence, record.trouble) == (2, "unreachable")
    await rig.store.record(source_change(rig.account, sequence=3))
