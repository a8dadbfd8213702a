"""What every store promises about messages of problems: kept with the attempt that posted them."""

from dataclasses import replace
from uuid import UUID

import pytest
from stores import (
    PIPELINE,
    SECOND_US,
    START_US,
    SetClock,
    Woken,
    attempt_record,
    change,
    event,
    from_us,
    stream_of,
    upkeep,
)

from watcher.domain.delivery import DeliveryState, MessagePlace, ProblemMessage
from watcher.domain.errors import OwnershipLostError
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.rules import RuleState
from watcher.domain.timestamps import Micros
from watcher.store.changes import Lease, RulesChange
from watcher.store.open import open_store
from watcher.store.sql_store import SqlStore

SUBJECT = f"default/{PIPELINE}"
PROBLEM = Problem(UUID(int=1), EventType.PIPELINE_FAILING, from_us(START_US), EventKey(stream_of(SUBJECT), 1))
OF_PIPELINE = ("default", PIPELINE)
FIRST, SECOND = MessagePlace("C1", "1.1"), MessagePlace("C2", "2.2")
OPENING = event(SUBJECT, sequence=1).body


def edge(account: Lease, before: int, problem: ProblemChange) -> RulesChange:
    entry = OutboxEntry(event(SUBJECT, sequence=before + 1, type_=EventType.PIPELINE_FAILING), ("ops",))
    return RulesChange(account, PIPELINE, before, before + 1, RuleState(), (entry,), (problem,))


async def open_and_settle(
    store: SqlStore, account: Lease, ops: Lease, *messages: ProblemMessage, state: str = "delivered"
) -> None:
    """Open the problem, and settle its opening with these messages."""
    await store.record(edge(account, 0, ProblemChange(PROBLEM, is_new=True)))
    await settle(store, ops, *messages, state=state)


async def settle(store: SqlStore, ops: Lease, *messages: ProblemMessage, state: str = "delivered") -> None:
    (delivery,) = (await store.next_deliveries(ops, now=Micros(START_US + SECOND_US), limit=1)).deliveries
    await store.settle(replace(attempt_record(ops, delivery, state=DeliveryState(state)), messages=messages))


async def kept(store: SqlStore, sink: Lease) -> ProblemMessage | None:
    return (await store.messages_of_problems(sink, [PROBLEM.id, UUID(int=7)])).get(PROBLEM.id)


async def thread(store: SqlStore, sink: Lease) -> ProblemMessage | None:
    return (await store.messages_of_failing(sink, [OF_PIPELINE, ("other", PIPELINE)])).get(OF_PIPELINE)


@pytest.mark.parametrize("state", ["delivered", "waiting"])
async def test_a_message_is_kept_with_the_attempt_that_posted_it_and_survives_a_restart(
    store: SqlStore, account: Lease, ops: Lease, url: str, clock: SetClock, state: str
) -> None:
    await open_and_settle(store, account, ops, ProblemMessage(PROBLEM.id, FIRST), state=state)
    await store.close()
    again = await open_store(url, clock=clock, on_recorded=Woken())
    ops = await again.claim("sink", "ops")
    other = await again.claim("sink", "other")
    assert await kept(again, ops) == await thread(again, ops) == ProblemMessage(PROBLEM.id, FIRST, OPENING)
    assert await kept(again, other) is await thread(again, other) is None
    await again.close()


async def test_of_one_problem_the_last_message_counts_and_one_that_is_gone_is_forgotten(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    gone = ProblemMessage(PROBLEM.id, None)
    await open_and_settle(store, account, ops, gone, ProblemMessage(PROBLEM.id, FIRST))
    await store.record(edge(account, 1, ProblemChange(PROBLEM)))
    await settle(store, ops, ProblemMessage(PROBLEM.id, SECOND))
    assert await kept(store, ops) == ProblemMessage(PROBLEM.id, SECOND, OPENING)
    await store.record(edge(account, 2, ProblemChange(PROBLEM)))
    await settle(store, ops, gone)
    assert await kept(store, ops) is await thread(store, ops) is None


async def test_failures_belong_in_the_thread_only_while_the_problem_is_open(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    await open_and_settle(store, account, ops, ProblemMessage(PROBLEM.id, FIRST))
    await store.record(edge(account, 1, ProblemChange(PROBLEM, closed_at=from_us(START_US))))
    assert await thread(store, ops) is None
    assert await kept(store, ops) == ProblemMessage(PROBLEM.id, FIRST, OPENING)


async def test_a_silent_pipeline_s_message_is_no_thread_for_failures(
    store: SqlStore, account: Lease, ops: Lease
) -> None:
    silent = replace(PROBLEM, kind=EventType.PIPELINE_SILENT)
    await store.record(edge(account, 0, ProblemChange(silent, is_new=True)))
    await settle(store, ops, ProblemMessage(PROBLEM.id, FIRST))
    assert await thread(store, ops) is None


async def test_a_message_goes_with_its_problem_and_none_is_kept_of_a_problem_that_went(
    store: SqlStore, account: Lease, ops: Lease, clock: SetClock
) -> None:
    await open_and_settle(store, account, ops, ProblemMessage(PROBLEM.id, FIRST))
    await store.record(edge(account, 1, ProblemChange(PROBLEM, closed_at=from_us(START_US))))
    clock.us = START_US + 90 * 86_400 * SECOND_US
    async for _ in store.prune(await upkeep(store), ended_before=Micros(clock.us - SECOND_US), keep=lambda *_: False):
        pass
    assert await kept(store, ops) is None
    await settle(store, ops, ProblemMessage(PROBLEM.id, SECOND))  # the closing, sent very late
    assert await kept(store, ops) is None


async def test_who_lost_the_lease_keeps_no_message(store: SqlStore, account: Lease, ops: Lease) -> None:
    await store.record(change(account))
    (delivery,) = (await store.next_deliveries(ops, now=Micros(START_US + SECOND_US), limit=1)).deliveries
    records = replace(attempt_record(ops, delivery), messages=(ProblemMessage(PROBLEM.id, FIRST),))
    await store.claim("sink", "ops")
    with pytest.raises(OwnershipLostError):
        await store.settle(records)
