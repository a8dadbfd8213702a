"""What every store promises (`ports.store.SqlStore`), run over each kind of database."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
from stores import (
    DAY_US,
    PIPELINE,
    SECOND_US,
    START_US,
    SetClock,
    Woken,
    attempt_record,
    change,
    execution_id,
    executions_of,
    source_change,
    stream_of,
    upkeep,
)

from watcher.domain.delivery import DeliveryState
from watcher.domain.errors import OwnershipLostError, SequenceConflictError, StoreError
from watcher.domain.execution import ExecutionRecord, LostReason
from watcher.domain.timestamps import Micros
from watcher.store.changes import NO_BACKOFF, BackoffState, Lease
from watcher.store.open import open_store
from watcher.store.protocol import Keep
from watcher.store.records import Backlog
from watcher.store.sql_store import SqlStore

DEAD, WAITING = DeliveryState.DEAD, DeliveryState.WAITING
LATER = Micros(START_US + 3_600 * SECOND_US)


async def due(
    store: SqlStore, lease: Lease, *, now: int = LATER, limit: int = 100, skip: Collection[bytes] = ()
) -> list[tuple[bytes, int]]:
    found = await store.next_deliveries(lease, now=Micros(now), limit=limit, skip=skip)
    return [(each.stream, each.sequence) for each in found.deliveries]


def of(number: int, *, sequence: int = 1) -> tuple[bytes, int]:
    return stream_of(execution_id(number)), sequence


def drop(_account: str, _pipeline: str, _execution: str, _ended_at: int) -> bool:
    return False


def hold(_account: str, _pipeline: str, _execution: str, _ended_at: int) -> bool:
    return True


async def test_a_recorded_execution_is_loaded_as_it_was(store: SqlStore, account: Lease) -> None:
    known = ExecutionRecord(
        execution=execution_id(1),
        pipeline=PIPELINE,
        status="odd",
        since_at=Micros(1),
        polled_at=Micros(2),
        sequence=1,
        counts=(("running", 2), ("unrecognized:odd", 1)),
        overdue_sequence=1,
        lost=LostReason.FORBIDDEN,
        lost_at=Micros(3),
        ended_at=Micros(4),
        was_paused=True,
    )
    await store.record(replace(change(account), known=known))
    record = await store.load_account(account)
    assert await executions_of(store, account) == [known]
    assert (record.sequence, record.trouble) == (0, None)


async def test_an_execution_never_seen_is_loaded_as_it_was(store: SqlStore, account: Lease) -> None:
    known = ExecutionRecord(execution_id(1), PIPELINE)
    await store.record(replace(change(account), known=known, entries=()))
    assert await executions_of(store, account) == [known]


async def test_an_account_sees_its_own_executions_only(store: SqlStore, account: Lease) -> None:
    other = await store.claim("account", "other/with a slash")
    await store.record(change(account, 1))
    await store.record(change(other, 2))
    assert [(each.execution, each.pipeline) for each in await executions_of(store, other)] == [
        (execution_id(2), PIPELINE)
    ]


async def test_executions_with_the_same_history_share_it(store: SqlStore, account: Lease) -> None:
    for number in (1, 2):
        await store.record(change(account, number, counts=(("running", 1),)))
    one, other = await executions_of(store, account)
    assert one.counts is other.counts
    assert one.status is other.status


async def test_a_change_replaces_what_was_recorded(store: SqlStore, account: Lease) -> None:
    await store.record(change(account, status="running"))
    await store.record(change(account, sequence=2, status="success", ended_at=9))
    (known,) = await executions_of(store, account)
    assert (known.status, known.sequence, known.ended_at) == ("success", 2, 9)


async def test_state_survives_a_restart(store: SqlStore, account: Lease, ops: Lease, url: str, clock: SetClock) -> None:
    await store.record(change(account))
    await store.close()
    again = await open_store(url, clock=clock, on_recorded=Woken())
    assert len(await executions_of(again, await again.claim("account", "default"))) == 1
    assert await due(again, await again.claim("sink", ops.name)) == [of(1)]
    await again.close()


async def test_a_first_sight_of_what_is_recorded_is_lost_and_writes_nothing(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    await store.record(change(account, status="running"))
    with pytest.raises(SequenceConflictError):
        await store.record(change(account, status="failed"))
    assert [each.status for each in await executions_of(store, account)] == ["running"]
    assert await due(store, ops) == [of(1)]


@pytest.mark.parametrize("sequence", [2, 4])
async def test_a_change_from_another_sequence_is_lost_and_writes_nothing(
    store: SqlStore, account: Lease, ops: Lease, sequence: int
) -> None:
    for recorded in (1, 2):
        await store.record(change(account, sequence=recorded))
    with pytest.raises(SequenceConflictError):
        await store.record(change(account, sequence=sequence, status="failed"))
    assert [each.status for each in await executions_of(store, account)] == ["running"]
    assert (await store.backlog())[ops.name].pending_count == 2


async def test_who_lost_the_lease_writes_nothing(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    (delivery,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    winner = await store.claim("account", account.name)
    sink_winner = await store.claim("sink", ops.name)
    for write in (
        store.record(change(account, sequence=2)),
        store.record(change(account, 2)),
        store.record(source_change(account)),
        store.record(source_change(ops, sinks=())),
        store.save_poll_times(account, {execution_id(1): LATER}),
        store.save_backoff(account, BackoffState(60.0, 40.0)),
        store.save_sink_state(ops, BackoffState(60.0, 40.0), clock_s=9.0),
        store.settle(attempt_record(ops, delivery)),
        store.load_sink(ops, fingerprint="x"),
        store.give_up(ops, now=LATER, clock_s=10.0, after_s=5.0),
    ):
        with pytest.raises(OwnershipLostError):
            await write
    assert [(each.sequence, each.polled_at) for each in await executions_of(store, winner)] == [(1, START_US)]
    record = await store.load_account(winner)
    assert (record.sequence, record.backoff) == (0, NO_BACKOFF)
    assert (await store.next_deliveries(sink_winner, now=LATER, limit=1)).deliveries == [delivery]


async def test_epochs_differ_at_each_claim(store: SqlStore) -> None:
    epochs = {(await store.claim("account", "default")).epoch for _ in range(4)}
    assert len(epochs) == 4


async def test_an_account_remembers_its_trouble_and_its_sequence(store: SqlStore, account: Lease) -> None:
    await store.record(source_change(account, state="unauthorized"))
    record = await store.load_account(account)
    assert (record.sequence, record.trouble) == (1, "unauthorized")
    await store.record(source_change(account, sequence=2, state=None))
    record = await store.load_account(account)
    assert (record.sequence, record.trouble) == (2, None)


async def test_a_source_change_from_another_sequence_is_lost(store: SqlStore, account: Lease, ops: Lease) -> None:
    with pytest.raises(SequenceConflictError):
        await store.record(source_change(account, sequence=2))
    assert await due(store, ops) == []


async def test_what_an_account_goes_through_is_kept_and_its_pause_goes_on_ending(
    store: SqlStore, account: Lease, clock: SetClock
) -> None:
    assert (await store.load_account(account)).backoff == NO_BACKOFF
    await store.save_backoff(account, BackoffState(60.0, 40.0))
    assert (await store.load_account(account)).backoff == BackoffState(60.0, 40.0)
    clock.us += 25 * SECOND_US
    assert (await store.load_account(account)).backoff == BackoffState(35.0, 40.0)
    await store.save_backoff(account, NO_BACKOFF)
    assert (await store.load_account(account)).backoff == NO_BACKOFF


async def test_of_several_backoffs_of_an_account_the_last_is_kept(store: SqlStore, account: Lease) -> None:
    other = await store.claim("account", "other")
    several = [(account, 1.0), (other, 7.0), (account, 9.0), (account, 2.0)]
    await asyncio.gather(
        *(store.save_backoff(lease, BackoffState(None, failing_for_s)) for lease, failing_for_s in several)
    )
    assert (await store.load_account(account)).backoff == BackoffState(None, 2.0)
    assert (await store.load_account(other)).backoff == BackoffState(None, 7.0)


async def test_polls_are_kept_and_never_go_back(store: SqlStore, account: Lease, clock: SetClock) -> None:
    clock.us = LATER
    await store.record(change(account, 1))
    await store.record(change(account, 2, polled_at=LATER))
    await store.save_poll_times(account, {execution_id(1): LATER, execution_id(2): START_US, execution_id(3): LATER})
    assert {each.polled_at for each in await executions_of(store, account)} == {LATER}


@pytest.mark.untraced  # much longer with coverage, which others give
async def test_many_polls_are_kept(store: SqlStore, account: Lease, clock: SetClock) -> None:
    clock.us = LATER
    await asyncio.gather(*(store.record(change(account, number)) for number in range(2_500)))
    await store.save_poll_times(account, {execution_id(number): LATER for number in range(2_500)})
    assert {each.polled_at for each in await executions_of(store, account)} == {LATER}


async def test_what_a_clock_that_was_ahead_wrote_counts_as_now(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    clock.us = LATER
    await store.record(change(account, since_at=LATER, polled_at=LATER))
    clock.us = START_US
    (known,) = await executions_of(store, account)
    assert (known.since_at, known.polled_at) == (START_US, START_US)
    assert await due(store, ops, now=START_US) == []
    await store.load_sink(ops, fingerprint="")
    assert await due(store, ops, now=START_US) == [of(1)]


async def test_a_start_leaves_what_is_to_be_tried_later_for_later(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    (delivery,) = (await store.next_deliveries(ops, now=START_US, limit=1)).deliveries
    await store.settle(attempt_record(ops, delivery, state=WAITING, due_at=LATER))
    await store.load_sink(ops, fingerprint="")
    assert await due(store, ops, now=LATER - 1) == []


async def test_a_delivery_carries_the_event_as_it_was_recorded(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    clock.wall_jump_us = DAY_US  # a clock somebody sets does not reach what decides
    recorded = change(account)
    await store.record(recorded)
    (delivery,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    emitted = recorded.entries[0].event
    assert (delivery.event_id, delivery.type, delivery.body) == (emitted.id, emitted.type, emitted.body)
    assert (delivery.stream, delivery.sequence, delivery.sink) == (emitted.stream, emitted.sequence, "ops")
    assert (delivery.recorded_at, delivery.due_at) == (clock.us, clock.us)
    assert (delivery.attempts, delivery.steps, delivery.rejections) == (0, 0, 0)
    assert (delivery.tried_at, delivery.first_due_at_s) == (0, None)


async def test_each_sink_of_an_event_has_its_own_delivery(store: SqlStore, account: Lease, ops: Lease) -> None:
    log = await store.claim("sink", "log")
    await store.record(change(account, sinks=("ops", "log")))
    (delivery,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    await store.settle(attempt_record(ops, delivery))
    assert await due(store, ops) == []
    assert await due(store, log) == [of(1)]


async def test_an_event_for_nobody_is_recorded_all_the_same(store: SqlStore, account: Lease) -> None:
    await store.record(change(account, sinks=()))
    assert await store.backlog() == {}
    with pytest.raises(SequenceConflictError):
        await store.record(change(account, sinks=()))


async def test_a_sink_that_was_sent_an_event_is_also_sent_the_one_that_ends_it(
    store: SqlStore, account: Lease, ops: Lease, woken: Woken
) -> None:
    log = await store.claim("sink", "log")
    await store.record(change(account, sinks=("ops", "log")))
    woken.names.clear()
    await store.record(change(account, sequence=2, sinks=("ops",), with_sinks_of=1))
    assert woken.names == ["log", "ops"]
    for lease in (ops, log):
        (delivery,) = (await store.next_deliveries(lease, now=LATER, limit=9)).deliveries
        await store.settle(attempt_record(lease, delivery))
        assert await due(store, lease) == [of(1, sequence=2)]


async def test_an_event_that_ends_one_nobody_else_was_sent_goes_to_its_own_sinks(
    store: SqlStore, account: Lease, ops: Lease, woken: Woken
) -> None:
    await store.record(change(account, sinks=("ops",)))
    await store.record(change(account, sequence=2, sinks=("ops",), with_sinks_of=1))
    assert set(woken.names) == {"ops"}
    assert (await store.backlog())["ops"].pending_count == 2
    assert await due(store, ops) == [of(1)]


async def test_the_end_of_an_event_of_the_same_group_finds_its_sinks(store: SqlStore, account: Lease) -> None:
    log = await store.claim("sink", "log")
    both = [
        store.record(change(account, sinks=("log",))),
        store.record(change(account, sequence=2, sinks=(), with_sinks_of=1)),
    ]
    await asyncio.gather(*both)
    assert (await store.backlog())[log.name].pending_count == 2


async def test_deliveries_come_in_the_order_they_came_due(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    for number in (3, 1, 2):
        clock.us += SECOND_US
        await store.record(change(account, number))
    assert await due(store, ops) == [of(3), of(1), of(2)]


async def test_at_most_one_delivery_per_stream_is_due(store: SqlStore, account: Lease, ops: Lease) -> None:
    for sequence in (1, 2, 3):
        await store.record(change(account, sequence=sequence))
    found = await store.next_deliveries(ops, now=LATER, limit=9)
    assert [each.sequence for each in found.deliveries] == [1]
    assert found.next_due_at is None


async def test_what_is_not_due_yet_says_when_it_is(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    found = await store.next_deliveries(ops, now=Micros(START_US - 1), limit=9)
    assert (found.deliveries, found.next_due_at) == ([], START_US)


async def test_what_is_beyond_the_limit_is_due_next(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    for number in (1, 2, 3):
        await store.record(change(account, number))
        clock.us += SECOND_US
    found = await store.next_deliveries(ops, now=LATER, limit=2)
    assert [each.stream for each in found.deliveries] == [of(1)[0], of(2)[0]]
    assert found.next_due_at == START_US + 2 * SECOND_US


async def test_streams_in_flight_are_left_out_with_their_followers(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account, 1))
    await store.record(change(account, 1, sequence=2))
    await store.record(change(account, 2))
    assert await due(store, ops, skip=[of(1)[0]], limit=1) == [of(2)]
    assert await due(store, ops, skip=[of(1)[0], of(2)[0]]) == []


async def test_a_failed_attempt_is_written_down_and_due_again_later(
    store: SqlStore, account: Lease, ops: Lease, url: str, clock: SetClock
) -> None:
    await store.record(change(account))
    (first,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    again_at = START_US + 5 * SECOND_US
    counts = {"steps": 3, "rejections": 2, "tried_at": START_US + 7, "first_due_at_s": 1.25, "clock_s": 8.5}
    await store.settle(attempt_record(ops, first, state=WAITING, due_at=again_at, **counts))
    found = await store.next_deliveries(ops, now=Micros(again_at - 1), limit=1)
    assert (found.deliveries, found.next_due_at) == ([], again_at)
    (delivery,) = (await store.next_deliveries(ops, now=Micros(again_at), limit=1)).deliveries
    assert (delivery.attempts, delivery.steps, delivery.rejections) == (1, 3, 2)
    assert (delivery.tried_at, delivery.first_due_at_s) == (START_US + 7, 1.25)
    assert delivery.recorded_at == START_US
    await store.close()
    again = await open_store(url, clock=clock, on_recorded=Woken())
    assert (await again.load_sink(await again.claim("sink", "ops"), fingerprint="x")).clock_s == 8.5
    await again.close()


async def fail(store: SqlStore, ops: Lease, number: int, **values: object) -> None:
    """Settle an attempt at the first event of an execution that failed; it is due again long ago."""
    due_now = (await store.next_deliveries(ops, now=LATER, limit=50)).deliveries
    (delivery,) = [each for each in due_now if (each.stream, each.sequence) == of(number)]
    await store.settle(attempt_record(ops, delivery, state=WAITING, **values))


async def test_what_was_never_tried_comes_before_what_was(store: SqlStore, account: Lease, ops: Lease) -> None:
    for number in (1, 2, 3):
        await store.record(change(account, number=number))
    await fail(store, ops, 1)
    assert await due(store, ops) == [of(2), of(3), of(1)]


async def trial(store: SqlStore, ops: Lease, *, now: int = LATER, **options: Any) -> tuple[bytes, int] | None:
    found = await store.next_trial(ops, now=Micros(now), **options)
    return None if found is None else (found.stream, found.sequence)


async def test_a_trial_is_what_was_never_tried_and_is_due_first(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    assert await trial(store, ops) is None
    for number in (1, 2, 3):
        clock.us = START_US + number * SECOND_US
        await store.record(change(account, number=number))
    await fail(store, ops, 1)
    assert await trial(store, ops) == of(2)
    assert await trial(store, ops, skip=[of(2)[0]], never_tried=True) == of(3)
    assert await trial(store, ops, skip=[of(2)[0], of(3)[0]], never_tried=True) is None
    assert await trial(store, ops, now=START_US, never_tried=True) is None


async def test_else_it_is_the_one_with_the_fewest_steps_that_was_tried_longest_ago_due_or_not(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    for number in (1, 2, 3):
        await store.record(change(account, number=number))
    never = LATER + 10**12
    await fail(store, ops, 1, steps=1, tried_at=START_US + 1, due_at=never)
    await fail(store, ops, 2, steps=0, tried_at=START_US + 3, due_at=never)
    await fail(store, ops, 3, steps=0, tried_at=START_US + 2, due_at=never)
    assert await trial(store, ops) == of(3)
    assert await trial(store, ops, skip=[of(3)[0]]) == of(2)
    assert await trial(store, ops, skip=[of(3)[0], of(2)[0]]) == of(1)


async def test_a_trial_is_never_one_that_an_earlier_one_holds_back(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    await store.record(change(account, sequence=2))
    await fail(store, ops, 1)
    assert await trial(store, ops, never_tried=True) is None
    assert await trial(store, ops) == of(1)


async def test_what_is_due_for_long_enough_is_given_up_tried_or_not_and_the_next_of_its_stream_let_go(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await store.record(change(account, number=1))
    await store.record(change(account, sequence=2))
    await store.record(change(account, number=2))
    assert await store.give_up(ops, now=Micros(clock.us), clock_s=10.0, after_s=5.0) == 0
    await fail(store, ops, 1, first_due_at_s=10.0, due_at=LATER + 10**12)
    await store.record(change(account, number=3))
    assert await store.give_up(ops, now=Micros(clock.us), clock_s=14.9, after_s=5.0) == 0
    assert await store.give_up(ops, now=Micros(clock.us), clock_s=15.0, after_s=5.0, skip=[of(2)[0]]) == 1
    assert set(await due(store, ops)) == {of(2), of(3), of(1, sequence=2)}
    assert await store.give_up(ops, now=Micros(clock.us), clock_s=15.0, after_s=5.0) == 1
    assert await store.give_up(ops, now=Micros(clock.us), clock_s=19.9, after_s=5.0) == 1
    assert (await store.backlog())["ops"].pending_count == 1


async def test_attempts_at_a_sink_that_is_well_leave_its_row_alone_until_it_is_not(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    kept = []
    for number, backoff in enumerate((NO_BACKOFF, NO_BACKOFF, BackoffState(None, 4.0), NO_BACKOFF, NO_BACKOFF)):
        await store.record(change(account, number))
        (delivery,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
        await store.settle(attempt_record(ops, delivery, backoff=backoff, clock_s=float(number)))
        kept.append((await store.load_sink(ops, fingerprint="one")).clock_s)
    assert kept == [0.0, 0.0, 2.0, 3.0, 3.0]


async def test_what_the_last_attempt_says_of_the_sink_is_kept(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    for number in (1, 2):
        await store.record(change(account, number))
    found = (await store.next_deliveries(ops, now=LATER, limit=2)).deliveries
    backwards = sorted(found, key=lambda each: each.stream, reverse=True)
    backoffs = [BackoffState(1.0, 2.0), BackoffState(60.0, 40.0)]
    await asyncio.gather(
        *(
            store.settle(attempt_record(ops, each, backoff=backoff, clock_s=clock_s))
            for each, backoff, clock_s in zip(backwards, backoffs, (7.0, 8.0), strict=True)
        )
    )
    clock.us += 70 * SECOND_US
    record = await store.load_sink(ops, fingerprint="one")
    assert (record.backoff, record.clock_s) == (BackoffState(None, 40.0), 8.0)


async def test_how_a_sink_stands_is_kept_without_an_attempt_and_the_last_word_counts(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    await store.record(change(account))
    (delivery,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    await store.save_sink_state(ops, BackoffState(None, 40.0), clock_s=7.0)
    record = await store.load_sink(ops, fingerprint="one")
    assert (record.backoff, record.clock_s) == (BackoffState(None, 40.0), 7.0)
    await asyncio.gather(
        store.settle(attempt_record(ops, delivery, backoff=NO_BACKOFF, clock_s=8.0)),
        store.save_sink_state(ops, BackoffState(None, 1.0), clock_s=9.0),
        store.save_backoff(account, BackoffState(None, 2.0)),
    )
    record = await store.load_sink(ops, fingerprint="one")
    assert (record.backoff, record.clock_s) == (BackoffState(None, 1.0), 9.0)
    assert (await store.load_account(account)).backoff == BackoffState(None, 2.0)


async def test_a_pause_is_kept_until_the_block_of_its_sink_changes(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await store.load_sink(ops, fingerprint="one")
    await store.record(change(account))
    (delivery,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    await store.settle(attempt_record(ops, delivery, backoff=BackoffState(60.0, 40.0)))
    clock.us += 70 * SECOND_US
    assert (await store.load_sink(ops, fingerprint="one")).backoff == BackoffState(-10.0, 40.0)
    assert (await store.load_sink(ops, fingerprint="two")).backoff == BackoffState(None, 40.0)


async def test_a_failing_delivery_holds_back_the_later_ones_of_its_stream_only(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    await store.record(change(account, 1))
    await store.record(change(account, 1, sequence=2))
    (first,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    again_at = LATER + SECOND_US
    await store.settle(attempt_record(ops, first, state=WAITING, due_at=again_at))
    await store.record(change(account, 1, sequence=3))
    await store.record(change(account, 2))
    assert await due(store, ops) == [of(2)]
    (delivery, *others) = (await store.next_deliveries(ops, now=Micros(again_at), limit=9, skip=[of(2)[0]])).deliveries
    assert (delivery.sequence, others) == (1, [])


@pytest.mark.parametrize("end", [DeliveryState.DELIVERED, DEAD])
async def test_a_settled_delivery_lets_the_next_one_go_at_once(
    store: SqlStore, account: Lease, ops: Lease, woken: Woken, end: DeliveryState
) -> None:
    for sequence in (1, 2, 3):
        await store.record(change(account, sequence=sequence))
    (first,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    await store.settle(attempt_record(ops, first, state=WAITING, due_at=LATER))
    woken.names.clear()
    await store.settle(attempt_record(ops, first, state=end, due_at=LATER))
    assert woken.names == ["ops"]
    assert await due(store, ops, now=START_US) == [of(1, sequence=2)]


async def test_a_settled_delivery_wakes_also_for_what_was_due_behind_it_all_the_time(
    store: SqlStore, account: Lease, ops: Lease, woken: Woken
) -> None:
    for number, sequence in ((1, 1), (2, 1), (1, 2)):
        await store.record(change(account, number, sequence=sequence))
    first, other = (await store.next_deliveries(ops, now=LATER, limit=2)).deliveries
    woken.names.clear()
    both = (attempt_record(ops, first), attempt_record(ops, other))
    await store.settle(replace(both[0], attempts=both[0].attempts + both[1].attempts))
    assert woken.names == ["ops"]


async def test_a_settled_delivery_with_nothing_behind_it_wakes_nobody(
    store: SqlStore, account: Lease, ops: Lease, woken: Woken
) -> None:
    await store.record(change(account))
    (first,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    woken.names.clear()
    await store.settle(attempt_record(ops, first))
    assert woken.names == []


async def test_settling_twice_changes_nothing(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    (first,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    await store.settle(attempt_record(ops, first))
    await store.settle(attempt_record(ops, first, state=WAITING))
    assert await due(store, ops) == []


async def test_the_sinks_of_a_record_are_woken_once_it_is_written(
    store: SqlStore, account: Lease, woken: Woken
) -> None:
    await asyncio.gather(
        store.record(change(account, 1, sinks=("ops", "log"))), store.record(change(account, 2, sinks=("ops",)))
    )
    assert woken.names == ["log", "ops"]


async def test_one_bad_write_of_a_group_harms_no_other(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account, 3))
    stolen = await store.claim("account", "stolen")
    await store.claim("account", "stolen")
    bad = {
        2: change(account, 2, status="\ud800"),
        3: change(account, 3),
        5: change(stolen, 5),
        6: change(account, 6, since_at=1 << 70),
    }
    writes = [store.record(bad.get(number, change(account, number))) for number in range(8)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    errors = {number: type(outcome) for number, outcome in enumerate(outcomes) if outcome is not None}
    assert errors == {2: StoreError, 3: SequenceConflictError, 5: OwnershipLostError, 6: StoreError}
    assert sorted(await due(store, ops)) == sorted(of(number) for number in (0, 1, 3, 4, 7))


async def test_what_a_bad_write_holds_stays_out_of_its_error(store: SqlStore, account: Lease) -> None:
    with pytest.raises(StoreError) as caught:
        await store.record(change(account, status="sensitive \ud800"))
    assert "sensitive" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_changes_of_one_execution_in_a_group_keep_their_order(store: SqlStore, account: Lease) -> None:
    await asyncio.gather(*(store.record(change(account, sequence=sequence)) for sequence in range(1, 9)))
    (known,) = await executions_of(store, account)
    assert known.sequence == 8


async def test_more_than_a_group_is_written_in_order(store: SqlStore, account: Lease, ops: Lease) -> None:
    await asyncio.gather(*(store.record(change(account, number)) for number in range(700)))
    assert len(await due(store, ops, limit=1_000)) == 700


async def test_a_cancelled_caller_leaves_its_write_and_the_store_whole(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    writes = [asyncio.create_task(store.record(change(account, number))) for number in range(300)]
    await asyncio.sleep(0)
    for write in writes[:150]:
        write.cancel()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == 150
    await store.record(change(account, 300))
    assert len(await due(store, ops, limit=999)) == 301


async def test_a_cancelled_failing_write_complains_to_nobody(store: SqlStore, account: Lease) -> None:
    await store.record(change(account))
    write = asyncio.create_task(store.record(change(account)))
    await asyncio.sleep(0)
    write.cancel()
    await asyncio.wait([write])
    await store.record(change(account, sequence=2))


async def test_cancelled_readers_leave_the_store_whole(store: SqlStore, account: Lease, ops: Lease) -> None:
    await asyncio.gather(*(store.record(change(account, number)) for number in range(300)))
    reads = [asyncio.create_task(executions_of(store, account)) for _ in range(20)]
    claims = [asyncio.create_task(store.claim("sink", "ops")) for _ in range(20)]
    for _ in range(3):
        await asyncio.sleep(0)
    for task in (*reads, *claims):
        task.cancel()
    await asyncio.wait([*reads, *claims])
    assert len(await executions_of(store, account)) == 300
    ops = await store.claim("sink", ops.name)  # which the claims took, for what was asked for goes on
    assert len(await due(store, ops, limit=999)) == 300


async def test_closing_finishes_what_was_handed_in(
    store: SqlStore, account: Lease, ops: Lease, url: str, clock: SetClock
) -> None:
    writes = [asyncio.create_task(store.record(change(account, number))) for number in range(300)]
    await asyncio.sleep(0)
    await store.close()
    assert all(write.done() and write.exception() is None for write in writes)
    again = await open_store(url, clock=clock, on_recorded=Woken())
    assert len(await due(again, await again.claim("sink", ops.name), limit=999)) == 300
    await again.close()


async def test_a_closed_store_refuses_and_may_be_closed_again(store: SqlStore, account: Lease) -> None:
    await store.close()
    for use in (store.record(change(account)), store.load_account(account), store.claim("sink", "ops")):
        with pytest.raises(StoreError):
            await use
    await store.close()


async def test_a_new_sink_is_well(store: SqlStore, ops: Lease) -> None:
    record = await store.load_sink(ops, fingerprint="one")
    assert (record.sequence, record.state, record.clock_s) == (0, None, 0.0)


@pytest.mark.parametrize(
    ("state", "fingerprint", "after"),
    [
        ("disabled", "one", "disabled"),
        ("disabled", "two", "failing"),
        ("failing", "one", "failing"),
        ("failing", "two", "failing"),
    ],
)
async def test_a_disabled_sink_is_failing_until_a_success_once_its_block_changes(
    store: SqlStore, ops: Lease, state: str, fingerprint: str, after: str
) -> None:
    await store.load_sink(ops, fingerprint="one")
    await store.record(source_change(ops, state=state, sinks=()))
    record = await store.load_sink(ops, fingerprint=fingerprint)
    assert (record.sequence, record.state) == (1, after)
    assert (await store.load_sink(ops, fingerprint=fingerprint)).state == after


async def test_the_deliveries_of_a_sink_gone_for_a_day_die(store: SqlStore, account: Lease, ops: Lease) -> None:
    log = await store.claim("sink", "log")
    for number in range(3):
        await store.record(change(account, number, sinks=("ops", "log")))
    died = [
        await store.mark_absent_sinks(
            await upkeep(store), present=["log"], now=Micros(START_US + late_us), dead_after_us=DAY_US
        )
        for late_us in (0, DAY_US - 1, DAY_US, DAY_US)
    ]
    assert died == [0, 0, 3, 0]
    assert await due(store, ops) == []
    assert len(await due(store, log)) == 3


async def test_a_sink_that_returns_has_its_whole_day_again(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    await store.mark_absent_sinks(await upkeep(store), present=[], now=START_US, dead_after_us=DAY_US)
    await store.load_sink(ops, fingerprint="one")
    assert (
        await store.mark_absent_sinks(
            await upkeep(store), present=[], now=Micros(START_US + DAY_US), dead_after_us=DAY_US
        )
        == 0
    )
    await store.mark_absent_sinks(
        await upkeep(store), present=["ops"], now=Micros(START_US + DAY_US), dead_after_us=DAY_US
    )
    assert (
        await store.mark_absent_sinks(
            await upkeep(store), present=[], now=Micros(START_US + 2 * DAY_US), dead_after_us=DAY_US
        )
        == 0
    )
    assert await due(store, ops) == [of(1)]


async def test_a_store_without_sinks_has_none_absent(store: SqlStore) -> None:
    assert await store.mark_absent_sinks(await upkeep(store), present=["ops"], now=START_US, dead_after_us=0) == 0


async def test_the_backlog_counts_what_waits_and_finds_the_oldest(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    for number in (1, 2, 3):
        await store.record(change(account, number, sinks=("ops", "log")))
        clock.us += SECOND_US
    (first,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    await store.settle(attempt_record(ops, first))
    assert await store.backlog() == {"ops": Backlog(2, Micros(START_US + SECOND_US)), "log": Backlog(3, START_US)}


async def emitted_and_settled(
    store: SqlStore, account: Lease, ops: Lease, *, end: DeliveryState, now: int = LATER
) -> None:
    """Record an execution that ends at `START_US` with two events, and settle both."""
    await store.record(change(account))
    await store.record(change(account, sequence=2, status="success", ended_at=START_US))
    for _ in range(2):
        (delivery,) = (await store.next_deliveries(ops, now=Micros(now), limit=1)).deliveries
        await store.settle(attempt_record(ops, delivery, state=end))


async def prune(store: SqlStore, *, ended_before: int, keep: Keep) -> int:
    """Return how many executions' events went."""
    return sum(
        [count async for count in store.prune(await upkeep(store), ended_before=Micros(ended_before), keep=keep)]
    )


