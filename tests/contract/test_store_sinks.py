"""What every store promises of silences, of how the opening of a problem stands, reminders and dead letters."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from stores import (
    DAY_US,
    LATER,
    SECOND_US,
    START_US,
    SetClock,
    Woken,
    change,
    closed,
    due,
    event,
    names,
    of,
    opened,
    operator_of,
    overdue,
    settle,
    settle_all,
    silence,
    sink_of,
    source_change,
    stream_of,
    taken,
    upkeep,
)

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.timestamps import Micros
from watcher.store import operator_store
from watcher.store.changes import Lease, SourceChange
from watcher.store.sink_store import SinkStore
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


async def test_what_is_silenced_is_settled_and_lets_the_next_go(
    store: SqlStore, account: Lease, ops: SinkStore
) -> None:
    await store.record(change(account))
    await store.record(change(account, sequence=2))
    await silence(ops, *await due(ops))
    assert names(await due(ops)) == [of(1, sequence=2)]
    await ops.release()  # which lets go of openings alone
    assert (await store.backlog())["ops"].pending_count == 1


async def test_whom_a_silence_kept_an_event_from_is_not_sent_its_end(
    store: SqlStore, account: Lease, ops: SinkStore
) -> None:
    await store.record(change(account, sinks=("ops", "log"), problems=opened(overdue(1))))
    await silence(ops, *await due(ops))
    await store.record(change(account, sequence=2, sinks=(), problems=closed(overdue(1))))
    assert await due(ops) == []
    assert (await store.backlog())["log"].pending_count == 2


async def test_an_opening_that_was_silenced_waits_again_while_its_problem_is_open_and_before_its_closing(
    store: SqlStore, problem: Problem, account: Lease, ops: SinkStore, clock: SetClock
) -> None:
    await ops.release()  # of nothing
    await silence(ops, *await due(ops))
    await store.record(change(account, 1))
    clock.us += SECOND_US
    await ops.release()
    kept_back, other = sorted(await due(ops), key=lambda each: each.number)
    assert (names([kept_back]), names([other])) == (["accounts/default-1"], [of(1)])
    assert (kept_back.attempts, kept_back.due_at) == (0, clock.us)
    await store.record(closes(account, problem, clock))
    assert len(await due(ops)) == 2  # the closing waits for it
    await settle_all(ops)
    await ops.release()
    assert await due(ops) == []


async def test_nothing_of_a_closed_problem_waits_again(
    store: SqlStore, problem: Problem, account: Lease, ops: SinkStore, clock: SetClock
) -> None:
    await silence(ops, *await due(ops))
    await store.record(closes(account, problem, clock))
    await ops.release()
    assert await due(ops) == []


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
    store: SqlStore,
    problem: Problem,
    account: Lease,
    ops: SinkStore,
    clock: SetClock,
    settled: dict[str, Any] | None,
    type_: EventType,
    *,
    is_sent: bool | None,
) -> None:
    sink = ops if settled is not None else await sink_of(store, "log")  # which the opening did not go to
    if settled is not None:
        await settle(ops, *await due(ops), **settled)
    await store.record(closes(account, problem, clock, type_=type_, sinks=(sink.lease.name,)))
    (closing,) = await due(sink)
    assert (closing.problem, closing.closes, closing.is_problem_open) == (problem.id, True, False)
    # What only closes went there because the opening had gone there, which retention may have taken since.
    assert closing.is_opening_sent is (type_ is RECOVERED if is_sent is None else is_sent)


async def test_a_reminder_knows_whether_its_problem_is_open_and_comes_after_the_opening(
    store: SqlStore, problem: Problem, account: Lease, ops: SinkStore, clock: SetClock
) -> None:
    await settle_all(ops)
    await store.record(reminds(ops, problem))
    (reminder,) = await due(ops)
    assert (reminder.type, reminder.is_opening_sent, reminder.is_problem_open) == (REMINDER, True, True)
    await store.record(closes(account, problem, clock))
    reminder, _ = await due(ops)
    assert not reminder.is_problem_open
    await settle(ops, *await due(ops))
    await store.record(reminds(ops, problem, sequence=2))
    clock.us += 90 * DAY_US
    async for _ in (await upkeep(store)).prune(ended_before=clock.steady_us(), keep=lambda *_: False):
        pass
    (reminder,) = await due(ops, now=clock.us)
    assert not reminder.is_problem_open  # retention took it


@pytest.mark.parametrize(("state", "is_sent"), [(DELIVERED, True), (ACCEPTED, True), (DEAD, False), (SILENCED, False)])
async def test_a_sink_knows_the_open_problems_whose_opening_it_took(
    store: SqlStore, problem: Problem, account: Lease, ops: SinkStore, clock: SetClock, state: str, *, is_sent: bool
) -> None:
    assert await ops.sent_openings() == []
    clock.us += SECOND_US
    await settle_all(ops, state=DeliveryState(state))
    found = await ops.sent_openings()
    assert bool(found) is is_sent
    if is_sent:
        (sent,) = found
        assert (sent.problem, sent.closed_at, sent.reminded_at) == (problem, None, None)
        assert (sent.recorded_at, sent.settled_at) == (START_US, START_US + SECOND_US)
        assert b"accounts/default" in sent.body
        for sequence, at in ((1, 7), (2, 8)):
            await ops.record(reminds(ops, problem, sequence=sequence, at=at))
            assert [each.reminded_at for each in await ops.sent_openings()] == [at]
        assert (await ops.load(fingerprint="x")).sequence == 2
    clock.us += SECOND_US
    await store.record(closes(account, problem, clock))
    assert await ops.sent_openings() == []
    assert [each.closed_at for each in await ops.sent_openings(closed_from=clock.now())] == [clock.now()] * is_sent
    assert await ops.sent_openings(closed_from=clock.now() + timedelta(microseconds=1)) == []


async def test_a_dead_letter_is_replayed_once_and_goes_as_if_it_were_new(
    store: SqlStore, account: Lease, ops: SinkStore, clock: SetClock, woken: Woken
) -> None:
    operator = operator_of(store)
    await store.record(change(account))
    dead = [each.number for each in await due(ops)]
    assert await operator.replay("ops", dead) == 0  # it waits
    await settle_all(ops, state=DEAD, rejections=5, attempts=9, group_key=b"a")
    clock.us = LATER
    woken.names.clear()
    assert await operator.replay("other", dead) == 0
    assert await operator.replay("ops", [*dead, 99]) == 1
    assert await operator.replay("ops", dead) == 0
    assert woken.names == ["ops"]
    (again,) = await due(ops)
    assert (again.replayed, again.attempts, again.rejections, again.group_key) == (True, 0, 0, None)
    assert (again.due_at, again.tried_at, again.first_due_at_s) == (LATER, 0, None)
    await settle_all(ops)
    assert await operator.replay("ops", dead) == 0


async def test_all_that_is_dead_is_replayed_in_short_transactions(
    store: SqlStore, account: Lease, ops: SinkStore, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_store, "REPLAYED_COUNT", 2)
    operator = operator_of(store)
    for number in range(1, 6):
        await store.record(change(account, number))
    waiting, *dying = await due(ops)
    await settle(ops, *dying, state=DEAD)
    numbers = [each.number for each in dying]
    assert await operator.replay("ops", [*numbers[:3], waiting.number]) == 3
    assert await operator.replay("ops", None) == 1
    assert await operator.replay("ops", None) == 0
    await settle_all(ops, state=DEAD)
    assert await operator.replay("ops", None) == 5
    assert len(await due(ops, now=clock.us)) == 5


async def test_what_is_replayed_waits_for_nothing_and_holds_nothing_back(
    store: SqlStore, account: Lease, ops: SinkStore
) -> None:
    for sequence in (1, 2, 3):
        await store.record(change(account, sequence=sequence))
    for how in ({"state": DELIVERED}, {"state": DEAD}, {"state": WAITING, "due_at": LATER + 1}):
        await settle(ops, *await due(ops), **how)
    assert await operator_of(store).replay("ops", None) == 1
    (replayed,) = await due(ops)  # though another of its execution waits to be tried again
    assert names([replayed]) == [of(1, sequence=2)]
    await settle(ops, replayed, state=WAITING, due_at=LATER + 9)
    assert names(await due(ops, now=LATER + 1)) == [of(1, sequence=3)]
    await store.record(change(account, sequence=4))
    assert len((await taken(ops, now=LATER + 1)).batches) == 1  # the next of its execution waits for that alone


async def test_what_is_replayed_is_not_pruned(store: SqlStore, account: Lease, ops: SinkStore, clock: SetClock) -> None:
    await store.record(change(account, ended_at=START_US))
    await settle_all(ops, state=DEAD)
    assert await operator_of(store).replay("ops", None) == 1
    clock.us += 90 * DAY_US
    async for _ in (await upkeep(store)).prune(ended_before=clock.steady_us(), keep=lambda *_: False):
        pass
    assert len(await due(ops, now=clock.us)) == 1


FAILING, DISABLED = EventType.SINK_FAILING, EventType.SINK_DISABLED


async def told_twice(store: SqlStore, hook: SinkStore, clock: SetClock, sinks: Sequence[tuple[str, ...]]) -> Problem:
    """Have a sink fail, and then be disabled: one problem, of which each is told to these sinks."""
    problem = Problem(UUID(int=9), FAILING, clock.now(), EventKey(stream_of("sinks/hook"), 1))
    for sequence, (type_, names_) in enumerate(zip((FAILING, DISABLED), sinks, strict=True), 1):
        emitted = event("sinks/hook", sequence=sequence, type_=type_, problem=problem.id, lane=b"hook")
        edge = ProblemChange(problem, is_new=sequence == 1)
        entries = (OutboxEntry(emitted, names_),)
        await store.record(SourceChange(hook.lease, sequence - 1, sequence, "any", entries, (edge,)))
    return problem


async def test_the_end_of_a_problem_goes_to_all_that_were_told_of_it_first_or_later(
    store: SqlStore, ops: SinkStore, clock: SetClock
) -> None:
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


async def test_of_a_problem_that_was_told_twice_the_last_is_let_go_and_reminded_of(
    store: SqlStore, ops: SinkStore, clock: SetClock
) -> None:
    hook, late, none = [await sink_of(store, name) for name in ("hook", "late", "none")]
    sinks = ("ops", "late", "none")
    await told_twice(store, hook, clock, [sinks, sinks])
    await silence(late, *await due(late))
    await settle_all(late)
    for _ in range(2):
        await silence(none, *await due(none))
        await settle_all(ops)
    for sink, let_go in ((ops, []), (late, []), (none, ["sinks/hook-2"])):
        await sink.release()
        assert names(await due(sink)) == let_go
        await settle_all(sink)
        (opening,) = await sink.sent_openings()
        assert b"sinks/hook-2" in opening.body
