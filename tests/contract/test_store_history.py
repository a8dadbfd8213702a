"""What every store promises of pipelines' pasts: hours, kinds of errors, what rules compare with, and reports."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from contract.conftest import on_both, prune
from stores import (
    DAY_US,
    PIPELINE,
    SECOND_US,
    START,
    START_US,
    StoreRig,
    change,
    due,
    event,
    from_us,
    pipeline_change,
    stream_of,
    upkeep,
)

from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import LostReason
from watcher.domain.history import HOUR_US, EndedExecution, Totals, error_kind_of, sum_up
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.routing import Router
from watcher.domain.timestamps import Micros, to_us
from watcher.domain.watch import Cursor
from watcher.store.changes import ChangeSet, ExecutionChange, SourceChange
from watcher.store.maintenance_store import MaintenanceStore
from watcher.store.tables import AnyRow
from watcher.web.history import load_frequent_errors, load_history, load_rates, load_totals
from watcher.web.problems import load_troubles

NAME = f"default/{PIPELINE}"
TIMEOUT = error_kind_of("Greeting", "timeout after 30 s")


def end(
    rig: StoreRig,
    number: int,
    *,
    at: int = START_US,
    status: str = "success",
    tokens: int = 10,
    duration_s: float | None = None,
    text: str = "",
    node: str | None = "Greeting",
    pipeline: str = PIPELINE,
) -> ExecutionChange:
    """Return the change that an execution, first seen then, has ended a minute after it started."""
    error = error_kind_of(node, text) if text else None
    ended = EndedExecution(Micros(at - 60_000_000), Micros(at), status, tokens, duration_s, error)
    found = change(rig.account, number, status=status, end_seen_at=Micros(at), ended_at=Micros(at))
    return replace(found, known=replace(found.known, pipeline=pipeline), ended=ended)


async def record(rig: StoreRig, *changes: ExecutionChange) -> None:
    await rig.store.record(ChangeSet(rig.account, changes))


async def test_each_end_counts_once_in_the_hour_in_which_it_was(rig: StoreRig) -> None:
    failed = end(rig, 2, status="failed", text="boom")
    await record(rig, end(rig, 1, duration_s=4.0), failed, end(rig, 3, duration_s=9.0))
    await rig.store.record(end(rig, 4, duration_s=9.0, at=START_US + HOUR_US))
    with pytest.raises(StoreError):  # as after a COMMIT of which nobody knows whether it went through
        await rig.store.record(end(rig, 4, duration_s=9.0, at=START_US + HOUR_US))
    await rig.store.record(end(rig, 5, status="unrecognized", at=START_US + 5))  # late: another hour is current by now
    hours = (await load_history(rig.store, NAME, since=Micros(START_US - HOUR_US))).hours
    before, first, second = (hours[Micros(START_US + n * HOUR_US)] for n in (-1, 0, 1))
    assert (before.started, first.started, second.started) == (4, 1, 0)
    assert (first.success, first.failed, first.counts["unrecognized"], first.tokens) == (2, 1, 1, 40)
    assert (second.success, second.ended) == (1, 1)
    assert first.quantile(0.5) == pytest.approx(4.0, rel=0.05)
    assert first.quantile(0.95) == pytest.approx(9.0, rel=0.05)


async def test_executions_that_run_count_as_started_too(rig: StoreRig) -> None:
    await rig.record(1, started_at=Micros(START_US + 5))
    await rig.record(2, started_at=Micros(START_US - HOUR_US - 1))  # before what is asked for
    await rig.store.record(end(rig, 3, at=START_US + 120_000_000))
    found = await load_history(rig.store, NAME, since=START_US)
    assert {at: each.started for at, each in found.hours.items()} == {START_US: 2}


async def test_totals_are_those_of_all_hours_of_a_span_whichever_days_are_whole(rig: StoreRig) -> None:
    await rig.record(1, started_at=Micros(START_US + 5))  # it runs, so it counts nowhere
    first = Micros(START_US - 2 * DAY_US)
    at = [Micros(first + number * 5 * HOUR_US + 60_000_000) for number in range(15)]
    for number, ended_at in enumerate(at, 2):
        await rig.store.record(end(rig, number, at=ended_at, duration_s=float(number)))
    await rig.store.record(end(rig, 20, at=first + DAY_US, status="failed", text="boom"))
    store = rig.store
    for since in range(first - HOUR_US, first + 3 * DAY_US, 7 * HOUR_US):
        for until in range(since + HOUR_US, since + 4 * DAY_US, 11 * HOUR_US):
            from_at, end_at = Micros(since), Micros(until)
            found = await load_totals(store, {NAME}, since=from_at, until=end_at, with_durations=True)
            totals = found.get(NAME, Totals())
            expected = sum_up((await load_history(store, NAME, since=from_at)).hours, from_at, end_at)
            totals.counts["started"] = expected.counts["started"]
            assert totals == expected
            without = await load_totals(store, {NAME, "default/another"}, since=from_at, until=end_at)
            rates = without.get(NAME, Totals())
            assert (rates.counts - totals.counts, rates.success, rates.failed) == ({}, totals.success, totals.failed)
    assert await load_totals(store, {"default/another"}, since=first) == {}


@pytest.mark.parametrize("chunk", [1, 100])
async def test_totals_of_many_are_read_in_parts(rig: StoreRig, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.web.history.PIPELINES_COUNT", chunk)
    names = [f"default/77aa0000-0000-4000-8000-{number:012}" for number in range(3)]
    for number, name in enumerate(names):
        await rig.store.record(end(rig, number, pipeline=name.partition("/")[2]))
    found = await load_totals(rig.store, set(names[:2]), since=Micros(START_US - HOUR_US))
    assert {name: each.success for name, each in found.items()} == dict.fromkeys(names[:2], 1)


@on_both
async def test_kinds_of_errors_are_counted_by_day_and_keep_the_newest_text(rig: StoreRig) -> None:
    for number, (at, text) in enumerate(
        [
            (START_US - DAY_US, "timeout after 1 s"),
            (START_US + 20, "timeout after 3 s"),
            (START_US + 10, "timeout after 2 s"),  # a late end: it is not the newest
            (START_US + 30, "no answer"),
        ]
    ):
        await rig.store.record(end(rig, number, at=at, status="failed", text=text))
    today = (await load_history(rig.store, NAME, since=START_US)).errors
    assert [(each.text, each.failed_count, first_at, each.last_at) for each, first_at in today] == [
        ("timeout after 3 s", 2, START_US - DAY_US, START_US + 20),
        ("no answer", 1, START_US + 30, START_US + 30),
    ]
    assert today[0][0].fingerprint == TIMEOUT.fingerprint
    both = (await load_history(rig.store, NAME, since=Micros(START_US - DAY_US))).errors
    assert [each.failed_count for each, _ in both] == [3, 1]
    (most,) = await load_frequent_errors(rig.store, since=START_US, until=Micros(START_US + DAY_US), limit=1)
    assert (most.pipeline_name, most.node, most.failed_count) == (NAME, "Greeting", 2)


async def test_a_kind_whose_text_alone_was_seen_before_is_no_news(rig: StoreRig) -> None:
    await rig.store.record(end(rig, 1, status="failed", text="no answer", node=None))  # as a list says it
    await rig.store.record(end(rig, 2, at=START_US + 2 * HOUR_US, status="failed", text="no answer"))
    ((newest, first_seen_at),) = (await load_history(rig.store, NAME, since=Micros(START_US + HOUR_US))).errors
    assert (newest.node, newest.last_at, first_seen_at) == ("Greeting", START_US + 2 * HOUR_US, START_US)


async def test_failures_from_a_list_which_names_no_node_count_to_the_kind_of_the_same_text(rig: StoreRig) -> None:
    failed = [("Greeting", "timeout after 1 s"), ("Greeting", "timeout after 2 s"), ("Booking", "timeout after 3 s")]
    for number, (node, text) in enumerate([*failed, (None, "timeout after 4 s"), (None, "no answer")]):
        await rig.store.record(end(rig, number, at=START_US + number, status="failed", text=text, node=node))
    counted = [
        ("Greeting", "timeout after 4 s", 3, START_US + 3),
        ("no node", "no answer", 1, START_US + 4),
        ("Booking", "timeout after 3 s", 1, START_US + 2),
    ]
    history = await load_history(rig.store, NAME, since=START_US)
    of_all = await load_frequent_errors(rig.store, since=START_US, until=Micros(START_US + DAY_US), limit=9)
    for found in ([kind for kind, _ in history.errors], of_all):
        assert [(each.node or "no node", each.text, each.failed_count, each.last_at) for each in found] == counted


async def test_rates_are_of_the_last_24_hours_and_7_days(rig: StoreRig) -> None:
    rig.clock.us = START_US + 5
    ends = [(0, "success"), (23, "failed"), (24, "success"), (162, "failed"), (163, "failed")]
    for number, (age, status) in enumerate(ends):
        await rig.store.record(end(rig, number, at=START_US - age * HOUR_US, status=status))
    assert await load_rates(rig.store, {NAME, "default/another"}) == {NAME: (1, 2, 2, 4)}
    assert await load_rates(rig.store, set()) == {}


async def test_the_history_knows_from_when_on_it_is_and_the_problems_of_that_time(rig: StoreRig) -> None:
    assert (await load_history(rig.store, NAME, since=START_US)).known_from is None
    await rig.store.record(pipeline_change(rig.account, cursor=Cursor(START_US, known_from=Micros(5))))
    for number, closed_us in enumerate((None, START_US - 1, START_US)):
        opening = EventKey(bytes([number]), 1)
        problem = Problem(UUID(int=number), EventType.PIPELINE_FAILING, from_us(START_US - 9 + number), opening)
        opened = (ProblemChange(problem, is_new=True),)
        await rig.store.record(SourceChange(rig.account, 0, 0, pipeline=PIPELINE, problems=opened))
        if closed_us is not None:
            closed = (ProblemChange(problem, closed_at=from_us(closed_us)),)
            await rig.store.record(SourceChange(rig.account, 0, 0, pipeline=PIPELINE, problems=closed))
    found = await load_history(rig.store, NAME, since=START_US)
    assert found.known_from == 5
    assert [UUID(each.id).int for each in found.problems] == [2, 0]


async def test_what_is_older_than_retention_goes(rig: StoreRig) -> None:
    for number, at in enumerate((START_US - 3 * DAY_US, START_US)):
        await rig.store.record(end(rig, number, at=at + 60_000_000, status="failed", text="boom"))
    await prune(rig.store, before=Micros(START_US - DAY_US), keep=lambda *_: True)
    found = await load_history(rig.store, NAME, since=Micros(START_US - 9 * DAY_US))
    assert list(found.hours) == [START_US]
    assert [each.failed_count for each, _ in found.errors] == [1]


OTHER = "77aa0000-0000-4000-8000-000000000000"
SUBJECT = f"accounts/default/pipelines/{PIPELINE}"


def success(
    rig: StoreRig, number: int, *, at: int = START_US, seconds: float = 30.0, **known: object
) -> ExecutionChange:
    """Return the change that an execution, first seen then, has ended with success."""
    at, started_at = Micros(at), Micros(at - round(seconds * SECOND_US))
    facts: dict[str, Any] = {"status": "success", "end_seen_at": at, "ended_at": at, "started_at": started_at, **known}
    return change(rig.account, number, sinks=(), **facts)


# Durations


async def test_durations_are_of_the_last_200_successes_by_their_ends_the_oldest_first(rig: StoreRig) -> None:
    count = 205
    ends = [success(rig, number, at=START_US + number * SECOND_US, seconds=number) for number in range(1, count + 1)]
    await record(rig, *ends[::-1])  # the order of recording does not count
    found = list(await rig.owned.load_durations(PIPELINE, limit=200))
    assert found == [number * SECOND_US for number in range(6, count + 1)]
    assert list(await rig.owned.load_durations(OTHER, limit=200)) == []


async def test_what_does_not_say_what_is_usual_has_no_duration(rig: StoreRig) -> None:
    history = success(rig, 1, sequence=0)
    of_other = success(rig, 2)
    await record(
        rig,
        replace(history, before=None, entries=()),
        replace(of_other, known=replace(of_other.known, pipeline=OTHER)),
        success(rig, 3, status="failed"),
        success(rig, 4, status="unheard_of"),
        success(rig, 5, was_paused=True),
        success(rig, 6, lost=LostReason.NOT_FOUND),
        success(rig, 7, seconds=0.0),
        success(rig, 8, seconds=-5.0),
        success(rig, 9, started_at=None),
        success(rig, 10, status="running", end_seen_at=None, ended_at=None),
        success(rig, 11, seconds=7.0),
    )
    assert list(await rig.owned.load_durations(PIPELINE, limit=200)) == [7 * SECOND_US]
    await prune(rig.store, before=START_US + 1)
    assert list(await rig.owned.load_durations(PIPELINE, limit=200)) == []


# Tokens of a day


async def report(rig: StoreRig, sequence: int, *, percent: int, day: str) -> None:
    """Record that a share of a day's tokens was reported."""
    body = json.dumps({"data": {"percent": percent, "day": day}}).encode()
    emitted = replace(event(SUBJECT, sequence=sequence, type_=EventType.PIPELINE_OVERSPENDING), body=body)
    entry = OutboxEntry(emitted, ("ops",))
    await rig.store.record(SourceChange(rig.account, sequence - 1, sequence, None, (entry,), pipeline=PIPELINE))


