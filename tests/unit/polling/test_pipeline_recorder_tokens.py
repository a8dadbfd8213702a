"""The rule `tokens`: an execution that is expensive, and the tokens of a day."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rules_rig import UNCONFIRMED, again, ruled, show, shown, told, watch_of, whole
from stores import HeardStore, claim
from virtual import EPOCH, RULES, Account, FakeClock, Start, name_of, said

from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.watch import Details

EXPENSIVE = ruled(tokens={"execution": 1000})
PER_DAY = ruled(tokens={"per_day": 1000})
OVERSPENDING = "pipeline.overspending"


def used(
    number: int, tokens: float | None, status: str = "success", *, at_s: float | None = None, **facts: Any
) -> ExecutionSnapshot:
    """Return an execution that has used so many tokens; it ended at `at_s`, else by its number."""
    at = EPOCH + timedelta(seconds=1000.0 + number if at_s is None else at_s)
    ends = {"finished_at": at} if status in {"success", "failed"} else {}
    return said(name_of(number), status, started_at=at, ai_tokens_used=tokens, **ends | facts)


async def spent(account: Account, *, after_s: float = 5) -> list[tuple[int, int, str]]:
    """Return the percent, tokens and day of each share of a day's tokens that was reported since."""
    data = [each["data"] for each in await account.events(after_s=after_s) if each["type"] == OVERSPENDING]
    return [(each["percent"], each["tokensUsed"], each["day"]) for each in data]


# An execution


async def test_an_execution_is_expensive_once_before_its_end(start: Start) -> None:
    account = await whole(start, EXPENSIVE)
    show(account, used(1, 1001))
    expensive, end = await account.events(after_s=5)
    assert (expensive["type"], end["type"]) == ("execution.expensive", "execution.success")
    assert expensive["data"]["execution"]["aiTokensUsed"] == 1001
    assert (expensive["data"]["tokensPerExecution"], "tokensPerExecution" in end["data"]) == (1000, False)
    assert "problem" not in expensive["data"]
    show(account, used(1, 1001), used(6, 1000), used(7, None), used(8, 5000, "failed"))
    assert await told(account, after_s=5) == ["success", "success", "expensive", "failed"]


async def test_what_is_history_is_not_expensive(start: Start) -> None:
    account = await start(watches=[watch_of(EXPENSIVE)], rules=UNCONFIRMED)
    assert await told(account, used(1, 5000, at_s=500.0), after_s=5) == []


@pytest.mark.parametrize("ends", [False, True])
async def test_what_is_expensive_closes_no_overdue_problem_and_its_end_does(start: Start, *, ends: bool) -> None:
    watch = replace(watch_of(EXPENSIVE), overdue_after_s={"running": 30.0})
    account = await start(watches=[watch], rules=UNCONFIRMED)
    await account.run_for(5)
    show(account, used(1, 10, "running"))
    running, overdue = await account.events(after_s=90)
    assert (running["type"], overdue["type"]) == ("execution.running", "execution.overdue")
    show(account, used(1, 1500, "success" if ends else "running"))
    expensive, *end = await account.events(after_s=60)
    assert expensive["type"] == "execution.expensive"
    assert "problem" not in expensive["data"]
    if not ends:
        assert end == []
        show(account, used(1, 1500))
        end = await account.events(after_s=60)
    assert [each["type"] for each in end] == ["execution.success"]
    assert end[0]["data"]["problem"]["id"] == overdue["data"]["problem"]["id"]


async def test_an_execution_is_not_expensive_again_after_a_restart(start: Start) -> None:
    account = await whole(start, EXPENSIVE)
    assert await told(account, used(1, 1500, "running"), after_s=5) == ["running", "expensive"]
    account = await again(start, account, EXPENSIVE)
    assert await told(account, used(1, 2500, "running"), after_s=5) == []
    assert await told(account, used(1, 2500), after_s=5) == ["success"]


async def test_an_execution_is_not_expensive_again_after_its_rule_was_removed_and_came_back(start: Start) -> None:
    account = await whole(start, EXPENSIVE)
    show(account, used(1, 1500, "running"), used(2, 10, "running"))
    assert sorted(await told(account, after_s=5)) == ["expensive", "running", "running"]
    await account.watcher.watch([watch_of(())])
    assert await told(account, used(1, 1600, "running"), used(2, 1600, "running"), after_s=5) == []
    await account.watcher.watch([watch_of(EXPENSIVE)])
    show(account, used(1, 1700, "running"), used(2, 1700, "running"))
    (event,) = await account.events(after_s=5)
    assert (event["type"], event["subject"]) == ("execution.expensive", name_of(2))


