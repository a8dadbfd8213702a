"""What every store promises of deliveries: what goes when, in which order, with what, and what an attempt leads to."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from contract.conftest import on_both
from stores import (
    LATER,
    PIPELINE,
    SECOND_US,
    START_US,
    StoreRig,
    attempt_record,
    backlog_of,
    change,
    closed,
    due,
    event,
    execution_id,
    names,
    of,
    opened,
    settle,
    settle_all,
    sink_of,
    stream_of,
    taken,
)

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventKey, EventType, Group, OutboxEntry
from watcher.domain.problems import Problem
from watcher.domain.timestamps import Micros, from_us
from watcher.store.changes import BackoffState, Lease, SourceChange, Take, Taken, Turn
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import open_store

DELIVERED, DEAD, WAITING = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.WAITING
ORDERING_KEY = b"l" * 16
WAIT_S = 30.0
FIRST, SECOND = Group(b"a" * 16, WAIT_S), Group(b"b" * 16, WAIT_S)


def ordering_key(number: int) -> bytes:
    return stream_of(of(number).removesuffix("-1"))


async def fail(sink: SinkStore, *names_: str, now: int = LATER, **how: Any) -> None:
    """Settle attempts at these that failed: unless said otherwise they are due again at once."""
    found = [each for each in await due(sink, now=now) if each.content["id"] in names_]
    assert len(found) == len(names_)
    await settle(sink, *found, **({"state": WAITING, "answer": "503"} | how))


def together(found: Taken) -> list[list[str]]:
    """Return the names of what goes together."""
    return [names(batch) for batch in found.batches]


# One after the other


async def test_deliveries_come_in_the_order_they_were_recorded_and_what_is_beyond_the_count_next(rig: StoreRig) -> None:
    for number in (3, 1, 2):
        rig.clock.us += SECOND_US
        await rig.record(number)
    found = await taken(rig.ops, count=2)
    assert together(found) == [[of(3)], [of(1)]]
    assert found.next_due_at == START_US + 3 * SECOND_US
    found = await taken(rig.ops, skip=[ordering_key(3), ordering_key(2)])
    assert (together(found), found.next_due_at) == ([[of(1)]], None)
    found = await taken(rig.ops)
    assert (len(found.batches), found.next_due_at) == (3, None)
    await settle_all(rig.ops)
    found = await taken(rig.ops)
    assert (found.batches, found.next_due_at) == ([], None)


async def test_what_is_new_is_due_whatever_clock_recorded_it_and_what_was_tried_is_not(rig: StoreRig) -> None:
    await rig.record(1)
    assert names(await due(rig.ops, now=START_US - SECOND_US)) == [of(1)]
    await fail(rig.ops, of(1), due_at=LATER)
    await rig.ops.load(fingerprint="")  # a start
    found = await taken(rig.ops, now=LATER - 1)
    assert (found.batches, found.next_due_at) == ([], LATER)
    assert names(await due(rig.ops)) == [of(1)]


def of_problem(lease: Lease, sequence: int, type_: EventType, *, sinks: tuple[str, ...] = ("ops",)) -> SourceChange:
    """Return a change of an account whose event has the ordering key of its problems, as another stream may have."""
    subject = "sinks/ops" if lease.kind == "sink" else "accounts/default"
    emitted = event(subject, sequence=sequence, type_=type_, ordering_key=ORDERING_KEY)
    return SourceChange(lease, sequence - 1, sequence, None, (OutboxEntry(emitted, sinks),))


async def test_of_a_lane_one_goes_after_the_other_whatever_streams_its_events_are_of(rig: StoreRig) -> None:
    """An opening comes before its reminder and its closing, and the next opening after that."""
    await rig.store.record(of_problem(rig.account, 1, EventType.ACCOUNT_DEGRADED))
    await rig.ops.record(of_problem(rig.ops.lease, 1, EventType.PROBLEM_REMINDER))
    await rig.store.record(of_problem(rig.account, 2, EventType.ACCOUNT_RECOVERED, sinks=("ops", "log")))
    await rig.store.record(of_problem(rig.account, 3, EventType.ACCOUNT_DEGRADED))
    log, order = await sink_of(rig.store, "log"), []
    assert names(await due(log)) == ["accounts/default-2"]
    while found := await due(rig.ops):
        order.append(names(found))
        assert await due(rig.ops, skip=[ORDERING_KEY]) == []
        await fail(rig.ops, *order[-1])
        await settle(rig.ops, *await due(rig.ops))
    assert order == [["accounts/default-1"], ["sinks/ops-1"], ["accounts/default-2"], ["accounts/default-3"]]


@pytest.mark.parametrize("end", [DELIVERED, DEAD, DeliveryState.SILENCED])
async def test_a_failing_delivery_holds_back_its_lane_until_its_end(rig: StoreRig, end: DeliveryState) -> None:
    await rig.record(1)
    await rig.record(1, sequence=2)
    for again_at in (LATER + SECOND_US, LATER + 9 * SECOND_US):
        await settle(rig.ops, *await due(rig.ops, now=again_at), state=WAITING, due_at=again_at)
    await rig.record(1, sequence=3)
    await rig.record(2)
    found = await taken(rig.ops)
    assert (together(found), found.next_due_at) == ([[of(2)]], again_at)
    (first,) = await due(rig.ops, now=again_at, skip=[ordering_key(2)])
    assert names([first]) == [of(1)]
    await settle(rig.ops, first, state=end)  # early, as a trial may
    assert together(await taken(rig.ops, now=START_US, skip=[ordering_key(2)])) == [[of(1, sequence=2)]]
    await fail(rig.ops, of(1, sequence=2), due_at=LATER - 1)
    assert names(await due(rig.ops, now=LATER - 2)) == [of(2)]


@on_both
async def test_what_failed_is_written_down_survives_a_restart_and_is_settled_once(rig: StoreRig, url: str) -> None:
    await rig.record(1)
    rig.woken.names.clear()
    (first,) = await due(rig.ops)
    counts: dict[str, Any] = {"rejections": 2, "tried_at": START_US + 7, "first_due_at_s": 1.25}
    await settle(rig.ops, first, state=WAITING, due_at=LATER, backoff=BackoffState(), clock_s=8.5, **counts)
    await rig.store.close()
    again = await open_store(url, clock=rig.clock)
    rig.ops = await sink_of(again)
    (second,) = await due(rig.ops)
    more: dict[str, Any] = {"due_at": LATER, "rejections": 2, "tried_at": Micros(START_US + 7), "first_due_at_s": 1.25}
    expected = replace(first, attempts=1, **more)
    assert second == expected
    assert (await rig.ops.load(fingerprint="x")).clock_s == 8.5
    await settle(rig.ops, second)
    await settle(rig.ops, second, state=WAITING)  # which was written before: it changes nothing
    assert await due(rig.ops) == []
    assert rig.woken.names == []
    await again.close()


# Groups


async def test_what_is_grouped_waits_for_others_and_takes_along_what_was_never_tried_or_is_due(rig: StoreRig) -> None:
    await rig.record(1, 2, 3, group=FIRST)
    await rig.record(4)
    found = await taken(rig.ops, now=START_US + SECOND_US, group_count=9)
    assert together(found) == [[of(4)]]
    assert found.next_due_at == START_US + WAIT_S * SECOND_US
    now = START_US + round(WAIT_S * SECOND_US)
    await fail(rig.ops, of(1), now=now, due_at=now + 99 * SECOND_US)
    await fail(rig.ops, of(2), now=now + 1, due_at=now + 1)
    rig.clock.us = now
    await rig.record(5, group=FIRST)  # which itself is not due for long
    await rig.record(6, group=SECOND)
    found = await taken(rig.ops, now=now + 2, group_count=9, skip=[ordering_key(4)])
    assert together(found) == [[of(2), of(3), of(5)]]
    assert found.next_due_at == now + WAIT_S * SECOND_US + 1  # of the other group, a little later
    assert {each.group_key for batch in found.batches for each in batch} == {FIRST.key}


async def test_what_waits_behind_another_of_its_lane_goes_in_a_group_only_with_that(rig: StoreRig) -> None:
    await rig.record(1, 2, group=FIRST)
    await rig.record(1, sequence=2, group=FIRST)
    await rig.record(3)
    await rig.record(3, sequence=2, group=FIRST)
    assert together(await taken(rig.ops, group_count=9)) == [[of(3)], [of(1), of(2), of(1, sequence=2)]]
    assert together(await taken(rig.ops, group_count=9, skip=[ordering_key(1)])) == [[of(3)], [of(2)]]
    await fail(rig.ops, of(1), due_at=LATER + SECOND_US)
    assert together(await taken(rig.ops, group_count=9, skip=[ordering_key(3)])) == [[of(2)]]
    await settle(rig.ops, *[each for each in await due(rig.ops) if names([each]) == [of(3)]])
    assert together(await taken(rig.ops, group_count=9)) == [[of(2), of(3, sequence=2)]]


async def test_what_is_let_go_waits_for_its_group_still_and_each_sink_has_its_own(rig: StoreRig) -> None:
    other = await sink_of(rig.store, "other")
    await rig.record(1)
    grouped = change(rig.account, 1, sequence=2, sinks=("ops", "other"))
    entries = tuple(replace(each, groups={"ops": FIRST}) for each in grouped.entries)
    await rig.store.record(replace(grouped, entries=entries))
    assert [each.group_key for each in await due(other, now=START_US)] == [None]
    await fail(rig.ops, of(1), due_at=LATER)
    wait_us = round(WAIT_S * SECOND_US)
    (head,) = await due(rig.ops)
    await rig.ops.record(Turn(rig.ops.lease, (attempt_record(head),), group_wait_s=wait_us / SECOND_US))
    found = await taken(rig.ops, now=START_US + wait_us - 1)
    assert (found.batches, found.next_due_at) == ([], START_US + wait_us + 1)  # it was recorded a little later
    assert names(await due(rig.ops, now=START_US + wait_us + 1)) == [of(1, sequence=2)]


# Trials, and what is called forward


async def test_a_trial_is_what_was_never_tried_else_what_was_tried_longest_ago_due_or_not(rig: StoreRig) -> None:
    async def trial(which: str, **how: Any) -> list[list[str]]:
        return together(await taken(rig.ops, count=1, trial=which, **how))

    assert await trial("never_tried") == await trial("tried_longest_ago") == []
    await rig.record(1, 2, 3)
    await rig.record(1, sequence=2)
    never = LATER + 10**12
    await fail(rig.ops, of(1), tried_at=START_US + 2, due_at=never)
    assert await trial("never_tried") == [[of(2)]]
    assert await trial("never_tried", skip=[ordering_key(2)]) == [[of(3)]]
    assert (
        await trial("never_tried", skip=[ordering_key(2), ordering_key(3)]) == []
    )  # but for one that an earlier one holds back
    await fail(rig.ops, of(2), tried_at=START_US + 1, due_at=never)
    assert await trial("tried_longest_ago") == [[of(2)]]
    assert await trial("tried_longest_ago", skip=[ordering_key(2)]) == [[of(1)]]
    await rig.record(4, 5, group=FIRST)
    assert await trial("never_tried", now=START_US, skip=[ordering_key(3)]) == []
    assert await trial("never_tried", skip=[ordering_key(3)], group_count=9) == [[of(4), of(5)]]


async def test_once_a_sink_works_again_all_that_was_tried_comes_due_within_a_minute_evenly(rig: StoreRig) -> None:
    count = 120
    await rig.record(*range(count + 2))
    far, soon = LATER + 10**12, START_US + 1
    await fail(rig.ops, *map(of, range(count)), due_at=far)
    await fail(rig.ops, of(count), due_at=soon)
    await rig.record(0, sequence=2)
    found = await rig.ops.record(Turn(rig.ops.lease, calls_forward=True, take=Take(START_US, 500, frozenset())))
    assert found is not None
    assert together(found) == [[of(count + 1)]]  # which was never tried
    moments = [each.due_at - START_US for each in await due(rig.ops) if each.attempts]
    assert len(moments) == count + 1
    assert min(moments) == soon - START_US  # it was to be tried earlier
    assert max(moments) < 45 * SECOND_US  # and with the wait of the breaker, 30 s, all is there within 90 s
    assert all(
        sum(start <= each // SECOND_US < start + 15 for each in moments) in range(36, 45) for start in range(0, 45, 15)
    )
    await settle(rig.ops, *(each for each in await due(rig.ops) if names([each]) == [of(0)]))
    assert of(0, sequence=2) in names(await due(rig.ops, now=START_US))


# What a turn writes, and in which order


async def test_how_a_sink_is_is_kept_with_a_turn_or_without_and_the_last_word_counts(rig: StoreRig) -> None:
    await rig.record(1, 2)
    one, other = await due(rig.ops)
    await settle(rig.ops, one)
    record_ = await rig.ops.load(fingerprint="one")
    assert (record_.backoff, record_.clock_s) == (BackoffState(), 0.0)
    await settle(rig.ops, other, backoff=BackoffState(1.0, 2.0), clock_s=7.0)
    await rig.ops.record(Turn(rig.ops.lease, backoff=BackoffState(60.0, 40.0), clock_s=8.0))
    await rig.owned.save_backoff(BackoffState(None, 2.0))
    record_ = await rig.ops.load(fingerprint="one")
    assert (record_.backoff, record_.clock_s) == (BackoffState(60.0, 40.0), 8.0)
    rig.clock.us += 70 * SECOND_US
    assert (await rig.ops.load(fingerprint="one")).backoff == BackoffState(-10.0, 40.0)
    assert (await rig.ops.load(fingerprint="two")).backoff == BackoffState(-10.0, 40.0)  # only time ends a pause
    assert (await rig.owned.load_account()).backoff == BackoffState(None, 2.0)


async def test_what_is_due_for_long_is_given_up_tried_or_not_and_the_next_of_its_lane_let_go(rig: StoreRig) -> None:
    await rig.record(1)
    await rig.record(1, sequence=2)
    await rig.record(2)
    assert await rig.ops.give_up(clock_s=10.0, after_s=5.0, skip=(), group_wait_s=0.0) == 0
    await fail(rig.ops, of(1), first_due_at_s=10.0, due_at=LATER + 10**12)
    await rig.record(3)
    assert await rig.ops.give_up(clock_s=14.9, after_s=5.0, skip=(), group_wait_s=0.0) == 0
    assert await rig.ops.give_up(clock_s=15.0, after_s=5.0, skip=[ordering_key(2)], group_wait_s=0.0) == 1
    assert set(names(await due(rig.ops))) == {of(2), of(3), of(1, sequence=2)}
    assert await rig.ops.give_up(clock_s=15.0, after_s=5.0, skip=(), group_wait_s=0.0) == 1
    assert await rig.ops.give_up(clock_s=19.9, after_s=5.0, skip=(), group_wait_s=0.0) == 1
    assert (await backlog_of(rig.store))["ops"].pending_count == 1


async def test_a_failure_comes_with_how_the_sink_has_the_opening_of_its_pipelines_problem(rig: StoreRig) -> None:
    failing = Problem(UUID(int=9), EventType.PIPELINE_FAILING, from_us(START_US), EventKey(stream_of("pipeline"), 1))
    opening = event("pipeline", sequence=1, type_=EventType.PIPELINE_FAILING, problem=failing.id)
    entry = OutboxEntry(opening, ("ops",), {"ops": FIRST})
    source = SourceChange(rig.account, 0, 1, None, (entry,), opened(failing), pipeline=PIPELINE)
    failed = [event(execution_id(number), sequence=1, type_=EventType.EXECUTION_FAILED) for number in (1, 2)]

    async def state() -> object:
        deliveries = await due(rig.ops, covers=True)
        return [each.failing_opening for each in deliveries if each.type == EventType.EXECUTION_FAILED]

    await rig.store.record(replace(change(rig.account, 1), entries=(OutboxEntry(failed[0], ("ops",)),)))
    assert await state() == [None]
    await rig.store.record(source)
    assert await state() == [DeliveryState.WAITING]
    (sent,) = [each for each in await due(rig.ops) if each.type == EventType.PIPELINE_FAILING]
    await settle(rig.ops, sent, state=WAITING, answer="503", due_at=LATER)
    assert await state() == [None]
    await settle(rig.ops, sent)
    assert await state() == [DeliveryState.DELIVERED]
    recovered = event("pipeline", sequence=2, type_=EventType.PIPELINE_RECOVERED, problem=failing.id, closes=True)
    more = (OutboxEntry(recovered, ()),)
    await rig.store.record(SourceChange(rig.account, 1, 2, None, more, closed(failing), pipeline=PIPELINE))
    assert await state() == [None]
