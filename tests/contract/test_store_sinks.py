"""What every store promises of silences, reminders and dead letters."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from stores import (
    DAY_US,
    SECOND_US,
    START_US,
    SetClock,
    Woken,
    attempt_record,
    change,
    execution_id,
    source_change,
    stream_of,
    upkeep,
)

from watcher.domain.delivery import Delivery, DeliveryState
from watcher.domain.errors import OwnershipLostError
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease, Reminder, SourceChange
from watcher.store.deliveries import REPLAYED_COUNT
from watcher.store.records import BEGINNING, Opening
from watcher.store.sql_store import SqlStore

LATER = Micros(START_US + 3_600 * SECOND_US)
OPENING = EventKey(stream_of("accounts/default"), 1)
DEAD, DELIVERED, WAITING = DeliveryState.DEAD, DeliveryState.DELIVERED, DeliveryState.WAITING


def of(number: int, *, sequence: int = 1) -> EventKey:
    return EventKey(stream_of(execution_id(number)), sequence)


def problem_at(clock: SetClock) -> Problem:
    return Problem(UUID(int=5), EventType.ACCOUNT_DEGRADED, clock.now(), OPENING)


def opens(account: Lease, problem: Problem) -> SourceChange:
    return replace(source_change(account), problems=(ProblemChange(problem, is_new=True),))


def closes(account: Lease, problem: Problem, clock: SetClock) -> SourceChange:
    closed = ProblemChange(problem, closed_at=clock.now())
    return replace(source_change(account, sequence=2, sinks=()), problems=(closed,))


async def due(store: SqlStore, ops: Lease, *, now: Micros = LATER) -> list[Delivery]:
    return list((await store.next_deliveries(ops, now=now, limit=100)).deliveries)


async def settle_all(store: SqlStore, ops: Lease, state: DeliveryState, **how: object) -> None:
    while found := await due(store, ops):
        for each in found:
            await store.settle(attempt_record(ops, each, state=state, **how))


@pytest.fixture
async def problem(store: SqlStore, account: Lease, clock: SetClock) -> Problem:
    """An open problem whose opening waits to be sent."""
    opened = problem_at(clock)
    await store.record(opens(account, opened))
    return opened


async def test_what_is_silenced_is_settled_and_lets_the_next_go(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    await store.record(change(account, sequence=2))
    await store.silence(ops, [of(1)], now=START_US, owned_from=START_US)
    assert [each.sequence for each in await due(store, ops)] == [2]
    await store.silence(ops, [of(1), of(2)], now=START_US, owned_from=START_US)
    assert (await store.backlog())["ops"].pending_count == 1


async def test_whom_a_silence_kept_an_event_from_is_not_sent_its_end(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    log = await store.claim("sink", "log")
    await store.record(change(account, sinks=("ops", "log")))
    await store.silence(ops, [of(1)], now=LATER, owned_from=START_US)
    await store.record(change(account, sequence=2, sinks=(), with_sinks_of=1))
    assert await due(store, ops) == []
    assert (await store.backlog())[log.name].pending_count == 2


async def test_what_an_earlier_owner_may_have_sent_is_followed_by_its_end(
    store: SqlStore, problem: Problem, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await store.silence(ops, [problem.opening], now=LATER, owned_from=LATER)
    opening = (await store.openings(ops, [problem.id]))[problem.id]
    assert (opening.state, opening.is_kept_back) == (DeliveryState.SILENCED, False)
    closing = source_change(account, sequence=2, sinks=())
    entries = tuple(replace(each, with_sinks_of=problem.opening) for each in closing.entries)
    await store.record(replace(closing, entries=entries, problems=(ProblemChange(problem, closed_at=clock.now()),)))
    assert [each.sequence for each in await due(store, ops)] == [2]


async def test_an_opening_that_was_silenced_waits_again_while_its_problem_is_open(
    store: SqlStore, problem: Problem, ops: Lease
) -> None:
    assert await store.silenced_openings(ops) == []
    await store.silence(ops, [problem.opening], now=START_US, owned_from=START_US)
    (opening,) = await store.silenced_openings(ops)
    assert EventKey(opening.stream, opening.sequence) == problem.opening
    await store.release_silenced(ops, [problem.opening], now=LATER)
    (again,) = await due(store, ops)
    assert (again.attempts, again.due_at, again.tried_at) == (0, LATER, 0)
    assert len(await store.ungrouped(ops, now=LATER, after=BEGINNING, limit=9)) == 1
    await settle_all(store, ops, DELIVERED)
    await store.release_silenced(ops, [problem.opening], now=LATER)
    assert await due(store, ops) == []


async def test_nothing_of_a_closed_problem_waits_again(
    store: SqlStore, problem: Problem, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await store.silence(ops, [problem.opening], now=START_US, owned_from=START_US)
    await store.record(closes(account, problem, clock))
    assert await store.silenced_openings(ops) == []


async def test_a_sink_knows_how_the_opening_of_a_problem_stands(
    store: SqlStore, problem: Problem, account: Lease, ops: Lease, clock: SetClock
) -> None:
    waits = Opening(OPENING, WAITING, START_US, is_open=True, tried=False)
    assert await store.openings(ops, [problem.id, UUID(int=77)]) == {problem.id: waits}
    await store.silence(ops, [OPENING], now=LATER, owned_from=START_US)
    silenced = replace(waits, state=DeliveryState.SILENCED, due_at=None)
    assert await store.openings(ops, [problem.id]) == {problem.id: silenced}
    log = await store.claim("sink", "log")
    await store.record(closes(account, problem, clock))
    never_sent = replace(silenced, state=None, is_open=False)
    assert await store.openings(log, [problem.id]) == {problem.id: never_sent}


async def test_what_waits_can_be_put_off(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    await store.put_off(ops, {of(1): LATER, of(2): LATER})
    assert await due(store, ops, now=Micros(LATER - 1)) == []
    (delivery,) = await due(store, ops)
    assert (delivery.attempts, delivery.due_at) == (0, LATER)
    await settle_all(store, ops, DELIVERED)
    await store.put_off(ops, {of(1): START_US})
    assert await due(store, ops) == []


async def test_what_is_no_opening_stays_silenced(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    await store.silence(ops, [of(1)], now=START_US, owned_from=START_US)
    assert await store.silenced_openings(ops) == []


async def test_a_sink_knows_the_open_problems_whose_opening_it_took(
    store: SqlStore, problem: Problem, ops: Lease, clock: SetClock
) -> None:
    assert await store.sent_openings(ops) == []
    clock.us += SECOND_US
    await settle_all(store, ops, DELIVERED)
    (sent,) = await store.sent_openings(ops)
    assert (sent.problem, sent.closed_at, sent.reminded_at) == (problem, None, None)
    assert (sent.recorded_at, sent.settled_at) == (START_US, START_US + SECOND_US)
    assert b"accounts/default" in sent.body


@pytest.mark.parametrize(("state", "is_sent"), [(DeliveryState.ACCEPTED, True), (DEAD, False)])
@pytest.mark.usefixtures("problem")
async def test_what_died_was_not_sent(store: SqlStore, ops: Lease, state: DeliveryState, *, is_sent: bool) -> None:
    await settle_all(store, ops, state)
    assert bool(await store.sent_openings(ops)) is is_sent


async def test_a_problem_that_was_closed_lately_is_known_on_request(
    store: SqlStore, problem: Problem, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await settle_all(store, ops, DELIVERED)
    clock.us += SECOND_US
    await store.record(closes(account, problem, clock))
    assert await store.sent_openings(ops) == []
    (sent,) = await store.sent_openings(ops, closed_from=clock.now())
    assert sent.closed_at == clock.now()
    assert await store.sent_openings(ops, closed_from=clock.now() + timedelta(microseconds=1)) == []


async def test_a_reminder_is_kept_with_its_event_and_the_last_one_counts(
    store: SqlStore, problem: Problem, ops: Lease
) -> None:
    await settle_all(store, ops, DELIVERED)
    for sequence, at in ((1, Micros(7)), (2, Micros(8))):
        reminded = replace(source_change(ops, sequence=sequence, state=None), reminders=(Reminder(problem.id, at),))
        await store.record(reminded)
        assert [each.reminded_at for each in await store.sent_openings(ops)] == [at]
    assert len(await due(store, ops)) == 1
    assert (await store.load_sink(ops, fingerprint="x")).sequence == 2


async def test_a_dead_letter_is_replayed_once_and_goes_as_if_it_were_new(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock, woken: Woken
) -> None:
    await store.record(change(account))
    await settle_all(store, ops, DEAD, steps=3, rejections=5, group_id=UUID(int=1))
    clock.us = LATER
    woken.names.clear()
    assert await store.replay("ops", of(1))
    assert woken.names == ["ops"]
    (again,) = await due(store, ops)
    assert (again.replayed, again.attempts, again.steps, again.rejections) == (True, 0, 0, 0)
    assert (again.due_at, again.tried_at, again.first_due_at_s) == (LATER, 0, None)
    assert not await store.replay("ops", of(1))
    assert woken.names == ["ops"]


@pytest.mark.parametrize("sink", ["ops", "other"])
async def test_what_is_no_dead_letter_of_that_sink_is_not_replayed(
    store: SqlStore, account: Lease, ops: Lease, sink: str
) -> None:
    await store.record(change(account))
    await settle_all(store, ops, DEAD if sink == "other" else DELIVERED)
    assert not await store.replay(sink, of(1))
    assert await due(store, ops) == []


async def test_all_dead_letters_of_a_sink_are_replayed(store: SqlStore, account: Lease, ops: Lease) -> None:
    other = await store.claim("sink", "other")
    count = REPLAYED_COUNT + 1
    changes = [change(account, number, sinks=("ops", "other")) for number in range(count)]
    await asyncio.gather(*map(store.record, changes))
    for sink in (ops, other):
        assert await store.give_up(sink, now=START_US, clock_s=1, after_s=0) == count
    assert await store.replay_all("ops") == count
    assert {name: each.pending_count for name, each in (await store.backlog()).items()} == {"ops": count}
    assert await store.replay_all("ops") == 0
    assert await store.replay_all("other") == count


async def test_what_is_replayed_is_not_pruned(store: SqlStore, account: Lease, ops: Lease, clock: SetClock) -> None:
    await store.record(change(account, ended_at=START_US))
    await settle_all(store, ops, DEAD)
    await store.replay("ops", of(1))
    clock.us += 90 * DAY_US
    async for _ in store.prune(await upkeep(store), ended_before=clock.steady_us(), keep=lambda *_: False):
        pass
    assert len(await due(store, ops, now=clock.steady_us())) == 1


async def test_who_lost_the_lease_silences_groups_and_releases_nothing(store: SqlStore, ops: Lease) -> None:
    await store.claim("sink", "ops")
    for asked in (
        store.fix_groups(ops, []),
        store.silence(ops, [], now=LATER, owned_from=LATER),
        store.release_silenced(ops, [], now=LATER),
        store.put_off(ops, {}),
    ):
        with pytest.raises(OwnershipLostError):
            await asked
