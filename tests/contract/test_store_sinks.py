"""What every store promises of silences, of how the opening of a problem stands, reminders and dead letters."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from contract.conftest import prune
from stores import (
    DAY_US,
    LATER,
    SECOND_US,
    START,
    START_US,
    SetClock,
    StoreRig,
    closed,
    due,
    event,
    execution_id,
    names,
    of,
    opened,
    operator_of,
    settle,
    settle_all,
    silence,
    sink_of,
    source_change,
    stream_of,
    taken,
)

from watcher.domain.delivery import DeliveryState
from watcher.domain.envelope import event_of, sink_source
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.timestamps import Micros
from watcher.store import operator_store
from watcher.store.changes import Lease, SourceChange
from watcher.store.sink_store import DEAD_FOR_US, SinkStore
from watcher.store.sql_store import SqlStore

OPENING = EventKey(stream_of("accounts/default"), 1)
ACCEPTED, DEAD, DELIVERED = DeliveryState.ACCEPTED, DeliveryState.DEAD, DeliveryState.DELIVERED
SILENCED, WAITING = DeliveryState.SILENCED, DeliveryState.WAITING
DEGRADED, RECOVERED, REMINDER = EventType.ACCOUNT_DEGRADED, EventType.ACCOUNT_RECOVERED, EventType.PROBLEM_REMINDER


@pytest.fixture
async def problem(store: SqlStore, account: Lease, clock: SetClock) -> Problem:
    """An open problem whose opening waits to be sent to `ops`."""
    degraded = Problem(UUID(int=5), DEGRADED, clock.now(), OPENING)
    await store.record(source_change(account, problems=opened(degraded)))
    return degraded


def closes(
    account: Lease, problem: Problem, clock: SetClock, *, type_: EventType = RECOVERED, sinks: tuple[str, ...] = ()
) -> SourceChange:
    """Return what ends the problem, for these and for whoever was sent its opening."""
    emitted = event("accounts/default", sequence=2, type_=type_, problem=problem.id, closes=True)
    closing = OutboxEntry(emitted, sinks)
    return SourceChange(account, 1, 2, None, (closing,), (ProblemChange(problem, closed_at=clock.now()),))


def reminds(sink: SinkStore, problem: Problem, *, sequence: int = 1, at: int = 7) -> SourceChange:
    emitted = event("sinks/ops", sequence=sequence, type_=REMINDER, problem=problem.id)
    entry = OutboxEntry(emitted, (sink.lease.name,))
    return SourceChange(sink.lease, sequence - 1, sequence, None, (entry,), reminders={problem.id: Micros(at)})


async def test_a_silenced_opening_waits_again_before_its_closing(rig: StoreRig, problem: Problem) -> None:
    await rig.ops.release()  # of nothing
    await silence(rig.ops, *await due(rig.ops))
    await rig.record(1)
    rig.clock.us += SECOND_US
    await rig.ops.release()
    kept_back, other = sorted(await due(rig.ops), key=lambda each: each.number)
    assert (names([kept_back]), names([other])) == (["accounts/default-1"], [of(1)])
    assert (kept_back.attempts, kept_back.due_at) == (0, rig.clock.us)
    await rig.store.record(closes(rig.account, problem, rig.clock))
    assert len(await due(rig.ops)) == 2  # the closing waits for it
    await settle_all(rig.ops)
    await rig.ops.release()
    assert await due(rig.ops) == []


@pytest.mark.parametrize(
    ("settled", "is_sent"),
    [
        ({"state": DELIVERED}, True),
        ({"state": DEAD}, True),  # and may have been sent
        ({"state": SILENCED, "tried": False}, False),
        ({"state": SILENCED, "tried": True}, True),
        (None, None),
    ],
)
@pytest.mark.parametrize("type_", [RECOVERED, EventType.EXECUTION_FAILED])
async def test_what_closes_a_problem_knows_whether_its_opening_was_sent(
    rig: StoreRig, problem: Problem, settled: dict[str, Any] | None, type_: EventType, *, is_sent: bool | None
) -> None:
    sink = rig.ops if settled is not None else await sink_of(rig.store, "log")  # which the opening did not go to
    if settled is not None:
        await settle(rig.ops, *await due(rig.ops), **settled)
    await rig.store.record(closes(rig.account, problem, rig.clock, type_=type_, sinks=(sink.lease.name,)))
    (closing,) = await due(sink)
    assert (closing.problem, closing.closes, closing.is_problem_open) == (problem.id, True, False)
    # What only closes went there because the opening had gone there, which retention may have taken since.
    assert closing.is_opening_sent is (type_ is RECOVERED if is_sent is None else is_sent)


async def test_a_reminder_knows_whether_its_problem_is_open(rig: StoreRig, problem: Problem) -> None:
    await settle_all(rig.ops)
    await rig.store.record(reminds(rig.ops, problem))
    (reminder,) = await due(rig.ops)
    assert (reminder.type, reminder.is_opening_sent, reminder.is_problem_open) == (REMINDER, True, True)
    await rig.store.record(closes(rig.account, problem, rig.clock))
    reminder, _ = await due(rig.ops)
    assert not reminder.is_problem_open
    await settle(rig.ops, *await due(rig.ops))
    await rig.store.record(reminds(rig.ops, problem, sequence=2))
    rig.clock.us += 90 * DAY_US
    await prune(rig.store, before=rig.clock.steady_us())
    (reminder,) = await due(rig.ops, now=rig.clock.us)
    assert not reminder.is_problem_open  # retention took it


@pytest.mark.parametrize(("state", "is_sent"), [(DELIVERED, True), (ACCEPTED, True), (DEAD, False), (SILENCED, False)])
async def test_it_knows_which_openings_it_took(rig: StoreRig, problem: Problem, state: str, *, is_sent: bool) -> None:
    assert await rig.ops.sent_openings() == []
    rig.clock.us += SECOND_US
    await settle_all(rig.ops, state=DeliveryState(state))
    found = await rig.ops.sent_openings()
    assert bool(found) is is_sent
    if is_sent:
        (sent,) = found
        assert (sent.problem, sent.closed_at, sent.reminded_at) == (problem, None, None)
        assert (sent.recorded_at, sent.settled_at) == (START_US, START_US + SECOND_US)
        assert b"accounts/default" in sent.body
        for sequence, at in ((1, 7), (2, 8)):
            await rig.ops.record(reminds(rig.ops, problem, sequence=sequence, at=at))
            assert [each.reminded_at for each in await rig.ops.sent_openings()] == [at]
        assert (await rig.ops.load(fingerprint="x")).sequence == 2
    rig.clock.us += SECOND_US
    await rig.store.record(closes(rig.account, problem, rig.clock))
    assert await rig.ops.sent_openings() == []
    now = rig.clock.now()
    assert [each.closed_at for each in await rig.ops.sent_openings(closed_from=now)] == [now] * is_sent
    assert await rig.ops.sent_openings(closed_from=rig.clock.now() + timedelta(microseconds=1)) == []


async def test_a_dead_letter_is_replayed_once_and_goes_as_if_it_were_new(rig: StoreRig) -> None:
    operator = operator_of(rig.store)
    await rig.record()
    dead = [each.number for each in await due(rig.ops)]
    assert await operator.replay("ops", dead) == 0  # it waits
    await settle_all(rig.ops, state=DEAD, rejections=5, attempts=9, group_key=b"a")
    rig.clock.us = LATER
    rig.woken.names.clear()
    assert await operator.replay("other", dead) == 0
    assert await operator.replay("ops", [*dead, 99]) == 1
    assert await operator.replay("ops", dead) == 0
    assert rig.woken.names == ["ops"]
    (again,) = await due(rig.ops)
    assert (again.replayed, again.attempts, again.rejections, again.group_key) == (True, 0, 0, None)
    assert (again.due_at, again.tried_at, again.first_due_at_s) == (LATER, 0, None)
    await settle_all(rig.ops)
    assert await operator.replay("ops", dead) == 0


async def test_all_dead_letters_are_replayed_in_short_steps(rig: StoreRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_store, "REPLAYED_COUNT", 2)
    operator = operator_of(rig.store)
    for number in range(1, 6):
        await rig.record(number)
    waiting, *dying = await due(rig.ops)
    await settle(rig.ops, *dying, state=DEAD)
    numbers = [each.number for each in dying]
    assert await operator.replay("ops", [*numbers[:3], waiting.number]) == 3
    assert await operator.replay("ops", None) == 1
    assert await operator.replay("ops", None) == 0
    await settle_all(rig.ops, state=DEAD)
    assert await operator.replay("ops", None) == 5
    assert len(await due(rig.ops, now=rig.clock.us)) == 5


async def test_what_is_replayed_waits_for_nothing_and_holds_nothing_back(rig: StoreRig) -> None:
    for sequence in (1, 2, 3):
        await rig.record(sequence=sequence)
    for how in ({"state": DELIVERED}, {"state": DEAD}, {"state": WAITING, "due_at": LATER + 1}):
        await settle(rig.ops, *await due(rig.ops), **how)
    assert await operator_of(rig.store).replay("ops", None) == 1
    (replayed,) = await due(rig.ops)  # though another of its execution waits to be tried again
    assert names([replayed]) == [of(1, sequence=2)]
    await settle(rig.ops, replayed, state=WAITING, due_at=LATER + 9)
    assert names(await due(rig.ops, now=LATER + 1)) == [of(1, sequence=3)]
    await rig.record(sequence=4)
    assert len((await taken(rig.ops, now=LATER + 1)).batches) == 1  # the next of its execution waits for that alone


async def test_what_is_replayed_is_not_pruned(rig: StoreRig) -> None:
    await rig.record(end_seen_at=START_US)
    await settle_all(rig.ops, state=DEAD)
    assert await operator_of(rig.store).replay("ops", None) == 1
    rig.clock.us += 90 * DAY_US
    await prune(rig.store, before=rig.clock.steady_us())
    assert len(await due(rig.ops, now=rig.clock.us)) == 1


FAILING, DISABLED = EventType.SINK_FAILING, EventType.SINK_DISABLED


async def told_twice(store: SqlStore, hook: SinkStore, clock: SetClock, sinks: Sequence[tuple[str, ...]]) -> Problem:
    """Have a sink fail, and then be disabled: one problem, of which each is told to these sinks."""
    problem = Problem(UUID(int=9), FAILING, clock.now(), EventKey(stream_of("sinks/hook"), 1))
    for sequence, (type_, names_) in enumerate(zip((FAILING, DISABLED), sinks, strict=True), 1):
        emitted = event("sinks/hook", sequence=sequence, type_=type_, problem=problem.id, ordering_key=b"hook")
        edge = ProblemChange(problem, is_new=sequence == 1)
        entries = (OutboxEntry(emitted, names_),)
        await store.record(SourceChange(hook.lease, sequence - 1, sequence, "any", entries, (edge,)))
    return problem


async def test_an_end_goes_to_all_that_were_told_of_it(store: SqlStore, ops: SinkStore, clock: SetClock) -> None:
    hook, first, both = [await sink_of(store, name) for name in ("hook", "first", "both")]
    problem = await told_twice(store, hook, clock, [("first", "both"), ("ops", "both")])
    for sink in (ops, first, both):
        await settle_all(sink)
    emitted = event("sinks/hook", sequence=3, type_=EventType.SINK_RECOVERED, problem=problem.id, closes=True)
    change_ = SourceChange(hook.lease, 2, 3, None, (OutboxEntry(emitted, ()),), closed(problem))
    await store.record(change_)
    for sink in (ops, first, both):
        (end,) = await due(sink)
        assert (names([end]), end.is_opening_sent) == (["sinks/hook-3"], True)


def report_of_dead(sink: SinkStore, *, sequence: int = 1, sinks: tuple[str, ...] = ()) -> SourceChange:
    """Return `delivery.dead` of a sink."""
    source, type_ = sink_source(sink.lease.name), EventType.DELIVERY_DEAD
    emitted = event_of(type_, source, START, sequence=sequence, data={})
    return SourceChange(sink.lease, sequence - 1, sequence, None, (OutboxEntry(emitted, sinks),))


async def test_dead_letters_since_a_moment_are_counted_with_the_newest_of_them(rig: StoreRig) -> None:
    await rig.record(1, 2, 3)
    for late_us, letter in enumerate(await due(rig.ops)):
        rig.clock.us = LATER + late_us
        await settle(rig.ops, letter, state=DEAD, answer=f"40{late_us}")
    newest = (2, "execution.running", event(execution_id(3), sequence=1).id.bytes, "402")
    assert await rig.ops.dead_since(Micros(LATER)) == newest
    assert await rig.ops.dead_since(Micros(LATER + 2)) is None


async def test_a_sink_knows_since_when_its_dead_letters_are_not_reported(rig: StoreRig) -> None:
    assert (await rig.ops.load(fingerprint="x")).dead_from == rig.clock.us - DEAD_FOR_US
    for sequence in (1, 2):
        rig.clock.us += SECOND_US
        await rig.store.record(report_of_dead(rig.ops, sequence=sequence))
    reported_at = rig.clock.us
    rig.clock.us += SECOND_US
    assert (await rig.ops.load(fingerprint="x")).dead_from == reported_at
    rig.clock.us = START_US  # the clock that wrote it was ahead
    assert (await rig.ops.load(fingerprint="x")).dead_from == START_US
