"""The history of pipelines: counted once with each end, on both databases, and what is read of it."""

from dataclasses import replace
from uuid import UUID

import pytest
from contract.conftest import prune
from stores import PIPELINE, START_US, StoreRig, change, from_us, pipeline_change

from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey, EventType
from watcher.domain.history import DAY_US, HOUR_US, EndedExecution, Totals, error_kind_of, sum_up
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.timestamps import Micros
from watcher.domain.watch import Cursor
from watcher.store.changes import ChangeSet, ExecutionChange, SourceChange
from watcher.store.console_store import ConsoleStore

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
) -> ExecutionChange:
    """Return the change that an execution, first seen then, has ended a minute after it started."""
    error = error_kind_of("Greeting", text) if text else None
    ended = EndedExecution(Micros(at - 60_000_000), Micros(at), status, tokens, duration_s, error)
    return replace(change(rig.account, number, status=status, end_seen_at=Micros(at), ended_at=Micros(at)), ended=ended)


def console(rig: StoreRig) -> ConsoleStore:
    return ConsoleStore(rig.store)


async def test_each_end_counts_once_in_the_hour_in_which_it_was(rig: StoreRig) -> None:
    ends = [end(rig, 1, duration_s=4.0), end(rig, 2, status="failed", text="boom"), end(rig, 3, duration_s=9.0)]
    await rig.store.record(ChangeSet(rig.account, tuple(ends)))
    await rig.store.record(end(rig, 4, duration_s=9.0, at=START_US + HOUR_US))
    with pytest.raises(StoreError):  # as after a COMMIT of which nobody knows whether it went through
        await rig.store.record(end(rig, 4, duration_s=9.0, at=START_US + HOUR_US))
    await rig.store.record(end(rig, 5, status="unrecognized", at=START_US + 5))  # late: another hour is current by now
    hours = (await console(rig).history(NAME, since=Micros(START_US - HOUR_US))).hours
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
    found = await console(rig).history(NAME, since=START_US)
    assert {at: each.started for at, each in found.hours.items()} == {START_US: 2}


async def test_totals_are_those_of_all_hours_of_a_span_whichever_days_are_whole(rig: StoreRig) -> None:
    await rig.record(1, started_at=Micros(START_US + 5))  # it runs, so it counts nowhere
    first = Micros(START_US - 2 * DAY_US)
    at = [Micros(first + number * 5 * HOUR_US + 60_000_000) for number in range(15)]
    for number, ended_at in enumerate(at, 2):
        await rig.store.record(end(rig, number, at=ended_at, duration_s=float(number)))
    await rig.store.record(end(rig, 20, at=first + DAY_US, status="failed", text="boom"))
    store = console(rig)
    for since in range(first - HOUR_US, first + 3 * DAY_US, 7 * HOUR_US):
        for until in range(since + HOUR_US, since + 4 * DAY_US, 11 * HOUR_US):
            from_at, end_at = Micros(since), Micros(until)
            found = await store.totals({NAME}, since=from_at, until=end_at, with_durations=True)
            totals = found.get(NAME, Totals())
            expected = sum_up((await store.history(NAME, since=from_at)).hours, from_at, end_at)
            totals.counts["started"] = expected.counts["started"]
            assert totals == expected
            without = await store.totals({NAME, "default/another"}, since=from_at, until=end_at)
            rates = without.get(NAME, Totals())
            assert (rates.counts - totals.counts, rates.success, rates.failed) == ({}, totals.success, totals.failed)
    assert await store.totals({"default/another"}, since=first) == {}