@pytest.mark.parametrize("details", [Details.FAILED, Details.ALWAYS, Details.NEVER])
async def test_tokens_that_only_a_get_names_count_where_ends_are_fetched(start: Start, details: Details) -> None:
    account = await whole(start, EXPENSIVE, scan=replace(RULES, details=details))
    ends = [used(1, 1500), used(2, 1500, "failed")]
    show(account, *ends)
    account.api.pages = {1: tuple(replace(each, ai_tokens_used=None) for each in ends[::-1])}
    expected = {Details.NEVER: [], Details.FAILED: [name_of(2)], Details.ALWAYS: [name_of(1), name_of(2)]}[details]
    events = await account.events(after_s=20)
    assert sorted(each["subject"] for each in events if each["type"] == "execution.expensive") == expected
    assert len(events) == 2 + len(expected)


# A day


@pytest.mark.parametrize("at_percent", [0, 80, 100])
async def test_after_a_restart_only_what_was_not_reported_on_this_day_is(
    start: Start, clock: FakeClock, at_percent: int
) -> None:
    account = await whole(start, PER_DAY)
    shown = [used(1, {0: 500, 80: 850, 100: 1000}[at_percent])]
    show(account, *shown)
    assert len(await spent(account)) == bool(at_percent)
    account = await again(start, account, PER_DAY)
    show(account, *shown)
    assert await spent(account) == []
    shown.append(used(2, 300, at_s=clock.monotonic()))
    show(account, *shown)
    reported = {0: [(80, 800, "2026-11-24")], 80: [(100, 1150, "2026-11-24")], 100: []}[at_percent]
    assert await spent(account) == reported


async def test_a_rule_that_returns_on_the_same_day_reports_nothing_twice(start: Start) -> None:
    account = await whole(start, PER_DAY)
    shown = [used(1, 900)]
    show(account, *shown)
    assert len(await spent(account)) == 1
    for without in ((), ruled(tokens={"execution": 10**6})):
        await account.watcher.watch([watch_of(without)])
        shown.append(used(len(shown) * 7, 40))
        show(account, *shown)
        assert await spent(account) == []
        await account.watcher.watch([watch_of(PER_DAY)])
        assert await spent(account) == []
    shown.append(used(30, 20))
    show(account, *shown)
    assert await spent(account) == [(100, 1000, "2026-11-24")]  # what ended without the rule counts


async def test_history_of_the_first_scan_counts_into_the_day(start: Start) -> None:
    account = await start(watches=[watch_of(PER_DAY)], rules=UNCONFIRMED)
    show(account, used(1, 700, at_s=500.0), used(2, 5000, at_s=-40000.0))  # the second ended on the day before
    assert await told(account, after_s=5) == []
    show(account, used(1, 700, at_s=500.0), used(2, 5000, at_s=-40000.0), used(3, 100, at_s=1004.0))
    assert await spent(account) == [(80, 800, "2026-11-24")]


async def test_an_end_that_no_list_shows_counts_and_a_lost_execution_does_not(start: Start) -> None:
    account = await whole(start, PER_DAY)
    await shown(account, used(1, 5000, "running"), used(2, 5000, "running"))
    show(account)
    account.api.script = {name_of(1): Outcome.NOT_FOUND, name_of(2): used(2, 900)}
    assert await spent(account, after_s=300) == [(80, 900, "2026-11-24")]


async def test_another_owner_goes_on_with_the_day_and_the_one_before_reports_nothing_more(
    start: Start, clock: FakeClock
) -> None:
    before = await whole(start, PER_DAY)
    show(before, used(1, 850))
    assert await spent(before) == [(80, 850, "2026-11-24")]
    await claim(before.store, "account", "default")  # another process has the account now
    after = await start(watches=[watch_of(PER_DAY)], rules=UNCONFIRMED)
    both = used(1, 850), used(2, 200, at_s=clock.monotonic())
    show(before, *both)
    await before.run_for(5)
    assert len(before.fatal) >= 1
    show(after, *both)
    assert await spent(after) == [(100, 1050, "2026-11-24")]


async def test_a_store_that_fails_between_makes_no_share_twice_and_none_lost(start: Start, heard: HeardStore) -> None:
    account = await whole(start, PER_DAY)
    heard.takes = lambda _item: False
    await shown(account, used(1, 850), for_s=10)
    assert await spent(account) == []
    heard.takes = lambda _item: True
    assert await spent(account, after_s=60) == [(80, 850, "2026-11-24")]
    show(account, used(1, 850), used(20, 200))
    assert await spent(account) == [(100, 1050, "2026-11-24")]
