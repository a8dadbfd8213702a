"""What every store promises of what people do: problems that are taken, silences, and what owners are asked for."""

import asyncio
import json
from datetime import timedelta
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from contract.conftest import on_both, prune
from stores import (
    DAY_US,
    SECOND_US,
    START,
    SetClock,
    StoreRig,
    claim,
    closed,
    due,
    open_soon,
    operator_of,
    problems_of,
    settle,
    silence,
    sink_of,
    upkeep,
)

from watcher.domain.delivery import Delivery
from watcher.domain.errors import SequenceConflictError
from watcher.domain.event import AccountTrouble, ClosedReason, EventType, OutboxEntry
from watcher.domain.event_factory import EventFactory
from watcher.domain.problems import Problem
from watcher.domain.routing import Router
from watcher.domain.timestamps import to_us
from watcher.store.changes import Lease, SourceChange
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore

EVENTS = EventFactory(Router({}))
ACKNOWLEDGED = EventType.PROBLEM_ACKNOWLEDGED
DANA: dict[str, Any] = {"by": "dana", "comment": "on it", "until": None}


async def degrade(store: SqlStore, account: Lease, *sinks: str) -> Problem:
    """Have an account degraded, of which these sinks are told."""
    told = EVENTS.account(account.name, AccountTrouble.INVALID, None, cause="500", problem=None, after=0, at=START)
    assert told.problem is not None
    entries = (OutboxEntry(told.entry.event, sinks),)
    await store.record(SourceChange(account, 0, 1, "invalid", entries, (told.problem,)))
    return told.problem.problem


async def told_of(sink: SinkStore, type_: EventType = ACKNOWLEDGED) -> list[Delivery]:
    """Return what waits for a sink of that type, once all before it is settled."""
    while (found := await due(sink)) and not any(each.type == type_ for each in found):
        await settle(sink, *found)
    return [each for each in found if each.type == type_]


@on_both
async def test_those_who_were_told_of_a_problem_are_told_that_somebody_took_it(rig: StoreRig) -> None:
    other = await sink_of(rig.store, "other")
    problem, operator = await degrade(rig.store, rig.account, "ops"), operator_of(rig.store)
    rig.woken.names.clear()
    assert await operator.acknowledge(problem.id, **DANA)
    await asyncio.sleep(0)
    assert rig.woken.names == ["ops"]
    assert [each.type for each in await due(rig.ops)] == [EventType.ACCOUNT_DEGRADED]  # first the one, then the other
    (taken,) = await told_of(rig.ops)
    assert (taken.is_opening_sent, taken.only_closes, taken.problem) == (True, False, problem.id)
    assert taken.content["data"]["acknowledgement"] == {"by": "dana", "comment": "on it"}
    assert taken.content["data"]["cause"] == "500"
    assert await due(other) == []


@pytest.mark.parametrize("is_silenced_first", [False, True])
@pytest.mark.parametrize("may_be_sent", [False, True])
async def test_an_acknowledgement_of_a_silenced_opening_is_known_to_be_early_and_is_released_after_it(
    rig: StoreRig, *, is_silenced_first: bool, may_be_sent: bool
) -> None:
    problem, operator = await degrade(rig.store, rig.account, "ops"), operator_of(rig.store)
    if not is_silenced_first:
        await operator.acknowledge(problem.id, **DANA)
    await silence(rig.ops, *await due(rig.ops), tried=may_be_sent)
    if is_silenced_first:
        await operator.acknowledge(problem.id, **DANA)
    (taken,) = await due(rig.ops)
    assert (taken.type, taken.is_opening_sent) == (ACKNOWLEDGED, False)
    await silence(rig.ops, taken)
    assert await due(rig.ops) == []
    await rig.ops.release()
    assert [each.type for each in await due(rig.ops)] == [EventType.ACCOUNT_DEGRADED]
    (taken,) = await told_of(rig.ops)
    assert (taken.is_opening_sent, taken.attempts) == (True, 0)
    await settle(rig.ops, taken)
    await rig.ops.release()
    assert await due(rig.ops) == []


