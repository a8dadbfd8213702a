"""The rule `slow`: an open execution against the last successes of its pipeline."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rules_rig import UNCONFIRMED, again, row, ruled, show, shown, told, watch_of, whole
from stores import HeardStore
from virtual import EPOCH, PIPELINE, RULES, Account, FakeClock, Start, name_of, said

from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, Outcome
from watcher.polling.pipeline_recorder import PipelineRecorder
from watcher.polling.poll_item import TrackedExecution

SLOW = ruled(slow={"times": 3})
"""After 20 successes of 30 s each an execution is slow that runs for longer than 90 s."""

BEGUN_S = 1010.0


def success(number: int, *, seconds: float = 30.0, status: str = "success", **facts: Any) -> ExecutionSnapshot:
    """Return an execution that started with its number, and took so long."""
    at = EPOCH + timedelta(seconds=1000.0 + number / 100)
    return said(name_of(number), status, started_at=at, finished_at=at + timedelta(seconds=seconds), **facts)


def running(number: int, *, begun_s: float = BEGUN_S) -> ExecutionSnapshot:
    return row(number, "running", at_s=begun_s)


TWENTY = [success(number) for number in range(100, 120)]


async def with_past(start: Start, *executions: ExecutionSnapshot) -> Account:
    """Return an account with twenty successes since the watch began, of which nothing is reported any more."""
    account = await whole(start, SLOW)
    account.clock.advance(40.0)
    show(account, *TWENTY)
    await account.events(after_s=5)
    show(account, *TWENTY, *executions)
    return account


async def with_problem(start: Start, *numbers: int) -> Account:
    """Return an account in which these executions are slow."""
    account = await with_past(start, *map(running, numbers))
    assert (await told(account, after_s=120))[-1] == "pipeline.slow"
    return account


async def test_what_runs_longer_than_usual_opens_one_problem_which_closes_once_nothing_does(
    start: Start, clock: FakeClock
) -> None:
    account = await with_past(start, running(1), running(2, begun_s=1015.0))
    assert await told(account, after_s=BEGUN_S + 89 - clock.monotonic()) == ["running", "running"]
    await account.run_for(10)
    (opening,) = await account.events()
    data = opening["data"]
    assert opening["type"] == "pipeline.slow"
    assert (data["execution"]["id"], data["execution"]["status"]) == (name_of(1), "running")
    assert (data["usualSeconds"], data["limitSeconds"], data["slowCount"]) == (30.0, 90.0, 1)
    assert 90 < data["runningSeconds"] < 93
    assert (data["problem"]["kind"], data["problem"]["severity"]) == ("pipeline.slow", "warning")
    show(account, *TWENTY, success(1, seconds=100.0), running(2, begun_s=1015.0))
    assert await told(account, after_s=20) == ["success"]
    await shown(account, *TWENTY, success(1, seconds=100.0), success(2, seconds=100.0))
    end, closing = await account.events()
    assert (end["type"], closing["type"]) == ("execution.success", "pipeline.on_time")
    assert closing["data"]["problem"]["id"] == data["problem"]["id"]


async def test_history_is_not_the_past_of_a_pipeline(start: Start) -> None:
    account = await start(watches=[watch_of(SLOW)])
    dates: dict[str, Any] = {"started_at": EPOCH, "finished_at": EPOCH + timedelta(seconds=30)}
    assert await told(account, *(replace(each, **dates) for each in TWENTY), running(1), after_s=600) == ["running"]


async def test_who_was_seen_paused_counts_on_neither_side(start: Start, clock: FakeClock) -> None:
    account = await with_past(start, row(1, "paused", at_s=BEGUN_S))
    await account.run_for(5)
    assert await told(account, *TWENTY, running(1), after_s=600) == ["paused", "running"]
    await shown(account, *TWENTY, success(1, seconds=600.0))
    show(account, *TWENTY, success(1, seconds=600.0), running(2, begun_s=clock.monotonic()))
    assert (await told(account, after_s=95))[-1] == "pipeline.slow"


@pytest.mark.parametrize("ends", [False, True])
async def test_a_restart_neither_closes_nor_repeats_what_is_still_slow(start: Start, ends: bool) -> None:
    account = await with_problem(start, 1, 2)
    account = await again(start, account, SLOW)
    show(account, *TWENTY, success(1, seconds=100.0), *([success(2, seconds=100.0)] if ends else [running(2)]))
    assert await told(account, after_s=60) == (["success"] * 2 + ["pipeline.on_time"] if ends else ["success"])


async def test_a_threshold_that_is_changed_goes_on_with_the_same_problem(start: Start) -> None:
    account = await with_problem(start, 1)
    await account.watcher.watch([watch_of(ruled(slow={"times": 2, "at_least": "30s"}))])
    assert await told(account, after_s=60) == []
    await account.watcher.watch([watch_of(ruled(slow={"times": 100, "at_least": "30s"}))])
    assert await told(account, after_s=60) == ["pipeline.on_time"]


def showing(heard: HeardStore, recorder: PipelineRecorder, entry: TrackedExecution) -> list[asyncio.Task[None]]:
    """Have an answer show an execution during the next write. Return its task, once it has begun."""
    tasks: list[asyncio.Task[None]] = []

    def meanwhile(_item: object) -> bool:
        if not tasks:
            tasks.append(asyncio.ensure_future(recorder.note_shown([entry])))
        return True

    heard.takes = meanwhile
    return tasks


async def test_what_an_answer_shows_while_something_else_is_written_is_slow_as_soon_as_that_is_done(
    start: Start, heard: HeardStore, clock: FakeClock
) -> None:
    account = await with_past(start, running(1))
    assert await told(account, after_s=5) == ["running"]
    account.api.pages = {1: Outcome.SERVER_ERROR}
    clock.advance(120)
    recorder, entry = account.watcher._alert_rules.recorders[PIPELINE], account.watcher._registry.entries[name_of(1)]
    tasks = showing(heard, recorder, entry)
    other = TrackedExecution(ExecutionRecord(name_of(2), PIPELINE), entry.watch)
    evaluator = account.watcher._deps.evaluator
    await recorder.record([evaluator.success(other, said(name_of(2), "running"), sent_at=clock.monotonic())])
    await asyncio.gather(*tasks)
    events = [each["type"] for each in await account.events()]
    assert events == ["execution.running", "pipeline.slow"]


async def test_what_is_shown_while_the_closing_is_written_opens_the_next_problem(
    start: Start, heard: HeardStore, clock: FakeClock
) -> None:
    account = await with_past(start, running(1), running(2, begun_s=1015.0))
    assert (await told(account, after_s=BEGUN_S + 91 - clock.monotonic()))[-1] == "pipeline.slow"
    clock.advance(20)
    recorder = account.watcher._alert_rules.recorders[PIPELINE]
    first, second = (account.watcher._registry.entries[name_of(number)] for number in (1, 2))
    tasks = showing(heard, recorder, second)
    evaluator = account.watcher._deps.evaluator
    evaluation = evaluator.success(first, success(1, seconds=100.0), sent_at=clock.monotonic())
    await recorder.record([evaluation])
    first.known = evaluation.known
    await asyncio.gather(*tasks)
    events = [each["type"] for each in await account.events()]
    assert events == ["execution.success", "pipeline.on_time", "pipeline.slow"]


async def test_a_row_with_an_end_that_gets_deny_neither_closes_nor_repeats_the_problem(start: Start) -> None:
    account = await with_problem(start, 1)
    await account.watcher.cancel()
    account = await start(watches=[watch_of(SLOW)], rules=RULES)
    show(account, *TWENTY, row(1, "failed", at_s=BEGUN_S))
    account.api.script[name_of(1)] = running(1)
    assert await told(account, after_s=120) == []


# named executions, which no list shows


async def named(start: Start, account: Account, *numbers: int) -> Account:
    """Return the account after a restart, with a watch of these executions alone."""
    await account.watcher.cancel()
    return await start(watches=[watch_of(SLOW, *map(name_of, numbers))], rules=UNCONFIRMED)


async def with_slow(start: Start, *others: int) -> Account:
    """Return an account with a watch of some executions, of which the first is slow."""
    account = await named(start, await with_past(start), 1, *others)
    account.api.script = {name_of(1): running(1)}
    account.api.script |= {name_of(number): running(number, begun_s=account.clock.monotonic()) for number in others}
    assert "pipeline.slow" in await told(account, after_s=120)
    return account


async def test_a_named_execution_that_is_lost_after_a_restart_is_slow_no_longer(start: Start) -> None:
    account = await named(start, await with_slow(start), 1)
    account.api.script = {name_of(1): Outcome.NOT_FOUND}
    assert await told(account, after_s=300) == ["lost", "pipeline.on_time"]


async def test_the_problem_closes_if_the_slow_execution_is_named_no_more(start: Start) -> None:
    account = await with_slow(start, 2)
    account.api.script[name_of(2)] = said(name_of(2), "failed", started_at=EPOCH, finished_at=EPOCH)
    assert await told(account, after_s=60) == ["failed"]
    await account.watcher.watch([watch_of(SLOW, name_of(2))])
    assert await told(account, after_s=60) == ["pipeline.on_time"]


@pytest.mark.ci
async def test_the_end_of_what_was_slow_before_a_restart_is_recorded_with_the_closing(
    start: Start, heard: HeardStore
) -> None:
    account = await named(start, await with_slow(start), 1)
    account.api.script = {name_of(1): success(1, seconds=100.0)}
    heard.heard.clear()
    assert await told(account, after_s=5) == ["success", "pipeline.on_time"]
    assert [len(item.entries) for item in heard.heard if item.entries] == [2]
