"""Whole pipelines in virtual time, over the real store: what a list leads to."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from stores import HeardStore, held, upkeep
from structlog.testing import capture_logs
from virtual import DAY_US, EPOCH, PIPELINE, RULES, WHOLE, Account, FakeClock, Start, name_of, pages_of, said

from watcher.clerk.api import PAGE_ROWS, Reply
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Details, Watch
from watcher.polling.poll_item import Evaluation, PollRules, TrackedExecution
from watcher.store.changes import ChangeSet
from watcher.store.sql_store import SqlStore

SALES = replace(WHOLE, labels={"team": "sales"})
BEGIN = EPOCH + timedelta(seconds=1000)
"""When the clock of a test begins."""


def row(number: int, status: str, *, age_s: float = 0.0, ended_s: float | None = None) -> ExecutionSnapshot:
    """Return a row of an execution that started, and perhaps ended, so many seconds before the test began.

    Of two the one with the higher number starts a moment later.
    """
    finished_at = None if ended_s is None else BEGIN - timedelta(seconds=ended_s)
    started_at = BEGIN - timedelta(seconds=age_s, microseconds=-number)
    return ExecutionSnapshot(name_of(number), status, started_at=started_at, finished_at=finished_at)


def history(count: int) -> list[ExecutionSnapshot]:
    return [row(number, "success", age_s=9000 - number, ended_s=8999 - number) for number in range(count, 0, -1)]


async def whole_account(
    start: Start, *rows: ExecutionSnapshot, rules: PollRules = RULES, rate_per_s: float = 1000.0, for_s: float = 0.0
) -> Account:
    """Return an account that has watched a list of these rows for so long."""
    account = await start(watches=[SALES], rules=rules, rate_per_s=rate_per_s)
    show(account, *rows)
    if for_s:
        await account.run_for(for_s)
    return account


async def account_with_one_running(start: Start, *, rules: PollRules = RULES) -> Account:
    """Return one whose list was read and shows one execution, which runs."""
    return await whole_account(start, row(1, "running"), rules=rules, for_s=5)


async def account_with_another(start: Start, number: int) -> Account:
    """Return one that also watches an execution of another pipeline by name, which runs."""
    other = Watch("default", "77aa0000-0000-4000-8000-000000000000", (name_of(number),))
    account = await start(name_of(number), watches=[SALES, other])
    account.api.pipelines.add(other.pipeline)
    return account


def show(account: Account, *rows: ExecutionSnapshot, page_rows: int = PAGE_ROWS) -> None:
    account.api.pages = pages_of(*rows, page_rows=page_rows)


def asked(account: Account, what: str) -> int:
    return len(account.api.times(what))


async def emitted(account: Account, *rows: ExecutionSnapshot, after_s: float | None = None) -> list[tuple[str, str]]:
    """Return type and execution of all that was reported since the last call; with `rows` the list shows these."""
    if rows:
        show(account, *rows)
    return [(event["type"], event.get("subject", "")) for event in await account.events(after_s=after_s)]


async def test_what_had_ended_before_is_silent_and_what_is_open_is_watched(start: Start) -> None:
    account = await whole_account(start, row(2, "running"), row(1, "success", age_s=60, ended_s=50))
    assert await emitted(account, after_s=5) == [("execution.running", name_of(2))]
    show(account, row(2, "success", ended_s=-6), row(1, "success", age_s=60, ended_s=50))
    assert await emitted(account, after_s=5) == [("execution.success", name_of(2))]
    assert asked(account, name_of(2)) == asked(account, name_of(1)) == 0
    assert account.metrics.registry.get_sample_value("watcher_detection_delay_seconds_count") == 1


@pytest.mark.parametrize("later", ["failed", "running"])
async def test_what_a_list_says_against_an_end_is_logged_and_counted_once_and_not_reported(
    start: Start, later: str
) -> None:
    account = await whole_account(start, row(2, "running"), row(1, "success", age_s=60, ended_s=50), for_s=5)
    show(account, row(2, "success", ended_s=-6), row(1, "success", age_s=60, ended_s=50))
    await emitted(account, after_s=5)
    with capture_logs() as logs:
        show(account, row(2, "running"), row(1, "success", age_s=60, ended_s=50))
        await account.run_for(50)
        assert logs == []  # a list may lag behind
        show(account, row(2, later), row(1, "success", age_s=60, ended_s=50))
        await account.run_for(30)
    (said,) = [line for line in logs if line["event"] == "execution.contradicted"]
    assert (said["execution"], said["log_level"]) == (name_of(2), "warning")
    labels = {"account": "default", "outcome": "contradicted"}
    assert account.metrics.registry.get_sample_value("watcher_polls_total", labels) == 1
    assert await emitted(account) == []


async def test_what_one_page_brings_is_one_change_for_the_store(start: Start, heard: HeardStore) -> None:
    account = await whole_account(start, *(row(number, "running") for number in (3, 2, 1)))
    await emitted(account, after_s=5)
    heard.heard.clear()
    show(account, *(row(number, "paused") for number in (3, 2, 1)))
    assert sorted(await emitted(account, after_s=5)) == [("execution.paused", name_of(number)) for number in (1, 2, 3)]
    (written,) = [each for each in heard.heard if isinstance(each, ChangeSet)]
    assert len(written.changes) == 3


async def test_a_row_that_the_store_does_not_take_keeps_no_other_from_it(start: Start, heard: HeardStore) -> None:
    account = await whole_account(start, *(row(number, "running") for number in (3, 2, 1)))
    await emitted(account, after_s=5)
    heard.takes = lambda item: name_of(2) not in repr(item)
    show(account, *(row(number, "paused") for number in (3, 2, 1)))
    assert sorted(await emitted(account, after_s=5)) == [("execution.paused", name_of(number)) for number in (1, 3)]
    heard.takes = lambda _item: True
    assert await emitted(account, after_s=5) == [("execution.paused", name_of(2))]


async def test_what_was_silent_is_reported_once_it_is_named(start: Start) -> None:
    account = await whole_account(start, row(1, "success", age_s=60, ended_s=50), for_s=5)
    for _ in range(2):
        account = await start(name_of(1), watches=[replace(SALES, executions=(name_of(1),))])
        account.api.script[name_of(1)] = said(name_of(1), "success")
        await account.run_for(5)
    assert await emitted(account) == [("execution.success", name_of(1))]
    assert asked(account, name_of(1)) == 0


@pytest.mark.parametrize(
    ("details", "status", "gets"),
    [
        (Details.NEVER, "failed", 0),
        (Details.FAILED, "success", 0),
        (Details.FAILED, "failed", 1),
        (Details.ALWAYS, "success", 1),
    ],
)
async def test_details_say_which_ends_are_fetched(start: Start, details: Details, status: str, gets: int) -> None:
    account = await account_with_one_running(start, rules=replace(RULES, details=details))
    account.api.script[name_of(1)] = said(name_of(1), status)
    show(account, row(1, status, ended_s=-5))
    assert await emitted(account, after_s=5) == [("execution.running", name_of(1)), (f"execution.{status}", name_of(1))]
    assert asked(account, name_of(1)) == gets


async def test_a_get_that_says_open_wins_against_the_row(start: Start) -> None:
    account = await account_with_one_running(start)
    account.api.script[name_of(1)] = said(name_of(1), "running")
    assert await emitted(account, row(1, "failed", ended_s=-5), after_s=60) == [("execution.running", name_of(1))]
    assert 4 <= asked(account, name_of(1)) <= 8  # once in ten seconds, not with each scan
    assert account.api.unread > 10  # the page and the GET each say the same again, and neither hides the other
    account.api.script[name_of(1)] = said(name_of(1), "failed")
    assert await emitted(account, after_s=15) == [("execution.failed", name_of(1))]


async def test_a_pending_confirmation_that_nobody_can_confirm_is_taken_after_thirty_seconds(start: Start) -> None:
    account = await account_with_one_running(start)
    account.api.script[name_of(1)] = Outcome.SERVER_ERROR
    assert await emitted(account, row(1, "failed", ended_s=-5), after_s=30) == [("execution.running", name_of(1))]
    assert await emitted(account, after_s=3) == [("execution.failed", name_of(1))]
    assert asked(account, name_of(1)) == 5  # after 0, 1, 3, 7 and 15 seconds


async def test_what_waits_for_a_confirmation_is_not_taken_in_a_drain(start: Start, clock: FakeClock) -> None:
    account = await account_with_one_running(start)
    account.api.script[name_of(1)] = Outcome.SERVER_ERROR
    show(account, row(1, "failed", ended_s=-5))
    await account.run_for(5)
    await account.watcher.drain()
    clock.advance(60)
    await account.watcher.tick()
    await account.settle()
    assert await emitted(account) == [("execution.running", name_of(1))]


async def test_an_end_that_was_found_but_not_reported_before_a_crash_is_reported_after_it(start: Start) -> None:
    account = await whole_account(start, row(1, "running", age_s=100), for_s=5)
    account.api.script[name_of(2)] = Outcome.SERVER_ERROR
    show(account, row(2, "failed", ended_s=-5), row(1, "running", age_s=100))
    assert await emitted(account, after_s=5) == [("execution.running", name_of(1))]
    again = await whole_account(start, row(2, "failed", ended_s=-5), row(1, "running", age_s=100))
    again.api.script = {name_of(2): said(name_of(2), "failed"), name_of(1): said(name_of(1), "running")}
    assert await emitted(again, after_s=5) == [("execution.failed", name_of(2))]


@pytest.mark.parametrize(("count", "page_rows", "starts"), [(80, PAGE_ROWS, 2), (60, 10, 1)])
async def test_pages_answer_for_all_on_them_always(start: Start, count: int, page_rows: int, starts: int) -> None:
    rows = [row(number, "running", age_s=9000 - number) for number in range(count, 0, -1)]
    for _ in range(starts):
        account = await whole_account(start, rate_per_s=5.0)
        account.api.script = {each.id: each for each in rows}
        show(account, *rows, page_rows=page_rows)
        await account.run_for(60)
        assert not any(what.startswith("9a1b") for _, what in account.api.asked)
        assert account.api.asked[0][1:] == ("page 1",)


async def test_one_alone_on_a_deep_page_is_asked_for_by_itself(start: Start) -> None:
    rows = [row(number, "success", age_s=9000, ended_s=8000) for number in range(120, 0, -1)]
    rows[110] = row(10, "paused", age_s=9000)
    account = await whole_account(start, *rows)
    account.api.script[name_of(10)] = said(name_of(10), "paused")
    await account.run_for(20)  # by then what the first scan found is settled
    account.api.asked.clear()
    await account.run_for(30)
    assert asked(account, "page 3") == 0
    assert asked(account, name_of(10)) > 20
    assert await emitted(account) == [("execution.paused", name_of(10))]


async def test_one_that_is_not_where_it_should_be_is_asked_for_by_itself(start: Start) -> None:
    account = await whole_account(start, row(2, "running"), row(1, "running"))
    account.api.script[name_of(1)] = said(name_of(1), "success")
    await account.run_for(5)
    show(account, row(2, "running"))
    assert sorted(await emitted(account, after_s=5)) == [
        ("execution.running", name_of(1)),
        ("execution.running", name_of(2)),
        ("execution.success", name_of(1)),
    ]


async def test_a_list_that_is_refused_is_reported_once_and_asked_for_every_ten_minutes(start: Start) -> None:
    account = await whole_account(start, row(1, "running"))
    await account.events(after_s=5)
    account.api.script[name_of(1)] = said(name_of(1), "running")
    account.api.pages = {1: Outcome.FORBIDDEN}
    gap, *others = await account.events(after_s=200)
    assert (gap["type"], gap["data"]["reason"], others) == ("pipeline.gap", "forbidden", [])
    assert gap["source"] == f"/accounts/default/pipelines/{PIPELINE}"
    assert gap["data"]["labels"] == {"team": "sales"}
    pages = asked(account, "page 1")
    await account.run_for(3000)
    assert 4 <= asked(account, "page 1") - pages <= 6
    again = await whole_account(start)
    again.api.pages = {1: Outcome.FORBIDDEN}
    again.api.script[name_of(1)] = said(name_of(1), "running")
    assert (await emitted(again, after_s=700), asked(again, "page 1")) == ([], 2)
    show(again, row(1, "running"))
    assert await emitted(again, after_s=1200) == []


async def test_a_list_that_is_refused_and_seldom_asked_for_is_no_budget_too_small(start: Start) -> None:
    account = await account_with_another(start, 1)
    account.api.pages = {1: Outcome.FORBIDDEN}
    assert [type_ for type_, *_ in await account.emitted(after_s=7200)] == ["execution.running", "pipeline.gap"]


@pytest.mark.ci
@pytest.mark.parametrize("outcome", [Outcome.SERVER_ERROR, Outcome.INVALID, Outcome.TIMEOUT])
async def test_a_list_that_cannot_be_read_for_an_hour_is_a_gap_if_others_can_be(start: Start, outcome: Outcome) -> None:
    account = await account_with_another(start, 9)
    account.api.pages = {1: outcome}
    assert [event["type"] for event in await account.events(after_s=3500)] == ["execution.running"]
    (gap,) = await account.events(after_s=7200)
    assert (gap["type"], gap["data"]["reason"]) == ("pipeline.gap", "unreadable")
    assert asked(account, "page 1") > 150
    assert await emitted(account, row(1, "running"), after_s=70) == [("execution.running", name_of(1))]
    account.api.pages = {1: outcome}
    assert await emitted(account, after_s=3700) == [("pipeline.gap", "")]


async def test_a_pipeline_without_a_name_is_asked_for_it_once_over_restarts_too(start: Start) -> None:
    for rows in ([row(1, "running")], [row(2, "running"), row(1, "running")]):
        account = await start(watches=[replace(SALES, name=None)])
        show(account, *rows)
        account.api.script[name_of(1)] = said(name_of(1), "running")
        (event,) = await account.events(after_s=10)
        assert event["data"]["pipeline"]["name"] == "Sales agent"
        assert asked(account, name_of(1)) == (len(rows) == 1)
        assert asked(account, name_of(2)) == 0


async def test_in_a_storm_of_ends_every_second_request_still_polls(start: Start) -> None:
    open_rows = [row(number, "running") for number in range(40, 0, -1)]
    account = await whole_account(start, *open_rows, rate_per_s=1.0, for_s=10)
    account.api.script = {name_of(number): said(name_of(number), "failed") for number in range(1, 41)}
    show(account, row(41, "running"), *(row(number, "failed", ended_s=-10) for number in range(40, 0, -1)))
    await account.run_for(20)
    recent = [what for at, what in account.api.asked if at > 1012]
    assert 0.4 <= sum(what == "page 1" for what in recent) / len(recent) <= 0.6
    assert len({subject for type_, subject in await emitted(account, after_s=40) if type_ == "execution.failed"}) == 40


DAY_S = 24 * 3600.0


async def test_a_watch_that_returns_within_a_day_goes_on(start: Start, store: SqlStore, clock: FakeClock) -> None:
    account = await whole_account(start, row(1, "success", age_s=10, ended_s=5), for_s=5)
    await account.watcher.watch([])
    await (await upkeep(store)).mark_absent_pipelines(present=(), now=clock.steady_us())
    for hours, number in ((23, 2), (25, 3)):
        clock.advance(hours * 3600)
        ended = row(number, "success", age_s=-hours * 3600.0, ended_s=-hours * 3600.0 - 1)
        show(account, ended, row(1, "success", age_s=10, ended_s=5))
        await account.watcher.watch([SALES])
        assert len(await emitted(account, after_s=5)) == (1 if hours == 23 else 0)
        await account.watcher.watch([])
        await (await upkeep(store)).mark_absent_pipelines(present=(), now=clock.steady_us())


async def test_an_idle_pipeline_of_old_rows_costs_one_page(start: Start, store: SqlStore, clock: FakeClock) -> None:
    old = [row(number, "success", age_s=90 * DAY_S, ended_s=89 * DAY_S) for number in range(120, 0, -1)]
    for _ in range(2):
        account = await whole_account(start, *old)
        assert await emitted(account, after_s=60) == []
        assert asked(account, "page 2") <= 1
    clock.advance(40 * DAY_S)
    tidied = await upkeep(store)
    async for _ in tidied.prune(ended_before=Micros(clock.steady_us() - 30 * DAY_US), keep=lambda *_: False):
        pass
    account = await whole_account(start, *old)
    assert await emitted(account, after_s=60) == []
    assert asked(account, "page 2") <= 1


async def test_pages_that_are_refused_though_they_must_be_there_are_a_gap_and_the_head_is_read_on(start: Start) -> None:
    old = [row(number, "success", age_s=90, ended_s=80) for number in range(60, 0, -1)]
    account = await whole_account(start, *old, for_s=30)
    several = [row(number, "success", age_s=-30, ended_s=-31) for number in range(200, 60, -1)]
    show(account, *several, *old)
    account.api.pages |= dict.fromkeys((2, 3, 4), Outcome.REJECTED)
    account.api.total = 200
    *ends, gap = await account.events(after_s=90)
    assert len(ends) == PAGE_ROWS
    assert (gap["type"], gap["data"]["reason"], gap["data"]["atMost"]) == ("pipeline.gap", "rejected", 150)
    show(account, row(201, "success", age_s=-121, ended_s=-122), *several[: PAGE_ROWS - 1])
    assert await emitted(account, after_s=10) == [("execution.success", name_of(201))]
    show(account, *(row(number, "success", age_s=-131, ended_s=-132) for number in range(300, 201, -1)), *several)
    refuse(account, 2, outcome=Outcome.REJECTED)
    await account.run_for(90)
    assert await gaps(account) == [("rejected", 189)]


def refuse(account: Account, *pages: int, outcome: Outcome) -> None:
    """Let deeper pages be refused, of which `total` says that they are there."""
    account.api.total = sum(len(page) for page in account.api.pages.values() if isinstance(page, tuple))
    account.api.pages |= dict.fromkeys(pages, outcome)


async def gaps(account: Account) -> list[tuple[str, int | None]]:
    events = [event for event in await account.events() if event["type"] == "pipeline.gap"]
    return [(event["data"]["reason"], event["data"].get("atMost")) for event in events]


@pytest.mark.parametrize("outcome", [Outcome.NOT_FOUND, Outcome.REJECTED])
async def test_oldest_first_too_a_page_that_must_be_there_is_a_gap_once_refused(start: Start, outcome: Outcome) -> None:
    old = history(100)[::-1]
    account = await whole_account(start, *old, for_s=30)
    show(account, *old, *(row(number, "success", age_s=-31, ended_s=-32) for number in range(1000, 1040)))
    refuse(account, 3, 4, outcome=outcome)
    await account.run_for(1000)
    assert [reason for reason, _ in await gaps(account)] == [outcome.value]


@pytest.mark.ci
@pytest.mark.parametrize(("count", "lists"), [(90, 1), (400, 1), (190, 3)])
async def test_lists_without_an_order_take_a_quarter_of_the_requests(start: Start, count: int, lists: int) -> None:
    rows = history(count)
    Random(1).shuffle(rows)
    others = [replace(SALES, pipeline=f"{nth}7aa0000-0000-4000-8000-000000000000") for nth in range(lists - 1)]
    account = await start(watches=[SALES, *others], rate_per_s=2.0)
    account.api.pipelines.update(each.pipeline for each in others)
    show(account, *rows)
    await account.run_for(60)
    before = len(account.api.asked)
    await account.run_for(600)
    assert 0.2 * 2.0 * 600 <= len(account.api.asked) - before <= 0.25 * 2.0 * 600


async def test_while_a_deeper_page_fails_the_head_is_read_on_and_after_an_hour_it_is_a_gap(start: Start) -> None:
    account = await account_with_another(start, 9999)
    show(account, *history(120))
    refuse(account, 2, outcome=Outcome.SERVER_ERROR)
    assert await emitted(account, after_s=300) == [("execution.running", name_of(9999))]
    show(account, row(1000, "success", age_s=-300, ended_s=-301), *history(120))
    refuse(account, 2, outcome=Outcome.SERVER_ERROR)
    assert await emitted(account, after_s=120) == [("execution.success", name_of(1000))]
    await account.run_for(3600)
    assert await gaps(account) == [("unreadable", 71)]


async def test_a_page_that_a_deletion_took_away_is_no_gap(start: Start) -> None:
    account = await whole_account(start, *history(101), rate_per_s=1.0)
    refuse(account, outcome=Outcome.NOT_FOUND)
    while not asked(account, "page 2"):
        await account.run_for(0.5)
    show(account, *history(101)[:-1])
    refuse(account, 3, outcome=Outcome.NOT_FOUND)
    await account.run_for(200)
    assert asked(account, "page 3") > 0
    assert await gaps(account) == []


@pytest.mark.ci
async def test_beyond_known_rows_refused_pages_are_no_gap(start: Start) -> None:
    rows = history(200)
    rows[170] = replace(rows[170], status="paused", finished_at=None)
    await (await whole_account(start, *rows)).run_for(70)  # by then it is recorded that all of them are settled
    account = await whole_account(start, *rows)
    account.api.script = {rows[170].id: said(rows[170].id, "paused")}
    refuse(account, 2, 3, 4, 5, outcome=Outcome.FORBIDDEN)
    await account.run_for(1000)
    assert await gaps(account) == []


@pytest.mark.ci
@pytest.mark.parametrize(("is_wanted", "begun_s"), [(False, 20), (True, 13)])
async def test_what_is_new_at_the_head_is_reported_in_a_deep_scan_which_goes_on_where_it_is(
    start: Start, begun_s: float, *, is_wanted: bool
) -> None:
    old = [row(number, "success", age_s=9000 - number, ended_s=80) for number in range(3000, 0, -1)]
    account = await whole_account(start, *old, rate_per_s=1.0, for_s=begun_s)
    show(account, row(3001, "success", age_s=-begun_s, ended_s=-begun_s - 0.5), *old)
    if is_wanted:
        account.watcher.read_list(PIPELINE)
    found = await emitted(account, after_s=1.1 if is_wanted else 15)
    assert (found, asked(account, "page 60")) == ([("execution.success", name_of(3001))], 0)
    await account.run_for(80)
    assert (asked(account, "page 60"), asked(account, "page 30") if is_wanted else 1) == (1, 1)
    assert await emitted(account) == []


async def test_a_list_that_somebody_wants_read_is_next_however_busy_the_account_is(start: Start) -> None:
    named = Watch("default", "named", tuple(map(name_of, range(100, 200))))
    account = await start(watches=[SALES, named], rate_per_s=1.0)
    account.api.pipelines |= {"named"}
    account.api.default = None
    account.api.script |= {name_of(number): said(name_of(number), "running") for number in range(100, 200)}
    show(account, row(1, "running"))
    await account.run_for(200)
    for _ in range(2):
        before = asked(account, "page 1")
        account.watcher.read_list(PIPELINE)
        account.watcher.read_list(PIPELINE)  # several at once are one
        await account.run_for(1.1)
        assert asked(account, "page 1") == before + 1
        await account.run_for(3)
        assert asked(account, "page 1") == before + 1
    account.watcher.read_list("named")  # has no list to be read
    await account.run_for(1)


async def test_a_scan_that_began_before_it_was_wanted_does_not_count(start: Start) -> None:
    account = await whole_account(start, row(1, "running"), rate_per_s=1.0, for_s=100)
    account.api.gate.clear()
    hold, lists = asyncio.Event(), account.api.list

    async def slowly(**request: Any) -> Reply:
        reply = await lists(**request)
        await hold.wait()
        return reply

    account.api.list = slowly  # type: ignore[method-assign]
    account.watcher.read_list(PIPELINE)
    await account.run_for(1.1)
    before = asked(account, "page 1")
    account.watcher.read_list(PIPELINE)  # the page is on its way
    show(account, row(2, "running"), row(1, "running"))
    hold.set()
    account.api.gate.set()
    await account.run_for(1.1)
    assert asked(account, "page 1") == before + 1
    assert await emitted(account) == [("execution.running", name_of(1)), ("execution.running", name_of(2))]


async def test_a_start_that_asked_for_nothing_has_begun_to_watch(start: Start, clock: FakeClock) -> None:
    await whole_account(start)
    clock.advance(100)
    account = await whole_account(start, row(1, "success", age_s=-40, ended_s=-50))
    assert await emitted(account, after_s=5) == [("execution.success", name_of(1))]


@pytest.mark.parametrize("outcome", [Outcome.NOT_FOUND, Outcome.REJECTED])
async def test_a_page_beyond_the_end_may_be_refused(start: Start, outcome: Outcome) -> None:
    account = await whole_account(start, *(row(number, "running") for number in range(50, 0, -1)))
    account.api.pages[2] = outcome
    assert {type_ for type_, _ in await emitted(account, after_s=120)} == {"execution.running"}


async def test_what_was_named_and_reported_before_is_not_reported_again(start: Start) -> None:
    named = [name_of(number) for number in range(1, 61)]
    account = await start(*named)
    account.api.script = {each: said(each, "success") for each in named}
    assert len(await emitted(account, after_s=5)) == 60
    show(account, *(row(number, "success", age_s=20, ended_s=-2) for number in range(60, 0, -1)))
    await account.watcher.watch([SALES])
    await account.run_for(20)  # by then what the first scan found is settled
    account.api.asked.clear()
    assert await emitted(account, after_s=30) == []
    assert asked(account, "page 2") == 0
    await account.watcher.watch([replace(SALES, executions=(named[0],))])
    assert await emitted(account, after_s=30) == []


class BrokenError(Exception):
    """A bug that nobody foresaw."""


async def test_a_crash_over_one_row_loses_nothing_of_its_page(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await whole_account(start, *(row(number, "running") for number in (3, 2, 1)), for_s=5)
    success = account.watcher._deps.evaluator.success

    def stumble(entry: TrackedExecution, execution: ExecutionSnapshot, *, sent_at: float) -> Evaluation:
        if execution.id == name_of(2):
            raise BrokenError
        return success(entry, execution, sent_at=Monotonic(sent_at))

    monkeypatch.setattr(account.watcher._deps.evaluator, "success", stumble)
    show(account, row(3, "paused"), row(2, "running"), row(1, "paused"))
    await account.run_for(5)
    monkeypatch.undo()
    show(account)
    account.api.script = {name_of(number): said(name_of(number), "success") for number in (3, 2, 1)}
    await emitted(account)
    expected = [("execution.success", name_of(number)) for number in (1, 2, 3)]
    assert sorted(await emitted(account, after_s=130)) == expected


async def test_an_end_that_the_store_did_not_take_is_reported_though_it_is_gone(start: Start, path: Path) -> None:
    account = await account_with_one_running(start)
    show(account, row(1, "failed", ended_s=-5))
    account.api.script[name_of(1)] = said(name_of(1), "failed")
    with held(path):
        await account.run_for(3)
    assert asked(account, name_of(1)) > 0
    show(account)
    account.api.script[name_of(1)] = Outcome.NOT_FOUND
    assert [event for event in await emitted(account, after_s=200) if event[1] == name_of(1)] == [
        ("execution.running", name_of(1)),
        ("execution.failed", name_of(1)),
    ]
