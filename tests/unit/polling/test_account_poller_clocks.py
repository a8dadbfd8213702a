"""The API's clock may be off, and ours when the process begins: whatever they show, the same is told."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from list_model import HOUR_S, Life, Lists, ModelApi, Order, by_id, emitted, lives, newest, oldest
from parameters import each_value
from virtual import RULES, WHOLE, Account, FakeClock, Start, watch_of

from watcher.domain.watch import Watch
from watcher.rules.silent import Silent

DAY_S = 24 * HOUR_S
SECOND_US = 1_000_000
OFF_S = [0.0, -30.0, 30.0, -1200.0, 1200.0]
API_IS_OFF = pytest.mark.parametrize("offset_s", each_value(OFF_S))


def life(number: int, begins_s: float, ends_s: float) -> Life:
    return Life(str(UUID(int=number)), begins_s, ends_s, fails=True)


SILENT = replace(WHOLE, rules=(Silent(300.0),))


async def watching(start: Start, api: ModelApi, watch: Watch = SILENT) -> Account:
    return await start(watches=[watch], rate_per_s=5.0, rules=RULES, api=api)


async def told(account: Account, *, after_s: float | None = None) -> list[tuple[str, int | None]]:
    """Return what was told since the last call: of which execution, by its number."""
    events = await account.events(after_s=after_s)
    return [(event["type"], UUID(event["subject"]).int if "subject" in event else None) for event in events]


@API_IS_OFF
async def test_a_stay_is_overdue_and_an_end_late_as_they_are(start: Start, clock: FakeClock, offset_s: float) -> None:
    api = ModelApi(clock, lives=[life(1, 700.0, 9e9), life(2, 900.0, 9e9), life(3, 990.0, 1040.5)], offset_s=offset_s)
    account = await watching(start, api, replace(WHOLE, overdue_after_s={"running": 200.0}))
    first = await account.events(after_s=30)
    assert [event["type"] for event in first].count("execution.overdue") == 1
    assert {event["data"].get("overdueSeconds", 100) for event in first} == {100.0}
    assert await told(account, after_s=60) == [("execution.failed", 3)]
    assert account.metrics.detection_delay._sum.get() == pytest.approx(0.5, abs=0.5)
    assert await told(account, after_s=20) == [("execution.overdue", 2)]


@API_IS_OFF
async def test_a_pipeline_is_silent_until_something_starts(start: Start, clock: FakeClock, offset_s: float) -> None:
    api = ModelApi(clock, lives=[life(1, 900.0, 905.0), life(2, 1250.0, 9e9)], offset_s=offset_s)
    account = await watching(start, api)
    assert await told(account, after_s=198) == []
    assert await told(account, after_s=6) == [("pipeline.silent", None)]
    assert await told(account, after_s=50) == [("execution.running", 2), ("pipeline.active", None)]


@pytest.mark.parametrize("forward_s", [400.0, HOUR_S])
async def test_none_is_silent_for_the_apis_clock_is_set(start: Start, clock: FakeClock, forward_s: float) -> None:
    api = ModelApi(clock, lives=[life(1, 900.0, 905.0), life(2, 1120.0, 1121.0)])
    api.clock_set = lambda at: forward_s if at > 1130 else 0.0
    account = await watching(start, api)
    assert await told(account, after_s=200) == [("execution.running", 2), ("execution.failed", 2)]
    await account.watcher.cancel()
    account = await watching(start, api)
    assert await told(account, after_s=215) == []
    assert await told(account, after_s=10) == [("pipeline.silent", None)]


@pytest.mark.ci
@pytest.mark.parametrize(
    ("offset_s", "ours_s", "order", "is_complete"),
    each_value(OFF_S, [0.0, HOUR_S, -HOUR_S], [newest, oldest, by_id], [True, False]),
)
async def test_no_history_is_told_and_all_that_ended_since_the_start_though_ours_was_set_right_while_off(
    lists: Lists, offset_s: float, ours_s: float, order: Order, *, is_complete: bool
) -> None:
    going = [life(number, 900.0 + number, 1003.0 + 10 * number) for number in range(8)]
    old, since = lives(300, from_s=-HOUR_S, until_s=998.0), lives(60, from_s=1030.0, until_s=1200.0)
    api = lists.api(old + going + since, order=order, offset_s=offset_s)
    lists.clock.off_s = ours_s
    account = await lists.watch(api, rate_per_s=5.0 if is_complete else 1.0)
    await account.run_for(25 if is_complete else 4)
    (listing,) = account.watcher._list_poller._lists.values()
    assert bool(listing.cursor.complete_at) is is_complete
    await account.watcher.cancel()
    lists.clock.off_s = 0.0
    lists.clock.advance(40)
    account = await lists.watch(api)
    result = await emitted(account, after_s=180)
    assert (result.missing(going + since), result.gaps, result.other) == (0, [], [])
    assert set(result.ended.values()) == {1}
    # Had the API's clock been set back instead, it would look the same: rather is history told than an end lost.
    is_told = not is_complete and ours_s < 0
    assert len(result.ended) > 68 if is_told else len(result.ended) == 68


@API_IS_OFF
async def test_beyond_lookback_is_what_ended_before_it_and_a_gap_says_so(lists: Lists, offset_s: float) -> None:
    old, since = lives(60, from_s=0.0, until_s=900.0), lives(400, from_s=1030.0, until_s=1030.0 + 1.5 * DAY_S)
    api = lists.api(old + since, offset_s=offset_s)
    rules = {"lookback_us": int(DAY_S * SECOND_US), "history_us": int(30 * DAY_S * SECOND_US)}
    account = await lists.watch(api, **rules)
    await account.run_for(25)
    lists.clock.advance(1.5 * DAY_S)
    account = await lists.watch(api, **rules)
    result = await emitted(account, after_s=60)
    covered = [each for each in since if each.ends_s > lists.clock.monotonic() - DAY_S]
    assert (result.missing(covered), result.gaps) == (0, ["lookback"])
    assert len(covered) <= len(result.ended) <= len(covered) + 1


@pytest.mark.ci
@pytest.mark.parametrize(("step_s", "late_by_s"), [(-1200.0, 0.0), (1200.0, 0.0), (0.0, 30.0), (-1200.0, 30.0)])
async def test_rows_that_a_list_shows_late_are_told_whatever_its_dates_say(
    lists: Lists, step_s: float, late_by_s: float
) -> None:
    old = lives(300, from_s=1000.0 - HOUR_S, until_s=990.0)
    burst = [life(number, 1060.0 + number / 1000, 1065.0) for number in range(1, 71)]
    late = {each.id for each in burst[:3]}
    api = lists.api(old + burst, states_total=False)
    api.clock_set = lambda at: step_s if at > 1030.0 else 0.0
    api.hides = lambda row: row.id in late and lists.clock.monotonic() < 1068.0
    dated_by = timedelta(seconds=late_by_s)  # so far are the dates of rows behind the `Date` of the answers
    api.amend = lambda row: replace(
        row,
        started_at=row.started_at and row.started_at - dated_by,
        finished_at=row.finished_at and row.finished_at - dated_by,
    )
    account = await lists.watch(api)
    result = await emitted(account, after_s=120)
    assert (result.missing(burst), result.missing(old), result.gaps) == (0, len(old), [])


OVERDUE_AFTER_S = {"new": HOUR_S, "running": HOUR_S}


@pytest.mark.ci
@pytest.mark.parametrize(
    ("watch", "status"),
    [(WHOLE, "running"), (watch_of(str(UUID(int=1))), "running"), (watch_of(str(UUID(int=1))), "new")],
)
async def test_nothing_is_overdue_for_our_clock_set(start: Start, clock: FakeClock, watch: Watch, status: str) -> None:
    watch = replace(watch, overdue_after_s=OVERDUE_AFTER_S)
    api = ModelApi(clock, lives=[life(1, 900.0, 9e9)], dates="none" if status == "new" else "true")
    api.amend = lambda row: replace(row, status=status)
    account = await watching(start, api, watch)
    assert await told(account, after_s=40) == [(f"execution.{status}", 1)]
    for step in (1, 2):  # what was moved is recorded, so the next start moves it by its own step alone
        await account.watcher.flush()
        await account.watcher.cancel()
        clock.off_s = step * 2 * HOUR_S
        account = await watching(start, api, watch)
        assert await told(account, after_s=40) == []
    begun_s = 1000.0 if status == "new" else 900.0
    assert await told(account, after_s=begun_s + HOUR_S - clock.monotonic() - 30) == []
    assert await told(account, after_s=90) == [("execution.overdue", 1)]


async def test_a_problem_stays_open_though_the_apis_clock_was_set_back(start: Start, clock: FakeClock) -> None:
    watch = replace(SILENT, overdue_after_s={"running": 300.0})
    api = ModelApi(clock, lives=[life(1, 900.0, 9e9)])
    account = await watching(start, api, watch)
    assert ("execution.overdue", 1) in await told(account, after_s=400)
    await account.watcher.flush()
    await account.watcher.cancel()
    api.offset_s = -2 * HOUR_S
    account = await watching(start, api, watch)
    assert await told(account, after_s=100) == []