async def spending(rig: StoreRig, *, day_at: int = START_US, pipeline: str = PIPELINE) -> tuple[int, int]:
    return await rig.owned.load_spending(pipeline, stream=stream_of(SUBJECT), day_at=Micros(day_at))


async def test_the_tokens_of_a_day_are_those_of_all_that_ended_since_it_began(rig: StoreRig) -> None:
    assert await spending(rig) == (0, 0)
    await record(
        rig,
        end(rig, 9, at=START_US + 5, tokens=1 << 20, pipeline=OTHER),
        end(rig, 1, at=START_US - 1, tokens=1000),
        end(rig, 2, at=START_US, tokens=1),
        end(rig, 3, at=START_US + 5, tokens=20, status="failed"),
        end(rig, 4, at=START_US + HOUR_US, tokens=300, status="unrecognized"),
        end(rig, 5, at=START_US + 23 * HOUR_US, tokens=10**9),
        end(rig, 6, at=START_US + 23 * HOUR_US, tokens=10**9),
        end(rig, 7, at=START_US + 23 * HOUR_US, tokens=10**9),  # more than 32 bits together
    )
    assert await spending(rig) == (3 * 10**9 + 321, 0)
    assert (await spending(rig, pipeline=OTHER))[0] == 1 << 20
    assert (await spending(rig, day_at=START_US + DAY_US))[0] == 0