async def test_what_ended_long_ago_goes(store: SqlStore, account: Lease, ops: Lease) -> None:
    await emitted_and_settled(store, account, ops, end=DeliveryState.DELIVERED)
    assert await prune(store, ended_before=START_US, keep=drop) == 0
    assert await prune(store, ended_before=START_US + 1, keep=drop) == 1
    assert await executions_of(store, account) == []
    await store.record(change(account))  # nothing of it is left that a new beginning could collide with
    assert await due(store, ops) == [of(1)]


async def test_what_is_kept_leaves_its_id_behind_and_no_events(store: SqlStore, account: Lease, ops: Lease) -> None:
    asked = []

    def keep(account: str, pipeline: str, execution: str, ended_at: int) -> bool:
        asked.append((account, pipeline, execution, ended_at))
        return True

    await emitted_and_settled(store, account, ops, end=DeliveryState.DELIVERED)
    assert await prune(store, ended_before=LATER, keep=keep) == 1
    assert asked == [("default", PIPELINE, execution_id(1), START_US)]
    assert await prune(store, ended_before=LATER, keep=hold) == 0
    (known,) = await executions_of(store, account)
    assert (known.sequence, known.ended_at) == (2, START_US)
    with pytest.raises(SequenceConflictError):
        await store.record(change(account))
    assert await prune(store, ended_before=LATER, keep=drop) == 0
    assert await executions_of(store, account) == []


