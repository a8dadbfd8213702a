"""A clock that is set between two runs delays nothing: a wait is bounded by the wait that was wanted.

In each case something waits. The process is killed, the clock is set, and the process starts again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from pager_rig import PagerRig
from stores import DAY_US, SECOND_US, START_US, SetClock, backlog_of, change, executions_of, operator_of, upkeep
from worker_rig import BUSY, DELIVERED, EPOCH, FAILED, RULES, Rig, ScriptedSink, name_of, streams

from watcher.domain.event import EventKey, EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.judgement import ACKNOWLEDGEMENT_CHECK_S
from watcher.domain.problems import Problem
from watcher.domain.routing import GroupRules, IncidentRules, Router
from watcher.domain.timestamps import Micros
from watcher.sinks.protocol import WorkerRules
from watcher.store.account_store import AccountStore
from watcher.store.changes import BackoffState, Lease
from watcher.store.sql_store import SqlStore

WAIT_S = 12.0
KILLED_AFTER_S = 4.0
YEARS_S = 5 * 365 * 86_400.0

STEPS_S = [
    *(pytest.param(step_s, marks=pytest.mark.ci) for step_s in (-7200.0, 45.0)),
    *(pytest.param(step_s, marks=pytest.mark.soak) for step_s in (-45.0, -YEARS_S, 7200.0)),
]

SLOW = replace(RULES, schedule_s=(WAIT_S,))
PROBLEM = Problem(UUID(int=5), EventType.PIPELINE_FAILING, EPOCH, EventKey(b"a", 1))


class ClockRig(PagerRig):
    """The worker of a pager if its rules have incidents, else of a sink that notes what it is sent."""

    def __init__(self, url: str) -> None:
        super().__init__(cast("Path", url))
        self.noted = self.sink

    async def start(self, *, rules: WorkerRules, **how: Any) -> None:  # type: ignore[override] # the rules matter here
        self.sink = cast("ScriptedSink", self.pager) if rules.incidents else self.noted
        self.events = EventFactory(Router({self.name: self.route(rules)}))
        await Rig.start(self, rules=rules, **how)

    def sent(self) -> Sequence[object]:
        return [*self.pager.pages, *self.noted.take_sent()]


async def opening(rig: ClockRig) -> None:
    await rig.opens("a")


async def opening_that_somebody_took(rig: ClockRig) -> None:
    await rig.acknowledge(
        await rig.opens("a"), then_s=WAIT_S + 1
    )  # its time is over, so it is judged again each minute
    operator = operator_of(rig.real_store)
    found = await rig.real_store.read(lambda connection: connection.exec_driver_sql("SELECT id FROM problem").all())
    await operator.unacknowledge(UUID(bytes=bytes(found[0].id)))


async def group(rig: ClockRig) -> None:
    await Rig.record(rig, "a", "b", data={"account": "default", "pipeline": {"id": "p"}})


async def retry(rig: ClockRig) -> None:
    await rig.send("a", answer=FAILED)
    rig.noted.answer = lambda _: DELIVERED


async def pause(rig: ClockRig) -> None:
    await rig.send("a", answer=replace(BUSY, retry_after_s=WAIT_S))
    rig.noted.answer = lambda _: DELIVERED


async def reminder(rig: ClockRig) -> None:
    await rig.send("a", type_=EventType.PIPELINE_FAILING, problem=PROBLEM)


async def second_reminder(rig: ClockRig) -> None:
    await reminder(rig)
    await rig.later(WAIT_S + 1)


@dataclass(frozen=True)
class Case:
    """What waits, by which rules, and how many are sent of it in the end."""

    begin: Callable[[ClockRig], Awaitable[None]]
    rules: WorkerRules
    count: int = 1
    wait_s: float = WAIT_S
    is_early: bool = False
    """Whether it may be sent before the end of the wait that was wanted."""


AFTER = replace(SLOW, after_s=WAIT_S)
REMINDED = replace(SLOW, remind_every_s=WAIT_S)
CASES = [
    Case(opening, replace(SLOW, incidents=IncidentRules(("account",), wait_s=WAIT_S))),
    Case(opening, AFTER),
    Case(opening_that_somebody_took, AFTER, wait_s=ACKNOWLEDGEMENT_CHECK_S, is_early=True),
    Case(group, replace(SLOW, group=GroupRules(("pipeline",), wait_s=WAIT_S, max_count=4)), count=2),
    Case(retry, SLOW),
    Case(pause, SLOW),
    Case(reminder, REMINDED),
    Case(second_reminder, REMINDED, is_early=True),
]


@pytest.fixture
async def rig(url: str) -> AsyncIterator[ClockRig]:
    rig = ClockRig(url)
    yield rig
    assert (rig.ends, rig.pager.complaints, rig.counted("dead")) == ([], [], 0)
    await rig.kill()


@pytest.mark.parametrize("step_s", STEPS_S)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.begin.__name__) for case in CASES])
async def test_what_waits_is_sent_when_the_wanted_wait_is_over(rig: ClockRig, case: Case, step_s: float) -> None:
    await rig.start(rules=case.rules)
    await case.begin(rig)
    await rig.later(KILLED_AFTER_S)
    rig.sent()
    for by_s in (step_s, 0.0):  # the second start finds what the first one made of it
        await rig.kill()
        rig.clock.elapsed_s += by_s
        await rig.start(rules=case.rules)
    early_s = 0.0 if step_s > 0 or case.is_early else WAIT_S - KILLED_AFTER_S - 1
    await rig.later(early_s)
    assert early_s == 0 or rig.sent() == []
    await rig.later(case.wait_s + 1 - early_s)
    sent_count = len(rig.sent())
    assert sent_count >= case.count if step_s > 0 else sent_count == case.count  # two reminders may be due at once
    assert await backlog_of(rig.real_store) == {}


@pytest.mark.parametrize("step_s", [-7200.0, 45.0])
async def test_what_was_called_forward_is_sent_within_a_minute(rig: ClockRig, step_s: float) -> None:
    await rig.start(rules=replace(SLOW, schedule_s=(10_000.0,)))
    await rig.send(*streams(8), answer=FAILED)
    rig.noted.answer = lambda _: DELIVERED
    while not rig.counted("delivered"):
        await rig.later(1)
    await rig.kill()
    rig.clock.elapsed_s += step_s
    await rig.start(rules=rig.rules)
    await rig.later(60)
    assert (await backlog_of(rig.real_store), len(set(map(name_of, rig.noted.sent)))) == ({}, 8)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
async def test_what_a_replica_with_a_later_clock_records_waits_a_minute_longer_at_most(rig: ClockRig) -> None:
    await rig.start(rules=AFTER)
    rig.clock.elapsed_s += 7200
    await opening(rig)
    rig.clock.elapsed_s -= 7200
    for _ in range(16):
        await rig.later(5)
        await rig.worker.flush()
    assert len(rig.sent()) == 1


@pytest.mark.parametrize("is_later", [True, False])
async def test_no_pause_becomes_longer(store: SqlStore, account: Lease, clock: SetClock, *, is_later: bool) -> None:
    owned = AccountStore(store, account)
    await owned.save_backoff(BackoffState(8.0, 3.0))
    clock.us += 3 * SECOND_US if is_later else -7200 * SECOND_US
    for _ in range(2):
        assert (await owned.load_account()).backoff == BackoffState(5.0 if is_later else 8.0, 3.0)
    clock.us += 2 * SECOND_US
    assert (await owned.load_account()).backoff == BackoffState(3.0 if is_later else 6.0, 3.0)


async def test_an_execution_has_run_since_now_at_most(store: SqlStore, account: Lease, clock: SetClock) -> None:
    await store.record(change(account, started_at=clock.us, found_at=clock.us))
    clock.us -= 7200 * SECOND_US
    (found,) = await executions_of(store, account)
    assert {found.since_at, found.polled_at, found.started_at, found.found_at} == {clock.us}


async def test_a_sink_is_absent_since_now_if_the_clock_was_set_back(store: SqlStore, account: Lease) -> None:
    await store.record(change(account))
    tidied = await upkeep(store)
    await tidied.mark_absent_sinks(present=[], now=Micros(START_US + 30 * DAY_US), dead_after_us=DAY_US)
    assert await tidied.mark_absent_sinks(present=[], now=START_US, dead_after_us=DAY_US) == 0
    assert await tidied.mark_absent_sinks(present=[], now=Micros(START_US + DAY_US), dead_after_us=DAY_US) == 1
