"""Ends of which the API's clock does not say whether they are new: each is reported, or a gap is; no history is."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from uuid import UUID

import pytest
from list_model import HOUR_S, Fault, Life, Lists, Order, assert_all, by_id, emitted, lives, newest, oldest
from parameters import each_value
from virtual import EPOCH

from watcher.domain.execution import ExecutionSnapshot

ORDERS = [newest, oldest, by_id]


@pytest.mark.parametrize(("order", "offset_s"), each_value(ORDERS, [-1200.0, -8.0, 0.0]))
async def test_an_end_deep_down_during_the_first_scan_is_reported_whatever_the_apis_clock_shows(
    lists: Lists, order: Order, offset_s: float
) -> None:
    old = lives(600, from_s=-2 * HOUR_S, until_s=-HOUR_S)
    deep = [Life(life.id, life.begins_s, 1002.0 + number, fails=True) for number, life in enumerate(old[150:450:60])]
    old = [life for life in old if life.id not in {each.id for each in deep}]
    since = lives(20, from_s=1030.0, until_s=1100.0)
    api = lists.api(old + deep + since, order=order, offset_s=offset_s)
    assert_all(await lists.watched(api, for_s=200, rate_per_s=1.0), since + deep)


@pytest.mark.parametrize(("order", "offset_s"), each_value(ORDERS, [0.0, -2.0, -5.0, -12.0, -1200.0]))
async def test_an_end_in_the_first_seconds_is_reported_or_a_gap_is(lists: Lists, order: Order, offset_s: float) -> None:
    old, first = lives(60, from_s=-HOUR_S, until_s=0.0), lives(4, from_s=1002.5, until_s=1010.0)
    since = lives(20, from_s=1030.0, until_s=1100.0)
    api = lists.api(old + first + since, order=order, offset_s=offset_s)
    result = await lists.watched(api, for_s=150)
    assert (result.missing(since), result.missing(old)) == (0, len(old))
    assert result.gaps == (["unordered"] if result.missing(first) else [])


@pytest.mark.parametrize(("order", "back_s", "states_total"), each_value(ORDERS, [20.0, HOUR_S], [True, False]))
async def test_an_end_after_the_apis_clock_was_set_back_is_reported_or_a_gap_is(
    lists: Lists, order: Order, back_s: float, *, states_total: bool
) -> None:
    old, since = lives(130, from_s=-HOUR_S, until_s=990.0), lives(20, from_s=1022.0, until_s=1100.0)
    api = lists.api(old + since, order=order, states_total=states_total)
    api.clock_set = lambda at: -back_s if at > 1020 else 0.0
    result = await lists.watched(api, for_s=150)
    assert result.missing(old) == len(old)
    assert not states_total or not result.missing(since)
    assert set(result.gaps) == {"unordered"} or not result.missing(since)


@pytest.mark.parametrize(("order", "page_rows"), each_value(ORDERS, [10, 50]))
async def test_a_first_scan_of_a_busy_list_by_a_right_clock_is_no_gap(
    lists: Lists, order: Order, page_rows: int
) -> None:
    old, since = lives(200, from_s=700.0, until_s=1000.0), lives(60, from_s=1000.0, until_s=1060.0)
    api = lists.api(old + since, order=order, page_rows=page_rows)
    assert_all(await lists.watched(api, for_s=80), since)


@pytest.mark.parametrize("has_odd_dates", [False, True])
@pytest.mark.parametrize(("order", "offset_s"), each_value(ORDERS, [-30 * HOUR_S, 30 * HOUR_S]))
async def test_an_outage_is_made_up_for_though_the_apis_clock_is_off_by_more_than_lookback_and_dates_are_in_the_future(
    lists: Lists, order: Order, offset_s: float, *, has_odd_dates: bool
) -> None:
    day_us = 86_400_000_000
    going = lives(3, from_s=-HOUR_S, until_s=-600.0, seed=2, length_s=5e3)
    old, since = lives(130, from_s=-HOUR_S, until_s=900.0), lives(200, from_s=1030.0, until_s=19_000.0)
    api = lists.api(old + going + since, order=order, offset_s=offset_s)
    odd = {old[-1].id, since[-1].id} if has_odd_dates else set()
    api.amend = lambda row: ends_in_another_age(row) if row.id in odd else row
    account = await lists.watch(api, lookback_us=day_us, history_us=2 * day_us)
    await account.run_for(40)
    lists.clock.advance(18_000)
    assert_all(await lists.watched(api, for_s=100, lookback_us=day_us, history_us=2 * day_us), going + since)


def planned(row: ExecutionSnapshot) -> ExecutionSnapshot:
    return replace(row, status="new", started_at=EPOCH + timedelta(days=1), finished_at=None)


def ends_in_an_hour(row: ExecutionSnapshot) -> ExecutionSnapshot:
    return replace(row, finished_at=EPOCH + timedelta(seconds=1000 + HOUR_S))


def ends_in_another_age(row: ExecutionSnapshot) -> ExecutionSnapshot:
    return replace(row, finished_at=EPOCH + timedelta(days=30_000))


@pytest.mark.parametrize(("order", "odd"), each_value(ORDERS, [planned, ends_in_an_hour, ends_in_another_age]))
@pytest.mark.parametrize(("count", "states_total"), [(120, False), (120, True), (4, False)])
async def test_one_date_in_the_future_hides_no_end(
    lists: Lists, odd: Callable[[ExecutionSnapshot], ExecutionSnapshot], order: Order, count: int, *, states_total: bool
) -> None:
    old, since = lives(count, from_s=-HOUR_S, until_s=900.0), lives(60, from_s=1003.0, until_s=1100.0)
    api = lists.api(old + since, order=order, states_total=states_total)
    api.amend = lambda row: odd(row) if row.id == old[-1].id else row
    assert_all(await lists.watched(api, for_s=150), since)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("states_total", [True, False])
async def test_where_the_only_date_is_in_the_future_later_ends_are_reported_or_a_gap_is(
    lists: Lists, order: Order, *, states_total: bool
) -> None:
    old, since = lives(1, from_s=0.0, until_s=900.0), lives(60, from_s=1030.0, until_s=1100.0)
    api = lists.api(old + since, order=order, states_total=states_total)
    api.amend = lambda row: ends_in_another_age(row) if row.id == old[0].id else row
    result = await lists.watched(api, for_s=150)
    assert result.missing(old) == 1
    assert set(result.gaps) == ({"unordered"} if result.missing(since) else set())
    assert not states_total or not result.missing(since)


@pytest.mark.parametrize(("order", "states_total", "back_s"), each_value(ORDERS, [True, False], [0.0, HOUR_S]))
async def test_what_a_list_hid_now_and_then_is_not_reported_as_new_an_hour_later(
    lists: Lists, order: Order, back_s: float, *, states_total: bool
) -> None:
    ended = 990 - HOUR_S
    old, since = lives(200, from_s=ended - 9 * HOUR_S, until_s=ended), lives(20, from_s=1030.0, until_s=1100.0)
    api, draw = lists.api(old + since, order=order), Random(1)
    api.clock_set = lambda at: -back_s if at > 1020 else 0.0
    deep = {life.id for life in old[:150]}
    api.hides = lambda row: row.id in deep and draw.random() < 0.2
    api.states_total = states_total
    result = await lists.watched(api, for_s=150)
    assert result.missing(old) == len(old)
    assert not result.missing(since) or result.gaps


@pytest.mark.parametrize(
    ("order", "count", "offset_s", "begin_s"), each_value(ORDERS, [1, 2], [0.0, -1200.0], [1004.0, 1018.0])
)
async def test_where_one_of_two_dates_is_in_the_future_later_ends_are_reported_or_a_gap_is(
    lists: Lists, order: Order, count: int, offset_s: float, begin_s: float
) -> None:
    old, since = lives(count, from_s=0.0, until_s=900.0), lives(30, from_s=begin_s, until_s=1050.0)
    api = lists.api(old + since, order=order, offset_s=offset_s, states_total=False)
    api.amend = lambda row: ends_in_another_age(row) if row.id == old[-1].id else row
    result = await lists.watched(api, for_s=80)
    assert result.missing(old) == count
    assert result.missing(since) <= sum(life.begins_s < 1016 for life in since)
    assert set(result.gaps) == ({"unordered"} if result.missing(since) else set())


def as_the_api_dates(life: Life) -> float:
    return -life.begins_s + (2 * HOUR_S if life.begins_s > 1020 else 0.0)


@pytest.mark.ci
@pytest.mark.parametrize(("pages_at_most", "gaps"), [(50, []), (25, ["unordered"])])
async def test_what_comes_deep_in_the_list_as_the_apis_clock_was_set_back_is_reported_or_a_gap_is(
    lists: Lists, pages_at_most: int, gaps: list[str]
) -> None:
    old, since = lives(1500, from_s=1000 - HOUR_S, until_s=990.0), lives(40, from_s=1030.0, until_s=1100.0)
    api = lists.api(old + since, order=as_the_api_dates)
    api.clock_set = lambda at: -2 * HOUR_S if at > 1020 else 0.0
    result = await lists.watched(api, for_s=150, rate_per_s=20.0, pages_at_most=pages_at_most)
    assert (result.missing(old), result.missing(since), result.gaps) == (len(old), 40 if gaps else 0, gaps)


@pytest.mark.parametrize("order", ORDERS)
async def test_history_without_dates_is_not_reported_where_answers_lack_half_of_their_rows_now_and_then(
    lists: Lists, order: Order
) -> None:
    old, since = lives(200, from_s=-HOUR_S, until_s=990.0), lives(20, from_s=1040.0, until_s=1100.0)
    api = lists.api(old + since, order=order, dates="none")
    draw = Random(2)
    api.fault = lambda _count, _page: Fault.CUT if draw.random() < 0.3 else Fault.NONE
    assert_all(await lists.watched(api, for_s=150), since)


async def test_what_has_not_begun_on_the_last_page_says_nothing_of_the_history_before(lists: Lists) -> None:
    old, going = lives(100, from_s=-HOUR_S, until_s=-60.0), Life(str(UUID(int=1)), 990.0, 1e9, fails=True)
    api = lists.api([*old, going], order=oldest, offset_s=2 * 86_400.0)
    api.amend = lambda row: replace(row, status="new") if row.id == going.id else row
    account = await lists.watch(api)
    assert (await emitted(account, after_s=60)).ended == {}


@pytest.mark.ci
async def test_history_beyond_lookback_is_not_reported_though_as_many_rows_came_and_went_as_it_has(
    lists: Lists,
) -> None:
    old, since = lives(120, from_s=-5 * 24 * HOUR_S, until_s=900.0), lives(160, from_s=1030.0, until_s=1070.0)
    api = lists.api(old + since, orders=((0.0, newest), (1100.0, oldest)))
    account = await lists.watch(api, lookback_us=86_400_000_000)
    while lists.clock.monotonic() < 1080:
        await account.run_for(2)
        api.lives = [life for life in api.lives if life in old or life.ends_s > lists.clock.monotonic() - 5]
    assert_all(await emitted(account, after_s=60), since)
