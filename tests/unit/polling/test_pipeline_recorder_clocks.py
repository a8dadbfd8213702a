"""The API's clock is set, and ours before a start: rules see failures at once, close problems, and find no silence."""

import json
from typing import Any

import pytest
from rules_rig import BOTH, IN_A_ROW, SILENT, UNCONFIRMED, again, row, ruled, show, told, watch_of, whole
from virtual import PIPELINE, Account, FakeClock, ScriptedApi, Start, name_of

from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.history import EndedExecution
from watcher.domain.timestamps import Micros
from watcher.polling.pipeline_recorder import IN_API_TIME
from watcher.store.changes import SourceChange

SET_S = (-1200.0, 1200.0)


def listed(account: Account, *rows: ExecutionSnapshot) -> None:
    """Have the list show these beside what it showed, or as they are now."""
    before = {each.id: each for each in account.api.script.values() if isinstance(each, ExecutionSnapshot)}
    show(account, *(before | {each.id: each for each in rows}).values())


async def end(account: Account, *numbers: int, status: str = "failed") -> list[str]:
    """Let executions end, one each second, which the API's clock dates; return what is reported."""
    for number in numbers:
        at_s = account.clock.monotonic() + account.api.offset_s
        listed(account, row(number, status, at_s=at_s))
        await account.run_for(1.5)
    return await told(account, after_s=3)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("set_s", SET_S)
async def test_failures_open_and_a_success_closes_at_once_after_the_apis_clock_was_set(
    start: Start, set_s: float, *, restarts: bool
) -> None:
    account = await whole(start)
    assert await end(account, 1, 2, status="success") == ["success"] * 2
    account.api.offset_s += set_s
    account = await again(start, account, api=account.api) if restarts else account
    assert await end(account, 3, 4, 5) == ["failed"] * 3 + ["pipeline.failing"]
    account.api.offset_s -= set_s
    account = await again(start, account, api=account.api) if restarts else account
    assert await end(account, 6, status="success") == ["success", "pipeline.recovered"]


@pytest.mark.ci
@pytest.mark.parametrize("restarts", [False, True])
async def test_a_silence_goes_on_though_old_rows_are_dated_later_after_the_apis_clock_was_set_back(
    start: Start, *, restarts: bool
) -> None:
    account = await whole(start, SILENT)
    listed(account, row(1, "success"), row(2, "running"), row(3, "running"))
    assert (await told(account, after_s=4200))[-1] == "pipeline.silent"
    account.api.offset_s -= 1200.0
    account = await again(start, account, SILENT, api=account.api) if restarts else account
    listed(account, row(1, "success"), row(2, "success"), row(3, "paused"))
    assert sorted(await told(account, after_s=100)) == ["paused", "success"]


@pytest.mark.ci
@pytest.mark.parametrize("restarts", [False, True])
async def test_nothing_is_silent_though_old_rows_are_dated_earlier_after_the_apis_clock_was_set_forward(
    start: Start, *, restarts: bool
) -> None:
    account = await whole(start, SILENT)
    listed(account, row(1, "success"))
    await account.run_for(2700)
    account.api.offset_s += 1200.0
    account = await again(start, account, SILENT, api=account.api) if restarts else account
    assert await told(account, after_s=700) == ["success"]
    assert await told(account, after_s=300) == ["pipeline.silent"]


# What version 1.0.0 stored


class Unanswered(ScriptedApi):
    """An API that has not answered before the first request, so that nobody knows what its clock shows."""

    @property
    def ahead_us(self) -> int | None:  # type: ignore[override]
        return super().ahead_us if self.asked else None


async def store_as_first_version(account: Account, started_at: int, *ends: tuple[int, bool]) -> str:
    """Have the store say what is made of version 1.0.0, which kept times of the API's clock. Return the states."""
    await account.watcher.cancel()
    recorder, lease = account.watcher._alert_rules.recorders[PIPELINE], account.watcher._deps.lease
    at = recorder._stream.sequence
    states = {"failing": {"ends": ends}, "silent": {"started_at": started_at}, IN_API_TIME: True}
    change = SourceChange(lease, at, at, pipeline=PIPELINE, rules=json.dumps(states), replaces_unjudged=True)
    await account.store.record(change)
    return json.dumps(states)


async def rules_of(account: Account) -> Any:
    return await account.watcher._deps.store.load_rules(PIPELINE)


@pytest.mark.parametrize("offset_s", [-1200.0, 0.0, 1200.0])
async def test_what_the_first_version_stored_is_turned_once_the_api_has_answered(
    start: Start, clock: FakeClock, offset_s: float
) -> None:
    account = await whole(start, BOTH)
    assert await end(account, 1, 2, status="success") == ["success"] * 2
    now, ahead_us = clock.steady_us(), round(offset_s * 1_000_000)
    theirs = now + ahead_us
    old = await store_as_first_version(
        account, theirs - 9_000_000, (theirs - 9_000_000, True), (theirs - 8_000_000, True)
    )
    watcher, seen_at = account.watcher, Micros(theirs - 7_000_000)
    lease, at = watcher._deps.lease, watcher._alert_rules.recorders[PIPELINE]._stream.sequence
    held = (EndedExecution(seen_at, seen_at, "success", execution=name_of(2)),)
    await account.store.record(SourceChange(lease, at, at, pipeline=PIPELINE, unjudged=held))
    api = Unanswered(clock, account.api.script, account.api.pages, offset_s=offset_s)
    account = await start(watches=[watch_of(BOTH)], rules=UNCONFIRMED, api=api)
    assert (await rules_of(account)).states == old
    await account.run_for(5)
    record = await rules_of(account)
    ends = [[now - ago_s * 1_000_000, failed] for ago_s, failed in ((9, True), (8, True), (7, False))]
    assert json.loads(record.states)["failing"]["ends"] == ends
    assert IN_API_TIME not in record.states
    assert record.unjudged == []
    assert await end(account, 3, 4) == ["failed"] * 2
    assert await end(account, 5) == ["failed", "pipeline.failing"]


async def test_a_problem_of_the_first_version_goes_on_and_closes_by_the_rule_of_today(
    start: Start, clock: FakeClock
) -> None:
    minute = ruled(failing={"consecutive": 3, "quiet_for": "60s"})
    account = await whole(start, minute)
    assert (await end(account, 1, 2, 3))[-1] == "pipeline.failing"
    theirs = clock.steady_us() + 1_200_000_000
    await store_as_first_version(account, theirs, (theirs, True))
    api = Unanswered(clock, account.api.script, account.api.pages, offset_s=1200.0)
    account = await start(watches=[watch_of(minute)], rules=UNCONFIRMED, api=api)
    assert await end(account, *range(4, 34), status="success") == ["success"] * 30
    assert (await end(account, *range(34, 50), status="success")).count("pipeline.recovered") == 1


class Silent(ScriptedApi):
    """An API none of whose answers succeeds."""

    @property
    def ahead_us(self) -> int | None:  # type: ignore[override]
        return None


async def test_an_execution_that_is_lost_before_any_answer_is_recorded_while_the_rules_wait(
    start: Start, clock: FakeClock
) -> None:
    watch = watch_of(IN_A_ROW, name_of(1))
    old = await store_as_first_version(await start(watches=[watch]), 3, (5, True))
    api = Silent(clock, {name_of(1): Outcome.NOT_FOUND})
    account = await start(watches=[watch], api=api)
    assert await told(account, after_s=200) == ["lost"]
    assert (await rules_of(account)).states == old
