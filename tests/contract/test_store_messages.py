"""What every store promises about messages of problems: kept with the attempt that posted them."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import stores
from contract.conftest import prune
from stores import PIPELINE, SECOND_US, START_US, StoreRig, claim, due, event, from_us, sink_of, stream_of

from watcher.domain.delivery import Delivery, DeliveryState, MessagePlace, ProblemMessage
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.rules import RuleState
from watcher.domain.timestamps import Micros
from watcher.store.account_store import AccountStore
from watcher.store.changes import Lease, SourceChange
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore, open_store

SUBJECT = f"default/{PIPELINE}"
PROBLEM = Problem(UUID(int=1), EventType.PIPELINE_FAILING, from_us(START_US), EventKey(stream_of(SUBJECT), 1))
FIRST, SECOND = MessagePlace("C1", "1.1"), MessagePlace("C2", "2.2")
OPENING = event(SUBJECT, sequence=1).body


def edge(account: Lease, before: int, problem: ProblemChange) -> SourceChange:
    entry = OutboxEntry(event(SUBJECT, sequence=before + 1, type_=EventType.PIPELINE_FAILING), ("ops",))
    return SourceChange(account, before, before + 1, None, (entry,), (problem,), pipeline=PIPELINE, rules=RuleState())


async def open_and_settle(
    store: SqlStore, account: Lease, ops: SinkStore, *messages: ProblemMessage, state: str = "delivered"
) -> None:
    """Open the problem, and settle its opening with these messages."""
    await store.record(edge(account, 0, ProblemChange(PROBLEM, is_new=True)))
    await settle(ops, *messages, state=state)


async def settle(ops: SinkStore, *messages: ProblemMessage, state: str = "delivered") -> None:
    await stores.settle(ops, *await due(ops), state=DeliveryState(state), messages=messages)


async def kept(store: SqlStore, sink: SinkStore) -> ProblemMessage | None:
    """Return the message of the problem, as a reminder finds it."""
    return (await found(store, sink, "reminder", problem=PROBLEM.id)).message


async def thread(store: SqlStore, sink: SinkStore) -> ProblemMessage | None:
    """Return the message in whose thread a failure of the pipeline belongs."""
    failed = {"type_": EventType.EXECUTION_FAILED, "account": "default", "pipeline": PIPELINE}
    return (await found(store, sink, "failure", **failed)).thread


async def found(store: SqlStore, sink: SinkStore, subject: str, **more: Any) -> Delivery:
    """Return what is taken of a new event, and settle it."""
    account = await claim(store, "account", "asking")
    sequence = (await AccountStore(store, account).load_account()).sequence + 1
    asking = OutboxEntry(event(subject, sequence=sequence, **more), (sink.lease.name,))
    await store.record(SourceChange(account, sequence - 1, sequence, None, (asking,)))
    (taken,) = [each for each in await due(sink, with_messages=True) if each.content["id"] == f"{subject}-{sequence}"]
    await stores.settle(sink, taken)
    return taken


@pytest.mark.parametrize("state", ["delivered", "waiting"])
async def test_a_message_is_kept_with_the_attempt_that_posted_it_and_survives_a_restart(
    rig: StoreRig, url: str, state: str
) -> None:
    await open_and_settle(rig.store, rig.account, rig.ops, ProblemMessage(PROBLEM.id, FIRST), state=state)
    await rig.store.close()
    again = await open_store(url, clock=rig.clock)
    rig.ops = await sink_of(again)
    other = await sink_of(again, "other")
    assert await kept(again, rig.ops) == await thread(again, rig.ops) == ProblemMessage(PROBLEM.id, FIRST, OPENING)
    assert await kept(again, other) is await thread(again, other) is None
    await again.close()


async def test_of_one_problem_the_last_message_counts_and_one_that_is_gone_is_forgotten(rig: StoreRig) -> None:
    gone = ProblemMessage(PROBLEM.id, None)
    await open_and_settle(rig.store, rig.account, rig.ops, gone, ProblemMessage(PROBLEM.id, FIRST))
    await rig.store.record(edge(rig.account, 1, ProblemChange(PROBLEM)))
    await settle(rig.ops, ProblemMessage(PROBLEM.id, SECOND))
    assert await kept(rig.store, rig.ops) == ProblemMessage(PROBLEM.id, SECOND, OPENING)
    await rig.store.record(edge(rig.account, 2, ProblemChange(PROBLEM)))
    await settle(rig.ops, gone)
    assert await kept(rig.store, rig.ops) is await thread(rig.store, rig.ops) is None


async def test_a_silent_pipeline_s_message_is_no_thread_for_failures(rig: StoreRig) -> None:
    silent = replace(PROBLEM, kind=EventType.PIPELINE_SILENT)
    await rig.store.record(edge(rig.account, 0, ProblemChange(silent, is_new=True)))
    await settle(rig.ops, ProblemMessage(PROBLEM.id, FIRST))
    assert await thread(rig.store, rig.ops) is None


async def test_a_message_goes_with_its_problem_and_none_is_kept_of_a_problem_that_went(rig: StoreRig) -> None:
    await open_and_settle(rig.store, rig.account, rig.ops, ProblemMessage(PROBLEM.id, FIRST))
    await rig.store.record(edge(rig.account, 1, ProblemChange(PROBLEM, closed_at=from_us(START_US))))
    rig.clock.us = START_US + 90 * 86_400 * SECOND_US
    await prune(rig.store, before=Micros(rig.clock.us - SECOND_US))
    assert await kept(rig.store, rig.ops) is None
    await settle(rig.ops, ProblemMessage(PROBLEM.id, SECOND))  # the closing, sent very late
    assert await kept(rig.store, rig.ops) is None
