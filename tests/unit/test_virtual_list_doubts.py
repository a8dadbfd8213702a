"""Ends of which the API's clock does not tell whether they are new: each is told, or a gap is; no history is."""

import pytest
from list_model import HOUR_S, Life, ModelApi, Order, by_id, lives, model, newest, oldest, thinned, told
from virtual import FakeClock

from watcher.store.sql import SqlStore

pytestmark = pytest.mark.untraced

ORDERS = [newest, oldest, by_id]


@pytest.mark.parametrize(("order", "offset_s"), thinned(ORDERS, [-1200.0, -8.0]))
async def test_an_end_deep_down_during_the_first_scan_is_told_or_a_gap_is(
    store: SqlStore, clock: FakeClock, order: Order, offset_s: float
) -> None:
    old = lives(600, from_s=-2 * HOUR_S, until_s=-HOUR_S)
    deep = [Life(life.id, life.begins_s, 1002.0 + number, fails=True) for number, life in enumerate(old[150:450:60])]
    old = [life for life in old if life.id not in {each.id for each in deep}]
    since = lives(20, from_s=1030.0, until_s=1100.0)
    api = ModelApi(clock, lives=old + deep + since, orders=((0.0, order),), offset_s=offset_s)
    account = await model(store, clock, api, rate_per_s=1.0)
    await account.run_for(200)
    result = await told(account)
    assert (result.missing(since), result.missing(old)) == (0, len(old))
    assert not result.missing(deep) or result.gaps == ["unordered"]


@pytest.mark.parametrize(("order", "offset_s"), thinned(ORDERS, [0.0, -2.0, -5.0, -12.0, -1200.0]))
async def test_an_end_in_the_first_seconds_is_told_or_a_gap_is(
    store: SqlStore, clock: FakeClock, order: Order, offset_s: float
) -> None:
    old, first = lives(60, from_s=-HOUR_S, until_s=0.0), lives(4, from_s=1002.5, until_s=1010.0)
    since = lives(20, from_s=1030.0, until_s=1100.0)
    api = ModelApi(clock, lives=old + first + since, orders=((0.0, order),), offset_s=offset_s)
    account = await model(store, clock, api)
    await account.run_for(150)
    result = await told(account)
    assert (result.missing(since), result.missing(old)) == (0, len(old))
    assert result.gaps == (["unordered"] if result.missing(first) else [])


@pytest.mark.parametrize(("order", "back_s"), thinned(ORDERS, [20.0, HOUR_S]))
async def test_an_end_after_the_apis_clock_was_set_back_is_told_or_a_gap_is(
    store: SqlStore, clock: FakeClock, order: Order, back_s: float
) -> None:
    old, since = lives(130, from_s=-HOUR_S, until_s=990.0), lives(20, from_s=1022.0, until_s=1100.0)
    api = ModelApi(clock, lives=old + since, orders=((0.0, order),))
    api.clock_set = lambda at: -back_s if at > 1020 else 0.0
    account = await model(store, clock, api)
    await account.run_for(150)
    result = await told(account)
    assert result.missing(old) == len(old)
    assert set(result.gaps) == ({"unordered"} if result.missing(since) else set())


@pytest.mark.parametrize(("order", "page_rows"), thinned(ORDERS, [10, 50]))
async def test_a_first_scan_of_a_busy_list_by_a_right_clock_is_no_gap(
    store: SqlStore, clock: FakeClock, order: Order, page_rows: int
) -> None:
    old, since = lives(200, from_s=700.0, until_s=1000.0), lives(60, from_s=1000.0, until_s=1060.0)
    api = ModelApi(clock, lives=old + since, orders=((0.0, order),), page_rows=page_rows)
    account = await model(store, clock, api)
    await account.run_for(80)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.gaps) == (0, 60, [])


@pytest.mark.parametrize(("order", "offset_s"), thinned(ORDERS, [-30 * HOUR_S, 30 * HOUR_S]))
async def test_an_outage_is_made_up_for_though_the_apis_clock_is_off_by_more_than_lookback(
    store: SqlStore, clock: FakeClock, order: Order, offset_s: float
) -> None:
    day_us = 86_400_000_000
    old, going = (
        lives(130, from_s=-HOUR_S, until_s=900.0),
        lives(3, from_s=-HOUR_S, until_s=-600.0, seed=2, length_s=5e3),
    )
    since = lives(200, from_s=1030.0, until_s=19_000.0)
    api = ModelApi(clock, lives=old + going + since, orders=((0.0, order),), offset_s=offset_s)
    account = await model(store, clock, api, lookback_us=day_us, history_us=2 * day_us)
    await account.run_for(40)
    clock.advance(18_000)
    account = await model(store, clock, api, lookback_us=day_us, history_us=2 * day_us)
    await account.run_for(100)
    result = await told(account)
    assert (result.missing(since), result.missing(going), result.missing(old), result.gaps) == (0, 0, 130, [])
