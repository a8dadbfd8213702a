"""The rule `new_error`, which reports each kind of error once."""

from dataclasses import replace

import pytest
from rules_rig import UNCONFIRMED, again, row, ruled, show, shown, told, watch_of, whole
from stores import upkeep
from virtual import RULES, Account, FakeClock, Start, name_of, pages_of

from watcher.domain.execution import ExecutionSnapshot, FailedNode, Outcome
from watcher.domain.history import DAY_US, error_kind_of
from watcher.domain.timestamps import Micros

NEW_ERROR = ruled(new_error=True)
DAY_S = 24 * 3600.0
MIDNIGHT_S = 14 * 3600.0
"""The next midnight (UTC), in seconds of the clock."""
NEW = "pipeline.new_error"
BLANK_LINE = "no answer\n\nTraceback (most recent call last):\n  line 7"
LONG = f"{'x' * 299} and more"
"""Its first 300 characters end with a space."""


def failed(
    number: int, text: str = "no answer", *, node: str | None = "Greeting", at_s: float | None = None
) -> ExecutionSnapshot:
    """Return a failed execution as a GET shows it; without a node as some lists do."""
    nodes = () if node is None else (FailedNode("n1", node, text),)
    return row(number, at_s=at_s, failed_nodes=nodes, error=text)


async def new_errors(account: Account, *, after_s: float = 5) -> list[str]:
    """Return the executions of the new errors that were reported since the last call."""
    events = await account.events(after_s=after_s)
    return [event["data"]["execution"]["id"] for event in events if event["type"] == NEW]


def by_list(each: ExecutionSnapshot) -> ExecutionSnapshot:
    """Return an execution as a list shows it that names no nodes."""
    return replace(each, failed_nodes=())


def show_late(account: Account, *rows: ExecutionSnapshot, confirmed: int) -> None:
    """Have the list show these, and answer only for one of them alone."""
    show(account, *rows)
    for each in rows:
        if each.id != name_of(confirmed):
            account.api.script[each.id] = Outcome.SERVER_ERROR


async def test_the_first_error_of_a_kind_is_reported_and_the_next_is_not(start: Start) -> None:
    account = await whole(start, NEW_ERROR)
    first = failed(1, "upstream timeout after 30 s")
    show(account, first)
    end, report = await account.events(after_s=5)
    assert (end["type"], report["type"]) == ("execution.failed", NEW)
    data = report["data"]
    kind = error_kind_of("Greeting", "upstream timeout after 30 s")
    assert data["error"] == {"node": "Greeting", "text": kind.text, "fingerprint": kind.fingerprint.hex()}
    assert (data["execution"]["id"], data["execution"]["status"]) == (name_of(1), "failed")
    assert "problem" not in data
    assert await told(account, first, failed(6, "upstream timeout after 31 s"), after_s=5) == ["failed"]
    show(account, first, failed(6), failed(11, "upstream timeout after 31 s", node="Closing"))
    assert await told(account, after_s=5) == ["failed", NEW]


async def test_two_kinds_in_one_page_are_two_events_and_two_errors_of_one_kind_are_one(start: Start) -> None:
    account = await whole(start, NEW_ERROR)
    show(account, failed(1), failed(2, "boom"), failed(3), row(4, "success"))
    assert await new_errors(account) == [name_of(1), name_of(2)]


@pytest.mark.parametrize("text", ["", "  \n "])
async def test_an_error_without_a_text_is_of_no_kind(start: Start, text: str) -> None:
    account = await whole(start, NEW_ERROR)
    assert await told(account, failed(1, text), after_s=5) == ["failed"]


async def test_a_text_without_a_node_is_a_kind_too(start: Start) -> None:
    account = await whole(start, NEW_ERROR)
    show(account, failed(1, node=None))
    _, report = await account.events(after_s=5)
    assert report["data"]["error"] == {
        "text": "no answer",
        "fingerprint": error_kind_of(None, "no answer").fingerprint.hex(),
    }
    show(account, failed(1, node=None), failed(6))  # a node does not make it new
    assert await told(account, after_s=5) == ["failed"]


@pytest.mark.parametrize("text", ["no answer", BLANK_LINE, LONG], ids=["a line", "a blank line", "a long line"])
async def test_a_kind_is_known_by_the_text_alone_of_the_history(start: Start, clock: FakeClock, text: str) -> None:
    account = await start(watches=[watch_of(NEW_ERROR)], rules=RULES)
    old = by_list(failed(0, text, at_s=600.0))
    assert await told(account, old, after_s=5) == []
    show(account, old, failed(6, text, at_s=clock.monotonic()))
    account.api.pages = pages_of(by_list(failed(6, text, at_s=clock.monotonic())), old)
    assert await told(account, after_s=15) == ["failed"]
    assert await told(account, failed(26, "boom", at_s=clock.monotonic()), after_s=15) == ["failed", NEW]