async def test_a_problem_is_taken_again_and_given_back(rig: StoreRig) -> None:
    problem, operator = await degrade(rig.store, rig.account, "ops"), operator_of(rig.store)
    await settle(rig.ops, *await due(rig.ops))

    async def until() -> object:
        (opening,) = await rig.ops.sent_openings()
        return opening.acked_until

    assert await until() is None
    assert not await operator.unacknowledge(problem.id)
    later = rig.clock.now() + timedelta(hours=2)
    for sequence, taken_until in ((1, later), (2, None)):
        assert await operator.acknowledge(problem.id, by="dana", comment=None, until=taken_until)
        (taken,) = await told_of(rig.ops)
        assert int(taken.content["sequence"]) == sequence
        await settle(rig.ops, taken)
        at = await until()
        assert at == taken_until or (taken_until is None and at > later)  # type: ignore[operator] # a time by then
    assert await operator.unacknowledge(problem.id)
    assert await until() is None
    assert await due(rig.ops) == []


async def test_several_are_acknowledged_in_one_transaction(rig: StoreRig, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = [await claim(rig.store, "account", name) for name in ("one", "two", "over")]
    one, two, over = [await degrade(rig.store, each, "ops") for each in accounts]
    await rig.store.record(SourceChange(accounts[2], 1, 2, None, (), closed(over)))
    operator, write = operator_of(rig.store), Mock(side_effect=rig.store.write)
    monkeypatch.setattr(rig.store, "write", write)
    ids = [two.id, UUID(int=77), over.id, one.id, two.id]
    assert sorted(await operator.acknowledge(*ids, **DANA)) == sorted([one.id, two.id])
    assert write.call_count == 1
    assert {each.problem for each in await told_of(rig.ops)} == {one.id, two.id}
    assert list(await operator.acknowledge(over.id, UUID(int=77), **DANA)) == []


async def test_a_problem_is_closed_after_it_was_taken_under_the_next_number(rig: StoreRig) -> None:
    problem, operator = await degrade(rig.store, rig.account, "ops"), operator_of(rig.store)
    closing = EVENTS.closing(problem, None, reason=ClosedReason.REMOVED, after=0, at=START)
    await operator.acknowledge(problem.id, **DANA)
    assert closing.problem is not None
    with pytest.raises(SequenceConflictError):  # whoever closes it had not seen that; nothing is written
        await (await upkeep(rig.store)).close_problems([(closing.entry, closing.problem)])
    (seen,) = await problems_of(rig.store)
    closing = EVENTS.closing(problem, None, reason=ClosedReason.REMOVED, after=seen.event_count, at=START)
    assert closing.problem is not None
    assert await (await upkeep(rig.store)).close_problems([(closing.entry, closing.problem)]) == 1
    (over,) = await told_of(rig.ops, EventType.PROBLEM_CLOSED)
    assert over.content["sequence"] == "0000000002"


async def test_silences_are_there_for_every_replica_until_they_end(store: SqlStore, url: str, clock: SetClock) -> None:
    operator, now = operator_of(store), clock.now()
    match = json.dumps({"labels": {"team": "sales"}})
    made = [
        await operator.add_silence(match, starts_at=now, ends_at=now + timedelta(hours=hours), by="dana", comment=None)
        for hours in (1, 2, 3)
    ]
    ends_at = to_us(now + timedelta(hours=1))
    assert made[0] == (made[0].id, match, to_us(now), ends_at, "dana", None)
    assert await operator.silences() == made
    assert await operator.end_silence(made[1].id)
    assert not await operator.end_silence(made[1].id)
    assert not await operator.end_silence(99)
    clock.us += 3_600 * SECOND_US
    assert await operator.silences() == made[2:]
    await store.close()
    again = await open_soon(url, clock=clock)
    assert await operator_of(again).silences() == made[2:]
    await again.close()


async def test_silences_are_kept_and_vain_actions_a_day(store: SqlStore, clock: SetClock, ops: SinkStore) -> None:
    operator = operator_of(store)
    made = await operator.add_silence("{}", starts_at=START, ends_at=START + timedelta(days=9), by=None, comment=None)
    await operator.request_action("enable", "ops")
    clock.us += DAY_US
    await prune(store, before=clock.us)
    assert (await operator.silences(), await operator.load_actions()) == ([made], [("enable", "ops")])
    clock.us += 1
    await prune(store, before=clock.us)
    assert await operator.load_actions() == []
    clock.us += 9 * DAY_US
    await prune(store, before=clock.us)
    clock.us -= 9 * DAY_US
    assert await operator.silences() == []
