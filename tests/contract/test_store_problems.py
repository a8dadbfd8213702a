"""What every store promises about problems and rules: written with what they are about, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from contract.conftest import prune
from stores import (
    DAY_US,
    PIPELINE,
    SECOND_US,
    START_US,
    StoreRig,
    about,
    backlog_of,
    change,
    closed,
    due,
    event,
    execution_id,
    executions_of,
    from_us,
    names,
    of,
    opened,
    overdue,
    problems_of,
    settle,
    settle_all,
    sink_of,
    source_change,
    stream_of,
    upkeep,
)

from watcher.domain.errors import OwnershipLostError, SequenceConflictError
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.execution import ExecutionRecord, LostReason
from watcher.domain.problems import LatestFailure, Problem, ProblemChange
from watcher.domain.rules import End, RuleState, UnjudgedEnd
from watcher.domain.timestamps import Micros
from watcher.store.changes import ChangeSet, ExecutionChange, Lease, OpenProblem, RulesRecord, SourceChange
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.problems import count_open_problems
from watcher.store.recording import load_events
from watcher.store.sql_store import SqlStore

AT = from_us(START_US)
FAILING, OVERDUE = EventType.PIPELINE_FAILING, EventType.EXECUTION_OVERDUE
LATER = Micros(START_US + 365 * 86_400 * SECOND_US)
STATE = RuleState((End(5, failed=True),), 3, 4)
PIPELINE_SUBJECT = f"default/{PIPELINE}"


def problem_of(
    number: int = 1, *, kind: EventType = FAILING, subject: str = PIPELINE_SUBJECT, sequence: int = 1
) -> Problem:
    return Problem(UUID(int=number), kind, AT, EventKey(stream_of(subject), sequence))


def rules_change(lease: Lease, *, before: int = 0, sinks: tuple[str, ...] | None = None, **more: Any) -> SourceChange:
    """Return the next change of a pipeline's rules, with one event for these sinks if there are any."""
    if sinks is None:
        return SourceChange(lease, before, before, pipeline=PIPELINE, rules=STATE, **more)
    emitted = event(PIPELINE_SUBJECT, sequence=before + 1, type_=FAILING, **about(more.get("problems", ())))
    return SourceChange(
        lease, before, before + 1, None, (OutboxEntry(emitted, sinks),), pipeline=PIPELINE, rules=STATE, **more
    )


def together(lease: Lease, *changes: ExecutionChange | SourceChange) -> ChangeSet:
    return ChangeSet(lease, changes)


async def test_what_rules_go_by_comes_back_with_problems_and_ends_that_wait(rig: StoreRig) -> None:
    waiting = (UnjudgedEnd(execution_id(2), End(9, failed=False)), UnjudgedEnd(execution_id(1), End(7, failed=True)))
    await rig.store.record(rules_change(rig.account, sinks=(), problems=opened(problem_of()), unjudged=waiting))
    assert await rig.owned.load_rules(PIPELINE) == RulesRecord(
        1, STATE, {FAILING: problem_of()}, [waiting[1], waiting[0]]
    )
    await rig.store.record(rules_change(rig.account, before=1, judges_all=True))
    assert (await rig.owned.load_rules(PIPELINE)).unjudged == []


async def test_what_is_judged_and_what_waits_anew_may_be_written_at_once(rig: StoreRig) -> None:
    first, second = (UnjudgedEnd(execution_id(number), End(number, failed=True)) for number in (1, 2))
    await rig.store.record(rules_change(rig.account, unjudged=(first,)))
    await rig.store.record(rules_change(rig.account, judges_all=True, unjudged=(second,)))
    assert (await rig.owned.load_rules(PIPELINE)).unjudged == [second]


async def test_ends_and_what_they_lead_to_are_written_together(rig: StoreRig) -> None:
    problem = problem_of()
    await rig.store.record(
        together(
            rig.account,
            change(rig.account, 1),
            change(rig.account, 2),
            rules_change(rig.account, sinks=("ops",), problems=opened(problem)),
        )
    )
    assert len(await executions_of(rig.store, rig.account)) == 2
    assert (await rig.owned.load_rules(PIPELINE)).problems == {FAILING: problem}
    assert (await backlog_of(rig.store))["ops"].pending_count == 3


@pytest.mark.parametrize("spoiled", ["execution", "rules"])
async def test_of_changes_that_belong_together_one_that_cannot_be_written_takes_all_along(
    rig: StoreRig, spoiled: str
) -> None:
    end = change(rig.account, 1, sequence=3 if spoiled == "execution" else 1)
    rules = rules_change(
        rig.account, before=0 if spoiled == "execution" else 4, sinks=("ops",), problems=opened(problem_of())
    )
    beside = change(rig.account, 9)
    outcomes = await asyncio.gather(
        rig.store.record(together(rig.account, end, rules)), rig.store.record(beside), return_exceptions=True
    )
    assert isinstance(outcomes[0], SequenceConflictError)
    assert outcomes[1] is None
    assert names(await due(rig.ops)) == [of(9)]
    assert await rig.owned.load_rules(PIPELINE) == RulesRecord(0, RuleState(), {}, [])