@pytest.mark.parametrize(("days", "is_new"), [(29.0, False), (31.0, True)])
async def test_a_kind_that_comes_back_after_thirty_days_is_new_again(
    start: Start, clock: FakeClock, days: float, *, is_new: bool
) -> None:
    account = await whole(start, NEW_ERROR)
    assert await told(account, failed(1), after_s=5) == ["failed", NEW]
    clock.advance(days * DAY_S)
    await told(account, after_s=60)
    show(account, failed(1), failed(2, at_s=clock.monotonic()))
    assert await told(account, after_s=5) == (["failed", NEW] if is_new else ["failed"])


@pytest.mark.parametrize("is_first", [True, False], ids=["the newer", "the older"])
async def test_of_two_errors_of_a_new_kind_one_is_reported_whichever_is_confirmed_first(
    start: Start, *, is_first: bool
) -> None:
    """The newer end is recorded, but judged only after the older one."""
    account = await whole(start, NEW_ERROR, scan=RULES)
    both = failed(1), failed(2)
    show_late(account, *both, confirmed=2 if is_first else 1)
    await account.run_for(4)
    show(account, *both)
    assert sorted(await told(account, after_s=20)) == ["failed", "failed", NEW]


async def test_ends_that_were_held_over_a_start_are_reported_once_by_kind(start: Start, clock: FakeClock) -> None:
    account = await whole(start, NEW_ERROR)
    running = [row(number, "running", at_s=1000.0) for number in (1, 2, 3)]
    await shown(account, *running)
    account = await again(start, account, NEW_ERROR)
    ends = [failed(1, at_s=1006.0), failed(2, at_s=1007.0), failed(3, "boom", at_s=1008.0)]
    account.api.script = {each.id: each for each in ends}
    account.api.pages = {1: Outcome.SERVER_ERROR}
    await account.run_for(200)
    assert sorted(await told(account)) == ["account.degraded", *["failed"] * 3, *["running"] * 3]
    account = await again(start, account, NEW_ERROR)
    show(account, *ends)
    assert await new_errors(account) == [name_of(1), name_of(3)]
    assert await told(account, *ends, failed(9, at_s=clock.monotonic()), after_s=5) == ["failed"]


async def test_an_earlier_error_of_a_reported_kind_that_was_held_is_not_new(start: Start) -> None:
    account = await whole(start, NEW_ERROR)
    running = row(1, "running", at_s=1000.0)
    show(account, running, failed(2, at_s=1010.0))
    assert sorted(await told(account, after_s=5)) == ["failed", NEW, "running"]
    account = await again(start, account, NEW_ERROR)
    account.api.script = {name_of(1): failed(1, at_s=1005.0)}
    account.api.pages = {1: Outcome.SERVER_ERROR}
    assert "failed" in await told(account, after_s=100)
    show(account, failed(1, at_s=1005.0), failed(2, at_s=1010.0))
    assert NEW not in await told(account, after_s=200)


async def test_a_kind_is_known_for_thirty_days_although_retention_has_deleted_hours(
    start: Start, clock: FakeClock
) -> None:
    account = await whole(start, NEW_ERROR)
    clock.advance(10 * 3600)  # it is evening
    first = row(1, at_s=clock.monotonic(), error="no answer")
    assert await told(account, first, after_s=5) == ["failed", NEW]
    await account.watcher.cancel()
    clock.advance(29 * 86_400 + 5 * 3600)
    maintenance = await upkeep(account.store)
    async for _ in maintenance.prune(ended_before=Micros(clock.steady_us() - 30 * DAY_US), keep=lambda *_: True):
        pass
    account = await start(watches=[watch_of(NEW_ERROR)], rules=UNCONFIRMED)
    assert await told(account, first, row(2, at_s=clock.monotonic(), error="no answer"), after_s=10) == ["failed"]


@pytest.mark.parametrize("ends_s", [(-60.0, 60.0), (-60.0, -30.0), (60.0, 90.0)])
async def test_a_kind_that_failed_on_both_sides_of_midnight_while_the_watcher_was_off_is_new_once(
    start: Start, clock: FakeClock, ends_s: tuple[float, float]
) -> None:
    account = await whole(start, NEW_ERROR)
    await account.watcher.cancel()
    clock.advance(MIDNIGHT_S + 120 - clock.monotonic())
    show(account, *(row(n, at_s=MIDNIGHT_S + at_s, error="upstream timeout") for n, at_s in enumerate(ends_s, 1)))
    account = await again(start, account, NEW_ERROR, api=account.api)
    assert await new_errors(account, after_s=10) == [name_of(1)]
    show(account, *(row(n, at_s=MIDNIGHT_S + 100 + n, error="upstream timeout") for n in (3, 4)))
    assert NEW not in await told(account, after_s=10)
