"""The cases that a list may be: in each every end since the watch began is reported once, no history is, and no gap."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from list_model import HOUR_S, Fault, Life, Lists, Order, assert_all, by_id, emitted, lives, newest, oldest
from parameters import each_value

DAY_S = 24 * HOUR_S
DAY_US = 86_400_000_000
ORDERED = pytest.mark.parametrize("order", each_value([newest, oldest]))
ANY_ORDER = pytest.mark.parametrize("order", each_value([newest, oldest, by_id]))


def created(order: Order) -> Callable[[Life], float]:
    """Return an order by creation: each execution begins up to 20 s after it was created."""
    sign = 1 if order is oldest else -1
    return lambda life: sign * (life.begins_s - 20 * Random(life.id).random())


@pytest.mark.ci
@ORDERED
async def test_a_list_in_the_order_of_creation_which_is_not_that_of_the_starts(lists: Lists, order: Order) -> None:
    old, since = lives(400, from_s=-HOUR_S, until_s=990.0), lives(120, from_s=1020.0, until_s=1140.0)
    assert_all(await lists.watched(lists.api(old + since, order=created(order)), for_s=200), since)


@ORDERED
async def test_executions_of_one_date_change_places_with_every_answer(lists: Lists, order: Order) -> None:
    begins = [(number // 7) * 7.0 for number in range(60)]
    old = lives(300, from_s=-HOUR_S, until_s=900.0)
    since = [
        Life(life.id, 1030.0 + at, 1031.0 + at, fails=True)
        for life, at in zip(lives(60, from_s=0.0, until_s=1.0, seed=3), begins, strict=True)
    ]
    draw = Random(1)
    api = lists.api(old + since, orders=((0.0, lambda life: (order(life), draw.random())),))
    assert_all(await lists.watched(api, for_s=160), since)


@pytest.mark.ci
@ANY_ORDER
async def test_old_executions_are_deleted_while_others_come(lists: Lists, order: Order) -> None:
    old, since = lives(400, from_s=-HOUR_S, until_s=900.0), lives(100, from_s=1030.0, until_s=1130.0)
    api = lists.api(old + since, order=order)
    account = await lists.watch(api)
    while lists.clock.monotonic() < 1150:
        await account.run_for(0.7)
        api.lives = api.lives[2:] if len(api.lives) > 150 else api.lives
    assert_all(await emitted(account, after_s=30), since)


@pytest.mark.ci
@ANY_ORDER
async def test_so_many_come_while_a_scan_reads_that_pages_shift_with_every_answer(lists: Lists, order: Order) -> None:
    old, since = lives(400, from_s=-HOUR_S, until_s=900.0), lives(600, from_s=1010.0, until_s=1070.0)
    api = lists.api(old + since, order=order, page_rows=25)
    assert_all(await lists.watched(api, for_s=200), since)


@pytest.mark.ci
@ORDERED
@pytest.mark.parametrize("states_total", each_value([True, False]))
async def test_a_scan_is_killed_on_page_5_of_40(lists: Lists, order: Order, *, states_total: bool) -> None:
    old, since = lives(300, from_s=-HOUR_S, until_s=900.0), lives(2000, from_s=1030.0, until_s=9000.0)
    api = lists.api(old + since, order=order, states_total=states_total)
    account = await lists.watch(api)
    await account.run_for(25)
    lists.clock.advance(8200)
    for _ in range(3):
        account = await lists.watch(api, rate_per_s=1.0)
        await account.run_for(5)  # five pages, then it is gone
    assert_all(await lists.watched(api, for_s=150), since)


@pytest.mark.ci
@ANY_ORDER
async def test_total_never_says_more_than_100(lists: Lists, order: Order) -> None:
    old, since = lives(380, from_s=-HOUR_S, until_s=900.0), lives(100, from_s=1030.0, until_s=1130.0)
    assert_all(await lists.watched(lists.api(old + since, order=order, total_at_most=100), for_s=180), since)


@pytest.mark.parametrize("old_count", [0, 5, 130])
@ORDERED
async def test_a_total_that_counts_the_rows_of_its_page_alone_is_none(
    lists: Lists, order: Order, old_count: int
) -> None:
    old, since = lives(old_count, from_s=0.0, until_s=990.0), lives(120, from_s=1020.0, until_s=1140.0)
    api = lists.api(old + since, order=order, page_rows=20, counts_page=True)
    api.last_page = lambda count: max(1, -(-count // 20))
    account = await lists.watch(api)
    for _ in range(3):
        await account.run_for(40)
        await account.watcher.cancel()
        account = await lists.watch(api)
    assert_all(await emitted(account, after_s=120), since)


@ORDERED
@pytest.mark.parametrize("old_count", [0, 1, 40])
async def test_whether_a_total_counts_all_rows_costs_one_request(lists: Lists, order: Order, old_count: int) -> None:
    api = lists.api(lives(old_count, from_s=0.0, until_s=990.0), order=order)
    await lists.watched(api, for_s=60)
    assert [what for _, what in api.asked].count("page 2") == (old_count > 0)
    assert len(api.asked) == pytest.approx(60, abs=3)


@pytest.mark.parametrize("orders", each_value([(newest, oldest), (oldest, newest), (newest, by_id), (by_id, oldest)]))
@pytest.mark.parametrize("restarts", each_value([True, False]))
async def test_the_list_is_turned_over_in_mid_life(
    lists: Lists, orders: tuple[Order, Order], *, restarts: bool
) -> None:
    old, since = lives(400, from_s=-HOUR_S, until_s=900.0), lives(100, from_s=1030.0, until_s=1130.0)
    api = lists.api(old + since, orders=((0.0, orders[0]), (1080.0, orders[1])))
    account = await lists.watch(api)
    await account.run_for(75)
    if restarts:
        lists.clock.advance(10)
        account = await lists.watch(api)
    assert_all(await emitted(account, after_s=120), since)


@pytest.mark.ci
@ANY_ORDER
@pytest.mark.parametrize("states_total", each_value([True, False]))
async def test_3000_executions_had_ended_before(lists: Lists, order: Order, *, states_total: bool) -> None:
    old, since = lives(3000, from_s=-30 * HOUR_S, until_s=900.0), lives(60, from_s=1100.0, until_s=1160.0)
    api = lists.api(old + since, order=order, states_total=states_total)
    assert_all(await lists.watched(api, for_s=350), since)


@pytest.mark.ci
@ORDERED
@pytest.mark.parametrize(("days", "gaps"), [(6, []), pytest.param(8, ["lookback"], marks=pytest.mark.ci)])
async def test_after_a_week_off_what_lookback_covers_is_reported_and_a_gap_tells_of_the_rest(
    lists: Lists, order: Order, days: int, gaps: list[str]
) -> None:
    old = lives(300, from_s=-DAY_S, until_s=900.0)
    since = lives(1500, from_s=1030.0, until_s=1030.0 + days * DAY_S)
    api = lists.api(old + since, order=order)
    rules = {"lookback_us": 7 * DAY_US, "history_us": 30 * DAY_US}
    account = await lists.watch(api, **rules)
    await account.run_for(25)
    lists.clock.advance(days * DAY_S)
    result = await lists.watched(api, for_s=150, **rules)
    covered = [life for life in since if life.ends_s > lists.clock.monotonic() - 7 * DAY_S + 300]
    assert (result.missing(covered), result.missing(old), result.gaps) == (0, len(old), gaps)
    assert set(result.ended.values()) == {1}


@ANY_ORDER
@pytest.mark.parametrize("states_total", each_value([True, False]))
@pytest.mark.parametrize("nth", each_value([2, 3, 4]))
async def test_one_empty_answer_ends_no_first_scan_of_a_list_with_short_pages(
    lists: Lists, order: Order, nth: int, *, states_total: bool
) -> None:
    old = lives(45, from_s=-HOUR_S, until_s=900.0)
    going = [replace(each, ends_s=1060.0) for each in old[:10]]
    api = lists.api(going + old[10:], order=order, page_rows=20, states_total=states_total)
    api.fault = lambda count, _page: Fault.EMPTY if count == nth else Fault.NONE
    assert_all(await lists.watched(api, for_s=200), going)