async def test_the_share_that_was_reported_is_the_last_one_of_the_same_day(rig: StoreRig) -> None:
    await report(rig, 1, percent=100, day="2026-11-23")  # written after midnight
    assert (await spending(rig))[1] == 0
    await report(rig, 2, percent=80, day="2026-11-24")
    assert (await spending(rig))[1] == 80
    await report(rig, 3, percent=100, day="2026-11-24")
    assert (await spending(rig))[1] == 100
    rig.clock.us = START_US + DAY_US
    assert (await spending(rig, day_at=START_US + DAY_US))[1] == 0


# Kinds of errors

NO_ANSWER, ALONE, BOOM = ("Greeting", "no answer"), (None, "no answer"), ("Greeting", "boom")


async def count(rig: StoreRig, *kinds: tuple[str | None, str], since: int = START_US, pipeline: str = PIPELINE) -> int:
    return await rig.owned.count_errors(pipeline, {error_kind_of(*each).fingerprint for each in kinds}, Micros(since))


async def test_errors_are_counted_by_kind_over_the_days_that_have_one_since_a_moment(rig: StoreRig) -> None:
    assert await count(rig, NO_ANSWER, ALONE) == 0
    rig.clock.us = START_US + DAY_US
    failures = [
        (START_US, NO_ANSWER),
        (START_US + 5 * HOUR_US, NO_ANSWER),
        (START_US + DAY_US, NO_ANSWER),
        (START_US + HOUR_US, ALONE),
        (START_US, BOOM),
    ]
    for number, (at, (node, text)) in enumerate(failures):
        await rig.store.record(end(rig, number, at=at, node=node, text=text, status="failed"))
    await rig.store.record(end(rig, 9, text="no answer", status="failed", pipeline=OTHER))
    assert [await count(rig, *kinds) for kinds in ((NO_ANSWER,), (ALONE,), (NO_ANSWER, ALONE), (BOOM,))] == [3, 1, 4, 1]
    assert await count(rig, NO_ANSWER, pipeline=OTHER) == 1
    assert await count(rig, NO_ANSWER, pipeline="88bb0000-0000-4000-8000-000000000000") == 0
    since = START_US + 5 * HOUR_US  # the first day has an error then, so all of that day count
    assert [await count(rig, NO_ANSWER, since=at) for at in (since, since + 1)] == [3, 1]
    assert await count(rig, NO_ANSWER, since=START_US + DAY_US + 1) == 0