async def test_what_is_recorded_together_is_due_in_that_order(rig: StoreRig) -> None:
    numbers = [5, 1, 4, 2, 3]
    ends = [change(rig.account, number) for number in numbers]
    await rig.store.record(together(rig.account, *ends[:3], rules_change(rig.account, sinks=("ops",)), *ends[3:]))
    expected = [of(number) for number in numbers]
    deliveries = await due(rig.ops)
    assert names(deliveries) == [*expected[:3], f"{PIPELINE_SUBJECT}-1", *expected[3:]]
    at = [each.recorded_at for each in deliveries]
    assert at == sorted(set(at))
    assert {each.due_at for each in deliveries} == {START_US}


async def test_what_is_recorded_later_is_due_later_though_the_clock_stands_still(rig: StoreRig) -> None:
    for number in (3, 1, 2):
        await rig.record(number)
    assert names(await due(rig.ops)) == [of(each) for each in (3, 1, 2)]


async def test_a_problem_may_be_opened_and_closed_in_one_write(rig: StoreRig) -> None:
    problem = problem_of()
    again = problem_of(2, sequence=3)
    await rig.store.record(
        together(
            rig.account,
            rules_change(rig.account, sinks=(), problems=opened(problem)),
            rules_change(rig.account, before=1, sinks=(), problems=closed(replace(problem, failed_count=4))),
            rules_change(rig.account, before=2, sinks=(), problems=opened(again)),
        )
    )
    record = await rig.owned.load_rules(PIPELINE)
    assert (record.sequence, record.problems) == (3, {FAILING: again})


async def test_an_open_problem_counts_on(rig: StoreRig) -> None:
    problem = replace(problem_of(), failed_count=3, latest=LatestFailure(Micros(START_US), execution_id(1)))
    await rig.store.record(rules_change(rig.account, sinks=(), problems=opened(problem)))
    assert (await rig.owned.load_rules(PIPELINE)).problems == {FAILING: problem}
    newest = LatestFailure(Micros(START_US + 1), execution_id(2), "Look\0up", "no \U0001f389 for 'ä'")
    counted = replace(problem, failed_count=7, latest=newest)
    await rig.store.record(rules_change(rig.account, before=1, problems=(ProblemChange(counted),)))
    assert (await rig.owned.load_rules(PIPELINE)).problems == {FAILING: counted}


async def test_a_sent_opening_says_how_its_problem_is_now_and_when_its_pipeline_last_had_an_end(rig: StoreRig) -> None:
    problem = replace(problem_of(), latest=LatestFailure(Micros(START_US), execution_id(1), "Lookup", "404"))
    opening = rules_change(rig.account, sinks=("ops",), problems=opened(problem))
    await rig.store.record(opening)
    await settle(rig.ops, *await due(rig.ops))
    (sent,) = await rig.ops.sent_openings()
    assert (sent.problem, sent.last_ended_at) == (problem, None)
    ended = ExecutionRecord("", PIPELINE, "failed", sequence=1, end_seen_at=Micros(30))
    for number, ended_at, lost in ((1, 5, None), (2, 9, None), (3, 20, LostReason.NOT_FOUND)):
        record = replace(ended, execution=execution_id(number), ended_at=Micros(ended_at), lost=lost)
        await rig.store.record(ExecutionChange(rig.account, None, record, ()))
    counted = replace(problem, failed_count=7, latest=LatestFailure(Micros(START_US + 9), execution_id(2)))
    await rig.store.record(rules_change(rig.account, before=1, problems=(ProblemChange(counted),)))
    (sent,) = await rig.ops.sent_openings()
    assert (sent.problem, sent.last_ended_at) == (counted, 9)


async def test_open_problems_are_counted_by_kind(rig: StoreRig) -> None:
    await rig.store.record(rules_change(rig.account, sinks=(), problems=opened(problem_of())))
    for number in (2, 3):
        await rig.record(number, problems=opened(overdue(number)))
    assert await rig.store.read(count_open_problems) == {FAILING: 1, OVERDUE: 2}
    await rig.record(2, sequence=2, problems=closed(overdue(2)))
    assert await rig.store.read(count_open_problems) == {FAILING: 1, OVERDUE: 1}