async def test_an_execution_that_came_back_is_pruned_again_when_it_ended_again(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    await emitted_and_settled(store, account, ops, end=DeliveryState.DELIVERED)
    await prune(store, ended_before=LATER, keep=hold)
    await store.record(change(account, sequence=3, ended_at=None))
    assert await prune(store, ended_before=LATER, keep=drop) == 0
    await store.record(change(account, sequence=4, ended_at=START_US, sinks=()))
    (delivery,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    await store.settle(attempt_record(ops, delivery))
    assert await prune(store, ended_before=LATER, keep=drop) == 1


async def test_an_end_that_reports_nothing_leaves_the_events_before_it_to_be_found(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    await store.record(change(account))
    quiet = change(account, ended_at=START_US)
    await store.record(replace(quiet, before=1, entries=()))
    (delivery,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    await store.settle(attempt_record(ops, delivery))
    assert await prune(store, ended_before=LATER, keep=drop) == 1
    await store.record(change(account))


async def test_what_waits_stays_for_ever_with_its_execution(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    await store.record(change(account, sequence=2, ended_at=START_US))
    (delivery,) = (await store.next_deliveries(ops, now=LATER, limit=1)).deliveries
    await store.settle(attempt_record(ops, delivery))
    assert await prune(store, ended_before=START_US + 999 * DAY_US, keep=drop) == 0
    assert await due(store, ops) == [of(1, sequence=2)]
    assert len(await executions_of(store, account)) == 1


async def test_a_dead_letter_stays_as_long_again_from_its_death(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    clock.us = START_US + 5 * DAY_US
    await emitted_and_settled(store, account, ops, end=DEAD, now=clock.us)
    assert await prune(store, ended_before=START_US + 5 * DAY_US, keep=drop) == 0
    assert len(await executions_of(store, account)) == 1
    assert await prune(store, ended_before=START_US + 5 * DAY_US + 1, keep=drop) == 1


async def test_what_is_open_is_never_pruned(store: SqlStore, account: Lease) -> None:
    await store.record(change(account, sinks=()))
    assert await prune(store, ended_before=START_US + 999 * DAY_US, keep=drop) == 0
    assert len(await executions_of(store, account)) == 1


async def test_many_executions_are_pruned_page_by_page(store: SqlStore, account: Lease) -> None:
    await asyncio.gather(*(store.record(change(account, number, sinks=(), ended_at=START_US)) for number in range(600)))
    steps = store.prune(await upkeep(store), ended_before=LATER, keep=lambda _a, _p, name, _at: name == execution_id(1))
    assert [count async for count in steps if count] == [250, 250, 100]
    assert [each.execution for each in await executions_of(store, account)] == [execution_id(1)]


async def test_old_events_of_accounts_and_sinks_go_once_nothing_of_them_waits(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await store.record(source_change(account))
    clock.us += DAY_US
    await store.record(source_change(account, sequence=2, sinks=()))
    await prune(store, ended_before=START_US + 1, keep=drop)
    (delivery,) = (await store.next_deliveries(ops, now=Micros(clock.us), limit=1)).deliveries
    await store.settle(attempt_record(ops, delivery))
    await prune(store, ended_before=START_US + 1, keep=drop)
    record = await store.load_account(account)
    assert (record.sequence, record.trouble) == (2, "unreachable")
    await store.record(source_change(account, sequence=3))