@pytest.mark.parametrize("kept", [False, True])
async def test_a_kind_that_retention_deleted_is_not_known(rig: StoreRig, *, kept: bool) -> None:
    await rig.store.record(end(rig, 1, at=START_US + HOUR_US, text="no answer", status="failed"))
    await prune(rig.store, before=START_US + DAY_US + (not kept))  # the day is over at that time
    assert await count(rig, NO_ANSWER, since=START_US - 30 * DAY_US) == kept


# Reports: each moment is recorded once, with its event and deliveries, or not

FIRST, SECOND, THIRD = (START + timedelta(days=count) for count in range(3))


def entry(known: AnyRow, moment: datetime) -> OutboxEntry:
    made = EventFactory(Router({})).report
    return made(known.name, {"lookCount": 0}, sinks=["ops"], moment=moment, after=known.sequence, at=moment)


async def record_report(store: MaintenanceStore, moment: datetime) -> bool:
    known = (await store.reports())["morning"]
    return await store.record_report(known, to_us(moment), entry(known, moment))


@pytest.fixture
async def reports(rig: StoreRig) -> MaintenanceStore:
    store = await upkeep(rig.store)
    await store.add_report("morning", to_us(FIRST))
    return store


async def test_a_report_is_recorded_with_its_moment_and_sequence(rig: StoreRig, reports: MaintenanceStore) -> None:
    await reports.add_report("weekly", to_us(FIRST))
    await reports.add_report("weekly", to_us(SECOND))  # it is known already
    for moment in (SECOND, THIRD):
        assert await record_report(reports, moment)
    found = {name: (row.moment_at, row.sequence) for name, row in (await reports.reports()).items()}
    assert found == {"morning": (to_us(THIRD), 2), "weekly": (to_us(FIRST), 0)}
    sent = await due(rig.ops)
    numbered = [("watcher.report", "0000000001"), ("watcher.report", "0000000002")]
    assert [(each.type, each.content["sequence"]) for each in sent] == numbered
    assert rig.woken.names == ["ops", "ops"]


async def test_whoever_has_lost_the_lease_records_nothing(rig: StoreRig, reports: MaintenanceStore) -> None:
    await upkeep(rig.store)
    with pytest.raises(StoreError):
        await record_report(reports, SECOND)
    assert (await reports.reports())["morning"].moment_at == to_us(FIRST)
    assert await due(rig.ops) == []


async def test_news_are_events_of_the_span_that_open_no_problem(rig: StoreRig) -> None:
    at = to_us(START)
    rig.clock.us = at
    emitted = event("a pipeline", sequence=1, type_=EventType.PIPELINE_NEW_ERROR)
    await rig.store.record(SourceChange(rig.account, 0, 1, None, (OutboxEntry(emitted, ()),), pipeline=PIPELINE))
    (row,) = await load_troubles(rig.store, since=at, until=Micros(at + 1), limit=1)
    assert row.body == emitted.body
    assert (row.opened_at, row.closed_at) == (at, at)
    assert await load_troubles(rig.store, since=Micros(at + 1), until=Micros(at + 2), limit=1) == []
    assert await load_troubles(rig.store, since=Micros(at - 1), until=at, limit=1) == []