@pytest.mark.parametrize("chunk", [1, 100])
async def test_totals_of_many_pipelines_are_read_some_at_a_time(
    rig: StoreRig, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.store.history_store.PIPELINES_COUNT", chunk)
    names = [f"default/77aa0000-0000-4000-8000-{number:012}" for number in range(3)]
    for number, name in enumerate(names):
        ended = end(rig, number)
        await rig.store.record(replace(ended, known=replace(ended.known, pipeline=name.partition("/")[2])))
    found = await console(rig).totals(set(names[:2]), since=Micros(START_US - HOUR_US))
    assert {name: each.success for name, each in found.items()} == dict.fromkeys(names[:2], 1)


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
    today = (await console(rig).history(NAME, since=START_US)).errors
    assert [(each.text, each.failed_count, first_at, each.last_at) for each, first_at in today] == [
        ("timeout after 3 s", 2, START_US - DAY_US, START_US + 20),
        ("no answer", 1, START_US + 30, START_US + 30),
    ]
    assert today[0][0].fingerprint == TIMEOUT.fingerprint
    both = (await console(rig).history(NAME, since=Micros(START_US - DAY_US))).errors
    assert [each.failed_count for each, _ in both] == [3, 1]
    (most,) = await console(rig).frequent_errors(since=START_US, until=Micros(START_US + DAY_US), limit=1)
    assert (most.pipeline_name, most.node, most.failed_count) == (NAME, "Greeting", 2)


async def test_a_kind_is_no_news_if_its_text_alone_was_seen_before_and_only_those_of_the_time_are_returned(
    rig: StoreRig,
) -> None:
    of_list = EndedExecution(START_US, START_US, "failed", error=error_kind_of(None, "no answer"))
    await rig.store.record(replace(end(rig, 1), ended=of_list))
    await rig.store.record(end(rig, 2, at=START_US + 2 * HOUR_US, status="failed", text="no answer"))
    ((newest, first_seen_at),) = (await console(rig).history(NAME, since=Micros(START_US + HOUR_US))).errors
    assert (newest.node, newest.last_at, first_seen_at) == ("Greeting", START_US + 2 * HOUR_US, START_US)


async def test_failures_from_a_list_which_names_no_node_count_to_the_kind_of_the_same_text(rig: StoreRig) -> None:
    failed = [("Greeting", "timeout after 1 s"), ("Greeting", "timeout after 2 s"), ("Booking", "timeout after 3 s")]
    for number, (node, text) in enumerate([*failed, (None, "timeout after 4 s"), (None, "no answer")]):
        at = Micros(START_US + number)
        ended = EndedExecution(at, at, "failed", error=error_kind_of(node, text))
        await rig.store.record(replace(end(rig, number), ended=ended))
    counted = [
        ("Greeting", "timeout after 4 s", 3, START_US + 3),
        ("no node", "no answer", 1, START_US + 4),
        ("Booking", "timeout after 3 s", 1, START_US + 2),
    ]
    history = await console(rig).history(NAME, since=START_US)
    of_all = await console(rig).frequent_errors(since=START_US, until=Micros(START_US + DAY_US), limit=9)
    for found in ([kind for kind, _ in history.errors], of_all):
        assert [(each.node or "no node", each.text, each.failed_count, each.last_at) for each in found] == counted


async def test_rates_are_of_the_last_24_hours_and_7_days(rig: StoreRig) -> None:
    rig.clock.us = START_US + 5
    for number, (age, status) in enumerate(
        [(0, "success"), (23, "failed"), (24, "success"), (162, "failed"), (163, "failed")]
    ):
        await rig.store.record(end(rig, number, at=START_US - age * HOUR_US, status=status))
    (rates,) = await console(rig).rates({NAME, "default/another"})
    assert tuple(rates) == (NAME, 1, 2, 2, 4)
    assert await console(rig).rates(set()) == []


async def test_the_history_knows_from_when_on_it_is_and_the_problems_of_that_time(rig: StoreRig) -> None:
    assert (await console(rig).history(NAME, since=START_US)).known_from is None
    await rig.store.record(pipeline_change(rig.account, cursor=Cursor(START_US, known_from=Micros(5))))
    for number, closed_us in enumerate((None, START_US - 1, START_US)):
        opening = EventKey(bytes([number]), 1)
        problem = Problem(UUID(int=number), EventType.PIPELINE_FAILING, from_us(START_US - 9 + number), opening)
        opened = (ProblemChange(problem, is_new=True),)
        await rig.store.record(SourceChange(rig.account, 0, 0, pipeline=PIPELINE, problems=opened))
        if closed_us is not None:
            closed = (ProblemChange(problem, closed_at=from_us(closed_us)),)
            await rig.store.record(SourceChange(rig.account, 0, 0, pipeline=PIPELINE, problems=closed))
    found = await console(rig).history(NAME, since=START_US)
    assert found.known_from == 5
    assert [UUID(bytes=each.id).int for each in found.problems] == [2, 0]


async def test_what_is_older_than_retention_goes(rig: StoreRig) -> None:
    for number, at in enumerate((START_US - 3 * DAY_US, START_US)):
        await rig.store.record(end(rig, number, at=at + 60_000_000, status="failed", text="boom"))
    await prune(rig.store, before=Micros(START_US - DAY_US), keep=lambda *_: True)
    found = await console(rig).history(NAME, since=Micros(START_US - 9 * DAY_US))
    assert list(found.hours) == [START_US]
    assert [each.failed_count for each, _ in found.errors] == [1]
