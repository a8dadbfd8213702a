"""An answer that is the same to the byte as the last one is not read again, and counts as a success in full."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from types import FrameType

import pytest
from stores import HeardStore
from virtual import EPOCH, RULES, WHOLE, Account, Start, name_of, pages_of, said, watch_of

from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.watch import Details, Watch

A, B = map(name_of, (10, 11))


async def statuses(account: Account, *, after_s: float | None = None) -> list[str | None]:
    return [status for _, status, _ in await account.emitted(after_s=after_s)]


def row(execution: str, status: str, **facts: object) -> ExecutionSnapshot:
    return ExecutionSnapshot(execution, status, started_at=EPOCH + timedelta(seconds=900), **facts)  # type: ignore[arg-type]


async def whole(start: Start, *rows: ExecutionSnapshot, details: Details = Details.NEVER) -> Account:
    account = await start(watches=[WHOLE], rules=replace(RULES, details=details))
    account.api.pages = pages_of(*rows)
    return account


async def test_it_is_not_read_and_the_next_that_differs_is(start: Start) -> None:
    account = await start(A)
    await account.run_for(60)
    assert account.api.unread == len(account.api.asked) - 1 > 5
    account.api.script[A] = said(A, "success")
    assert await statuses(account, after_s=60) == ["running", "success"]


@pytest.mark.parametrize("is_whole", [True, False])
async def test_what_is_overdue_is_told_though_the_answer_stays_the_same(start: Start, *, is_whole: bool) -> None:
    watched = WHOLE if is_whole else watch_of(A)
    account = await start(A, watches=[replace(watched, overdue_after_s={"running": 160.0})])
    account.api.script[A] = row(A, "running", ai_tokens_used=7)
    account.api.pages = pages_of(row(A, "running", ai_tokens_used=7))
    assert [type_ for type_, *_ in await account.emitted(after_s=50)] == ["execution.running"]
    (overdue,) = await account.events(after_s=30)
    assert (overdue["type"], overdue["data"]["execution"]["aiTokensUsed"]) == ("execution.overdue", 7)
    unread = account.api.unread
    await account.run_for(60)
    assert account.api.unread > unread


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_write_is_tried_again_though_the_answer_stays_the_same(
    start: Start, heard: HeardStore, *, is_whole: bool
) -> None:
    account = await start(A, B, watches=[WHOLE if is_whole else watch_of(A, B)])
    account.api.pages = pages_of(row(A, "running"), row(B, "running"))
    await account.run_for(30)
    heard.takes = lambda _item: False
    account.api.script[A], account.api.pages = said(A, "paused"), pages_of(row(A, "paused"), row(B, "running"))
    await account.run_for(30)
    heard.takes = lambda _item: True
    assert await statuses(account, after_s=10) == ["running", "running", "paused"]
    assert account.api.unread > 3
    assert account.fatal == []


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_reload_between_two_equal_answers_brings_what_it_asks_for(start: Start, *, is_whole: bool) -> None:
    def watch(limits_s: Mapping[str, float]) -> Watch:
        return replace(WHOLE if is_whole else watch_of(A, B), overdue_after_s=limits_s)

    account = await start(A, B, watches=[watch({})], rules=replace(RULES, details=Details.NEVER))
    account.api.pages = pages_of(row(A, "running"), row(B, "running"))
    await account.emitted(after_s=100)
    await account.watcher.watch([watch({"running": 30.0})])
    assert [type_ for type_, *_ in await account.emitted(after_s=70)] == ["execution.overdue"] * 2
    await account.watcher.watch([])
    await account.watcher.watch([watch({})])
    account.api.pages = pages_of(row(A, "paused"), row(B, "running"))
    account.api.script[A] = said(A, "paused")
    assert await statuses(account, after_s=70) == ["paused"]


async def test_a_row_that_stays_the_same_enters_few_functions(start: Start) -> None:
    account = await whole(start, *(row(name_of(n), "running") for n in range(50)))
    await account.run_for(30)
    entered_count, before_count = 0, account.metrics.total("watcher_polls_total", outcome="ok")

    def note(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal entered_count
        entered_count += event == "call" and "/watcher/polling/" in frame.f_code.co_filename

    sys.setprofile(note)
    try:
        await account.run_for(30)
    finally:
        sys.setprofile(None)
    row_count = account.metrics.total("watcher_polls_total", outcome="ok") - before_count
    assert row_count >= 250
    assert entered_count <= 20 * row_count, f"{entered_count / row_count:.1f} of a row"
