"""What every store promises about problems and rules: written with what they are about, or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import stores
from contract.conftest import on_both, prune
from stores import (
    DAY_US,
    PIPELINE,
    SECOND_US,
    START_US,
    StoreRig,
    about,
    backlog_of,
    change,
    claim,
    closed,
    due,
    event,
    execution_id,
    executions_of,
    from_us,
    names,
    of,
    opened,
    operator_of,
    overdue,
    problems_of,
    settle,
    settle_all,
    silence,
    sink_of,
    source_change,
    stream_of,
    taken,
    upkeep,
)

from watcher.domain.delivery import Delivery, DeliveryState, MessagePlace, ProblemMessage
from watcher.domain.errors import OwnershipLostError, SequenceConflictError
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.execution import ExecutionRecord, FailedNode, LostReason
from watcher.domain.history import EndedExecution, error_kind_of
from watcher.domain.problems import Incident, LatestFailure, Problem, ProblemChange
from watcher.domain.routing import IncidentRules
from watcher.domain.timestamps import Micros
from watcher.store.account_store import AccountStore
from watcher.store.changes import ChangeSet, ExecutionChange, Lease, OpenProblem, RulesRecord, SourceChange
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.problems import count_open_problems
from watcher.store.recording import load_events
from watcher.store.sink_store import SinkStore
from watcher.store.sql_store import SqlStore, open_store

AT = from_us(START_US)
FAILING, OVERDUE = EventType.PIPELINE_FAILING, EventType.EXECUTION_OVERDUE
LATER = Micros(START_US + 365 * 86_400 * SECOND_US)
OPENING = event(f"default/{PIPELINE}", sequence=1).body
DELIVERED = DeliveryState.DELIVERED
STATE = '{"silent": {"started_at": 3}}'
PIPELINE_SUBJECT = f"default/{PIPELINE}"


def ended_of(number: int, *, at: int, status: str = "failed") -> EndedExecution:
    error = error_kind_of("Greeting", "boom") if status == "failed" else None
    node = FailedNode(None, "Greeting", "boom")
    return EndedExecution(Micros(at), Micros(at), status, 7, 1.5, error, execution_id(number), 3, node, "all failed")


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
    waiting = (ended_of(2, at=9, status="success"), ended_of(1, at=7))
    await rig.store.record(rules_change(rig.account, sinks=(), problems=opened(problem_of()), unjudged=waiting))
    found = await rig.owned.load_rules(PIPELINE)
    assert found == RulesRecord(1, STATE, {FAILING: problem_of()}, [waiting[1], waiting[0]])
    await rig.store.record(rules_change(rig.account, before=1, replaces_unjudged=True))
    assert (await rig.owned.load_rules(PIPELINE)).unjudged == []


@on_both
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
async def test_of_changes_that_belong_together_one_bad_one_takes_all_along(rig: StoreRig, spoiled: str) -> None:
    end = change(rig.account, 1, sequence=3 if spoiled == "execution" else 1)
    before = 0 if spoiled == "execution" else 4
    rules = rules_change(rig.account, before=before, sinks=("ops",), problems=opened(problem_of()))
    beside = change(rig.account, 9)
    writes = [rig.store.record(each) for each in (together(rig.account, end, rules), beside)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(outcomes[0], SequenceConflictError)
    assert outcomes[1] is None
    assert names(await due(rig.ops)) == [of(9)]
    assert await rig.owned.load_rules(PIPELINE) == RulesRecord(0, None, {}, [])


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


async def test_open_problems_say_what_they_are_about_in_pages(rig: StoreRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.store.problems.PAGE_COUNT", 2)
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
    waiting = (ended_of(1, at=7),)
    for pipeline in (PIPELINE, other):
        await rig.store.record(replace(rules_change(rig.account, unjudged=waiting), pipeline=pipeline))
    await (await upkeep(rig.store)).forget_rules(present=[("default", PIPELINE), ("other", other)])
    assert await rig.owned.load_rules(PIPELINE) == RulesRecord(0, STATE, {}, [*waiting])
    assert await rig.owned.load_rules(other) == RulesRecord(0, None, {}, [])


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
async def test_what_opened_an_open_problem_stays_and_says_where_its_end_goes(rig: StoreRig, kind: str) -> None:
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


# Messages of problems


FIRST, SECOND = MessagePlace("C1", "1.1"), MessagePlace("C2", "2.2")


async def post(
    rig: StoreRig,
    before: int,
    problems: tuple[ProblemChange, ...],
    *places: MessagePlace | None,
    state: str = DELIVERED,
) -> None:
    """Record the next event of the problem, and settle it with messages at these places."""
    await rig.store.record(rules_change(rig.account, before=before, sinks=("ops",), problems=problems))
    messages = tuple(ProblemMessage(problem_of().id, place) for place in places)
    await settle(rig.ops, *await due(rig.ops), state=DeliveryState(state), messages=messages)


async def posted(rig: StoreRig, sink: SinkStore) -> list[ProblemMessage | None]:
    """Return the message that a reminder finds, and the one in whose thread a failure of the pipeline belongs."""
    asking = await claim(rig.store, "account", "asking")
    after = (await AccountStore(rig.store, asking).load_account()).sequence
    failed: dict[str, Any] = {"type_": EventType.EXECUTION_FAILED, "account": "default", "pipeline": PIPELINE}
    reminder_ = event("reminder", sequence=after + 1, problem=problem_of().id)
    events = [reminder_, event("failure", sequence=after + 2, **failed)]
    entries = tuple(OutboxEntry(each, (sink.lease.name,)) for each in events)
    await rig.store.record(SourceChange(asking, after, after + 2, None, entries))
    reminder, failure = [each for each in await due(sink, with_messages=True) if b"default/" not in each.body]
    await settle(sink, reminder, failure)
    return [reminder.message, failure.thread]


@pytest.mark.parametrize("state", ["delivered", "waiting"])
async def test_a_message_is_kept_with_its_attempt_over_a_restart(rig: StoreRig, url: str, state: str) -> None:
    await post(rig, 0, opened(problem_of()), FIRST, state=state)
    await rig.store.close()
    rig.store = await open_store(url, clock=rig.clock)
    rig.ops, other = await sink_of(rig.store), await sink_of(rig.store, "other")
    assert await posted(rig, rig.ops) == [ProblemMessage(problem_of().id, FIRST, OPENING)] * 2
    assert await posted(rig, other) == [None, None]
    await rig.store.close()


async def test_the_last_message_of_a_problem_counts_and_one_that_is_gone_is_forgotten(rig: StoreRig) -> None:
    await post(rig, 0, opened(problem_of()), None, FIRST)
    await post(rig, 1, (ProblemChange(problem_of()),), SECOND)
    assert await posted(rig, rig.ops) == [ProblemMessage(problem_of().id, SECOND, OPENING)] * 2
    await post(rig, 2, (ProblemChange(problem_of()),), None)
    assert await posted(rig, rig.ops) == [None, None]


async def test_the_message_of_a_silent_pipeline_is_no_thread_for_failures(rig: StoreRig) -> None:
    await post(rig, 0, opened(problem_of(kind=EventType.PIPELINE_SILENT)), FIRST)
    assert [each is None for each in await posted(rig, rig.ops)] == [False, True]


async def test_a_message_goes_with_its_problem_and_none_is_kept_of_a_problem_that_went(rig: StoreRig) -> None:
    await post(rig, 0, opened(problem_of()), FIRST)
    await rig.store.record(rules_change(rig.account, before=1, sinks=("ops",), problems=closed(problem_of())))
    rig.clock.us = START_US + 90 * DAY_US
    await prune(rig.store, before=rig.clock.us - SECOND_US)
    assert await posted(rig, rig.ops) == [None, None]
    sent_late = [ProblemMessage(problem_of().id, SECOND)]  # with the closing
    await settle(rig.ops, *await due(rig.ops), messages=tuple(sent_late))
    assert await posted(rig, rig.ops) == [None, None]


# Incidents: the worker's tests judge them. Here each statement runs on each database.


BY_PIPELINE = IncidentRules(("pipeline",), wait_s=0.0)


async def opens(rig: StoreRig, number: int) -> None:
    """Let an execution of the pipeline be overdue."""
    emitted = event(execution_id(number), sequence=1, type_=OVERDUE, **about(opened(overdue(number))))
    body = b'{"id":"%s","data":{}}' % of(number).encode()
    emitted = replace(emitted, account="default", pipeline=PIPELINE, body=body)
    recorded = change(rig.account, number, problems=opened(overdue(number)))
    await rig.store.record(replace(recorded, entries=(OutboxEntry(emitted, ("ops",)),)))


async def incident(rig: StoreRig, **how: Any) -> tuple[Incident, list[Delivery]]:
    """Return the one incident that has deliveries to send, with those."""
    (batch,) = (await taken(rig.ops, incidents=BY_PIPELINE, **how)).batches
    assert {each.incident and each.incident.key for each in batch} == {batch[0].incident and batch[0].incident.key}
    assert batch[0].incident is not None
    return batch[0].incident, list(batch)


@on_both
async def test_problems_of_a_pipeline_are_one_incident_until_its_end_is_known(rig: StoreRig) -> None:
    async def kept() -> int:
        await prune(rig.store, before=LATER)
        return len(await rig.store.read(lambda connection: connection.exec_driver_sql("SELECT 1 FROM incident").all()))

    for number in (1, 2):
        await opens(rig, number)
    first, batch = await incident(rig)
    assert names(batch) == [of(1), of(2)]
    assert (first.problems[-1].opening, first.acked_until) == (batch[-1].body, None)
    assert (await taken(rig.ops, incidents=BY_PIPELINE, skip=[first.key.bytes])).batches == []
    await settle(rig.ops, batch[0], state=DeliveryState.WAITING, due_at=stores.LATER + 3600 * SECOND_US)
    await silence(rig.ops, batch[1])  # so it leaves the incident
    assert (await taken(rig.ops, incidents=BY_PIPELINE)).batches == []
    await opens(rig, 3)
    joined, batch = await incident(rig)
    assert (joined.key, names(batch)) == (first.key, [of(1), of(3)])
    await settle(rig.ops, *batch)
    until = rig.clock.now() + timedelta(hours=1)
    await operator_of(rig.store).acknowledge(*(UUID(int=each) for each in (1, 3)), by=None, comment=None, until=until)
    acknowledged, batch = await incident(rig)
    assert acknowledged.acked_until == until
    await settle(rig.ops, *batch)
    for number in (1, 3):
        await rig.record(number, sequence=2, problems=closed(overdue(number)), end_seen_at=1)
    assert await kept() == 2
    over, batch = await incident(rig)
    assert (over.key, over.problems) == (first.key, [])
    await settle(rig.ops, *batch)
    await rig.ops.release()
    second, batch = await incident(rig)
    assert (second.key != first.key, names(batch)) == (True, [of(2)])
    assert await kept() == 1


@pytest.mark.parametrize(("passed_s", "joins"), [(599, True), (600, False)])
async def test_an_incident_takes_problems_for_ten_minutes(rig: StoreRig, passed_s: int, joins: bool) -> None:
    await opens(rig, 1)
    first, batch = await incident(rig)
    await settle(rig.ops, *batch)
    await opens(rig, 2)
    second, _ = await incident(rig, now=stores.LATER + passed_s * SECOND_US)
    assert (second.key == first.key) is joins


async def test_no_more_incidents_are_taken_than_are_asked_for(rig: StoreRig) -> None:
    for number in (1, 2):
        await opens(rig, number)
    each_alone = IncidentRules(("labels.team",), wait_s=0.0)
    assert [len((await taken(rig.ops, incidents=each_alone, count=count)).batches) for count in (1, 9)] == [1, 2]
