"""Watches that change while their executions are polled."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from virtual import EPOCH, PIPELINE, RULES, WHOLE, Account, Start, name_of, pages_of, said, watch_of

from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.watch import FirstSight, Watch

A, B, C = map(name_of, (10, 11, 12))
OTHER = Watch("default", "77aa0000-0000-4000-8000-000000000000", (), name="Onboarding")


def row(execution: str, status: str) -> ExecutionSnapshot:
    return ExecutionSnapshot(execution, status, started_at=EPOCH + timedelta(seconds=1001))


async def account_over(start: Start, *watches: Watch) -> Account:
    account = await start(watches=watches, rules=replace(RULES, first_sight=FirstSight.NOTIFY))
    account.api.pipelines.add(OTHER.pipeline)
    await account.run_for(5)
    return account


async def test_a_change_waits_for_what_is_asked_and_nothing_is_asked_meanwhile(start: Start) -> None:
    account = await account_over(start, WHOLE)
    account.api.pages, account.api.script[A] = pages_of(row(A, "running")), said(A, "running")
    await account.begin_request()
    changes = [asyncio.create_task(account.watcher.watch([watch_of(A)])) for _ in range(2)]
    await account.run_for(30)
    for _ in range(9):
        await account.events()  # the store is read often enough for a change that would not wait
    asked = len(account.api.asked)
    assert not changes[0].done()
    account.api.gate.set()
    await asyncio.gather(*changes)
    await account.run_for(1)
    assert [name for _, name in account.api.asked[asked:]] == [A]
    account.api.script[A] = said(A, "success")
    assert [type_ for type_, _, _ in await account.emitted(after_s=60)] == ["execution.success"]
    assert (account.fatal, account.api.most_at_once[A]) == ([], 1)


async def test_a_change_that_is_broken_off_leaves_all_as_it_was(start: Start) -> None:
    account = await start(A)
    await account.run_for(5)
    await account.begin_request()
    changing = asyncio.create_task(account.watcher.watch([watch_of(B)]))
    await asyncio.sleep(0)
    changing.cancel()
    account.api.gate.set()
    account.api.script[A] = said(A, "success")
    await asyncio.wait([changing])
    assert ("execution.success", "success", "running") in await account.emitted(after_s=60)


async def test_several_changes_at_once_watch_what_is_open_once(start: Start) -> None:
    account = await account_over(start, WHOLE)
    account.api.pages, account.api.script[A] = pages_of(row(A, "running")), said(A, "running")
    await account.run_for(5)
    await account.watcher.watch([OTHER])
    await account.run_for(5)
    await asyncio.gather(*map(account.watcher.watch, ([WHOLE, OTHER], [WHOLE])))
    assert list(account.watcher._list_poller._lists) == [PIPELINE]
    account.api.pages, account.api.script[A] = {}, said(A, "success")
    await account.run_for(200)
    emitted = [event["type"] for event in await account.events() if event.get("subject") == A]
    assert emitted == ["execution.running", "execution.success"]


async def test_what_is_reported_nobody_when_a_list_shows_it_is_reported_once_it_is_named(start: Start) -> None:
    account = await start(watches=[WHOLE])
    account.api.pages = pages_of(ExecutionSnapshot(A, "success", finished_at=EPOCH), ExecutionSnapshot(B, "running"))
    assert await account.emitted(after_s=5) == [("execution.running", "running", None)]
    account.api.script[A] = said(A, "success")
    await account.watcher.watch([watch_of(A)])
    assert [type_ for type_, _, _ in await account.emitted(after_s=20)] == ["execution.success"]


async def test_an_execution_that_is_added_is_polled_and_one_that_is_removed_no_more(start: Start) -> None:
    account = await start(A)
    account.api.script[B] = said(B, "paused")
    await account.run_for(5)
    await account.watcher.watch([watch_of(B)])
    assert 0.0 in account.wakes
    polled = len(account.api.times(A))
    await account.run_for(50)
    assert len(account.api.times(A)) == polled
    assert await account.emitted() == [("execution.running", "running", None), ("execution.paused", "paused", None)]


async def test_an_execution_that_is_watched_again_goes_on_from_what_was_reported(start: Start) -> None:
    account = await start(A)
    await account.run_for(5)
    await account.watcher.watch([])
    account.api.script[A] = said(A, "success")
    await account.run_for(500)
    await account.watcher.watch([watch_of(A)])
    await account.run_for(5)
    await account.watcher.watch([watch_of(A)])
    await account.run_for(500)
    first, last = await account.emitted()
    assert (first, last) == (("execution.running", "running", None), ("execution.success", "success", "running"))
    assert len(account.api.times(A)) == 7


async def test_labels_that_change_are_in_the_next_event_and_nothing_else_comes_of_it(start: Start) -> None:
    account = await start(A)
    await account.run_for(100)
    polled = len(account.api.asked)
    await account.watcher.watch([replace(watch_of(A), labels={"team": "ops"})])
    await account.run_for(0.5)
    assert len(account.api.asked) == polled
    account.api.script[A] = said(A, "failed")
    await account.run_for(60)
    assert [event["data"]["labels"]["team"] for event in await account.events()] == ["sales", "ops"]


async def test_those_polled_longest_ago_come_first_at_a_start(start: Start) -> None:
    account = await start(A, B, C)
    account.api.script[A] = said(A, "paused")
    await account.run_for(1)
    account.api.script[B] = said(B, "paused")
    await account.run_for(2)
    again = await start(A, B, C, rate_per_s=1.0)
    await again.run_for(5)
    assert [name for _, name in again.api.asked][:3] == [A, C, B]


async def test_a_refused_key_is_tried_at_once_when_the_configuration_is_read_anew(start: Start) -> None:
    account = await start(A)
    account.api.script[A] = Outcome.UNAUTHORIZED
    await account.run_for(5)
    polled = len(account.api.asked)
    await account.watcher.watch([watch_of(A)])
    await account.run_for(5)
    assert len(account.api.asked) == polled + 1