async def open_ones(store: SqlStore) -> list[OpenProblem]:
    found: list[OpenProblem] = []
    after: UUID | None = None
    while page := await problems_of(store, after=after):
        found += page
        after = page[-1].problem.id
    return found


async def test_open_problems_say_what_they_are_about(rig: StoreRig) -> None:
    degraded = problem_of(4, kind=EventType.ACCOUNT_DEGRADED, subject="accounts/default")
    failing = problem_of(5, kind=EventType.SINK_FAILING, subject="sinks/ops")
    await rig.store.record(rules_change(rig.account, sinks=(), problems=opened(problem_of(1))))
    await rig.record(2, overdue_sequence=1, problems=opened(overdue(2)))
    await rig.record(3, end_seen_at=9, overdue_sequence=1, problems=opened(overdue(3)))
    await rig.store.record(source_change(rig.account, problems=opened(degraded)))
    await rig.store.record(source_change(rig.ops.lease, state="failing", sinks=(), problems=opened(failing)))
    assert await open_ones(rig.store) == [
        OpenProblem(problem_of(1), "account", "default", PIPELINE),
        OpenProblem(overdue(2), "account", "default", PIPELINE, execution_id(2), "running"),
        OpenProblem(overdue(3), "account", "default", PIPELINE, execution_id(3), has_ended=True),
        OpenProblem(degraded, "account", "default"),
        OpenProblem(failing, "sink", "ops"),
    ]


@pytest.mark.ci
async def test_very_many_open_problems_are_read_in_pages(rig: StoreRig) -> None:
    numbers = range(1, 2_502)
    await asyncio.gather(*(rig.record(each, sinks=(), problems=opened(overdue(each))) for each in numbers))
    assert {each.execution for each in await open_ones(rig.store)} == set(map(execution_id, numbers))


def closing(problem: Problem) -> tuple[OutboxEntry, ProblemChange]:
    emitted = event(f"problems/{problem.id}", sequence=1, type_=EventType.PROBLEM_CLOSED, **about(closed(problem)))
    return OutboxEntry(emitted, ()), ProblemChange(problem, closed_at=AT)


async def test_a_problem_that_nobody_watches_for_is_closed_where_it_was_opened(rig: StoreRig) -> None:
    chat = await sink_of(rig.store, "chat")
    await rig.store.record(rules_change(rig.account, sinks=("ops",), problems=opened(problem_of())))
    rig.woken.names.clear()
    assert await (await upkeep(rig.store)).close_problems([closing(problem_of())]) == 1
    assert rig.woken.names == ["ops"]
    assert len(await due(rig.ops)) == 2
    assert await due(chat) == []
    assert await open_ones(rig.store) == []


async def test_a_problem_that_is_closed_by_now_is_not_closed_again(rig: StoreRig) -> None:
    await rig.store.record(rules_change(rig.account, sinks=("ops",), problems=opened(problem_of())))
    await rig.store.record(rules_change(rig.account, before=1, sinks=(), problems=closed(problem_of())))
    assert await (await upkeep(rig.store)).close_problems([closing(problem_of())]) == 0
    assert len(await due(rig.ops)) == 1


async def test_whoever_closes_a_problem_that_was_closed_for_it_writes_the_rest(rig: StoreRig) -> None:
    await rig.record(problems=opened(overdue(1)))
    await (await upkeep(rig.store)).close_problems([closing(overdue(1))])
    await rig.record(sequence=2, status="success", problems=closed(overdue(1)))
    assert [each.status for each in await executions_of(rig.store, rig.account)] == ["success"]


async def test_a_stay_that_is_overdue_by_another_event_is_none_of_the_problem_s(rig: StoreRig) -> None:
    await rig.record(1, overdue_sequence=5, problems=opened(overdue(1)))
    assert await open_ones(rig.store) == [OpenProblem(overdue(1), "account", "default", PIPELINE, execution_id(1))]


@pytest.mark.parametrize(("overdue_sequence", "left"), [(1, (None, None)), (5, (5, 7))])
async def test_an_execution_whose_problem_is_closed_is_overdue_no_more(
    rig: StoreRig, overdue_sequence: int, left: tuple[int | None, int | None]
) -> None:
    await rig.record(1, overdue_sequence=overdue_sequence, overdue_at=7, problems=opened(overdue(1)))
    await rig.record(2, overdue_sequence=1, overdue_at=7)
    await (await upkeep(rig.store)).close_problems([closing(overdue(1))])
    known, other = sorted(await executions_of(rig.store, rig.account), key=lambda each: each.execution)
    assert (known.overdue_sequence, known.overdue_at) == left
    assert (other.overdue_sequence, other.overdue_at) == (1, 7)
    await rig.record(1, sequence=2)  # which its owner goes on from


async def test_an_account_or_sink_whose_problem_is_closed_begins_anew(rig: StoreRig) -> None:
    degraded = problem_of(4, kind=EventType.ACCOUNT_DEGRADED, subject="accounts/default")
    failing = problem_of(5, kind=EventType.SINK_FAILING, subject="sinks/ops")
    await rig.store.record(source_change(rig.account, state="unauthorized", problems=opened(degraded)))
    await rig.store.record(source_change(rig.ops.lease, state="failing", sinks=(), problems=opened(failing)))
    await rig.store.record(rules_change(rig.account, sinks=(), problems=opened(problem_of(1))))
    await (await upkeep(rig.store)).close_problems([closing(problem_of(1))])
    assert (await rig.owned.load_account()).trouble == "unauthorized"
    await (await upkeep(rig.store)).close_problems([closing(degraded), closing(failing)])
    assert (await rig.owned.load_account()).trouble is None
    assert (await rig.ops.load(fingerprint="")).state is None


async def test_what_rules_went_by_is_forgotten_with_them(rig: StoreRig) -> None:
    other = "77aa0000-0000-4000-8000-000000000000"
    waiting = (UnjudgedEnd(execution_id(1), End(7, failed=True)),)
    for pipeline in (PIPELINE, other):
        await rig.store.record(replace(rules_change(rig.account, unjudged=waiting), pipeline=pipeline))
    await (await upkeep(rig.store)).forget_rules(present=[("default", PIPELINE), ("other", other)])
    assert await rig.owned.load_rules(PIPELINE) == RulesRecord(0, STATE, {}, [*waiting])
    assert await rig.owned.load_rules(other) == RulesRecord(0, RuleState(), {}, [])


@pytest.mark.parametrize(
    "tidy",
    [
        lambda tidied: tidied.close_problems([closing(problem_of())]),
        lambda tidied: tidied.forget_rules(present=()),
        lambda tidied: tidied.mark_absent_pipelines(present=(), now=LATER),
        lambda tidied: tidied.mark_absent_sinks(present=(), now=LATER, dead_after_us=0),
        lambda tidied: anext(tidied.prune(ended_before=LATER, keep=lambda *_: False)),
    ],
    ids=["close", "forget", "pipelines", "sinks", "prune"],
)
async def test_who_tidied_the_store_before_changes_nothing_any_more(
    rig: StoreRig, tidy: Callable[[MaintenanceStore], Awaitable[object]]
) -> None:
    lost = await upkeep(rig.store)
    await rig.store.record(rules_change(rig.account, sinks=("ops",), problems=opened(problem_of())))
    await upkeep(rig.store)
    with pytest.raises(OwnershipLostError, match="the lease on maintenance store is lost"):
        await tidy(lost)
    assert len(await open_ones(rig.store)) == 1
    assert await rig.owned.load_rules(PIPELINE) == RulesRecord(1, STATE, {FAILING: problem_of()}, [])
    assert len(await due(rig.ops)) == 1


@pytest.mark.parametrize("kind", ["pipeline", "execution"])
async def test_what_opened_a_problem_stays_while_that_is_open_and_says_where_its_end_goes(
    rig: StoreRig, kind: str
) -> None:
    if kind == "pipeline":
        problem = problem_of()
        await rig.store.record(rules_change(rig.account, sinks=("ops",), problems=opened(problem)))
    else:
        problem = overdue(1)
        await rig.record(end_seen_at=START_US, problems=opened(problem))
    await settle_all(rig.ops)
    rig.clock.us = START_US + 90 * DAY_US
    await prune(rig.store, before=rig.clock.us - SECOND_US)
    assert await rig.store.read(partial(load_events, keys=[problem.opening]))
    await (await upkeep(rig.store)).close_problems([closing(problem)])
    assert len(await due(rig.ops)) == 1
    await settle_all(rig.ops)
    rig.clock.us += DAY_US
    await prune(rig.store, before=rig.clock.us - SECOND_US)
    assert await rig.store.read(partial(load_events, keys=[problem.opening])) == {}


async def test_a_closed_problem_is_forgotten_in_time(rig: StoreRig) -> None:
    await rig.store.record(rules_change(rig.account, sinks=(), problems=opened(problem_of())))
    await rig.store.record(rules_change(rig.account, before=1, sinks=(), problems=closed(problem_of())))
    rig.clock.us += DAY_US
    await prune(rig.store, before=rig.clock.us - SECOND_US)
    again = problem_of(1, sequence=3)  # the same id: it could not be written beside the other
    await rig.store.record(rules_change(rig.account, before=2, sinks=(), problems=opened(again)))
    assert (await rig.owned.load_rules(PIPELINE)).problems == {FAILING: again}
