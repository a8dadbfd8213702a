"""Lists as no documentation forbids them, in virtual time: each end is reported, or a gap is; no history is."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from list_model import (
    HOUR_S,
    Emitted,
    Fault,
    Life,
    Lists,
    Order,
    assert_all,
    by_id,
    emitted,
    last_ended,
    lives,
    newest,
    oldest,
)
from parameters import each_value, seeds
from stores import HeardStore, held
from virtual import EPOCH

from watcher.domain.errors import StoreError
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.timestamps import Micros
from watcher.store.changes import SourceChange
from watcher.store.recording import Item
from watcher.store.sql_store import SqlStore

ORDERS = [newest, oldest, by_id]
ANY_ORDER = pytest.mark.parametrize("order", each_value(ORDERS))


def created(life: Life) -> float:
    """Return when it was created: up to 20 s before it begins."""
    return life.begins_s - 20 * Random(life.id).random()


def tied(life: Life, draw: Random = Random(1)) -> tuple[float, float]:  # noqa: B008 (one for all)
    """Let those of one date change places with every answer."""
    return life.begins_s // 7, draw.random()


def turning(*orders: Order, every_s: float = 17.3) -> dict[str, Any]:
    """Return a list that changes its order so often since the second minute."""
    return {"orders": [(0.0, orders[0]), *((1070 + every_s * nth, order) for nth, order in enumerate(orders))]}


SHAPES: list[dict[str, Any]] = [
    turning(*[newest, oldest] * 5),
    {"order": lambda life: -created(life)},
    {"order": created},
    {"order": tied},
    turning(oldest, newest),
    turning(newest, by_id),
    turning(by_id, oldest),
    {"order": by_id},
    {"order": by_id, "dates": "none"},
    {"order": by_id, "dates": "equal", "states_total": False},
    {"order": oldest, "offset_s": -1200.0},
    {"order": newest, "offset_s": 2 * 86_400.0, "states_total": False},
    {"order": by_id, "offset_s": -2 * 86_400.0},
]


@pytest.mark.parametrize("how", each_value(SHAPES))
async def test_all_that_ended_since_is_reported_whatever_the_list_is_like(lists: Lists, how: dict[str, Any]) -> None:
    old, since = lives(130, from_s=-HOUR_S, until_s=900.0), lives(80, from_s=1030.0, until_s=1130.0)
    assert_all(await lists.watched(lists.api(old + since, **how), for_s=190), since)


@pytest.mark.ci
@ANY_ORDER
async def test_a_scan_is_killed_on_page_5_of_30(lists: Lists, order: Order) -> None:
    old, since = lives(300, from_s=-HOUR_S, until_s=900.0), lives(1200, from_s=1030.0, until_s=9000.0)
    api = lists.api(old + since, order=order)
    account = await lists.watch(api)
    await account.run_for(25)
    lists.clock.advance(8200)
    for _ in range(3):
        account = await lists.watch(api, rate_per_s=1.0)
        await account.run_for(5)  # five pages, then it is gone
    assert_all(await lists.watched(api, for_s=150), since)


@pytest.mark.ci
@pytest.mark.parametrize(("order", "old_count"), each_value([newest, oldest], [5, 0, 130]))
async def test_a_total_of_the_rows_of_its_page_alone_is_none(lists: Lists, order: Order, old_count: int) -> None:
    old, since = lives(old_count, from_s=0.0, until_s=990.0), lives(120, from_s=1020.0, until_s=1140.0)
    api = lists.api(old + since, order=order, page_rows=20, counts_page=True)
    api.last_page = lambda count: max(1, -(-count // 20))
    account = await lists.watch(api)
    for _ in range(3):
        await account.run_for(40)
        await account.watcher.cancel()
        account = await lists.watch(api)
    assert_all(await emitted(account, after_s=120), since)


@pytest.mark.parametrize(("order", "old_count"), each_value([newest, oldest], [1, 0, 40]))
async def test_whether_a_total_counts_all_rows_costs_one_request(lists: Lists, order: Order, old_count: int) -> None:
    api = lists.api(lives(old_count, from_s=0.0, until_s=990.0), order=order)
    await lists.watched(api, for_s=60)
    assert [what for _, what in api.asked].count("page 2") == (old_count > 0)
    assert len(api.asked) == pytest.approx(60, abs=3)


@pytest.mark.ci
@pytest.mark.parametrize("states_total", each_value([True, False]))
async def test_a_list_without_an_order_that_is_too_long_is_a_gap_once(lists: Lists, *, states_total: bool) -> None:
    old = lives(400, from_s=-HOUR_S, until_s=900.0)
    api = lists.api(old, order=by_id, states_total=states_total)
    account = await lists.watch(api, pages_at_most=10)
    assert (await emitted(account, after_s=30)).gaps == []
    api.lives = old + lives(200, from_s=1030.0, until_s=1031.0)
    assert (await emitted(account, after_s=60)).gaps == ["unordered"]
    api.lives = old
    await account.run_for(20)
    api.lives = old + lives(200, from_s=1120.0, until_s=1121.0)
    assert (await emitted(account, after_s=60)).gaps == ["unordered"]


@pytest.mark.ci
@pytest.mark.parametrize(("kind", "page_rows"), each_value([(newest, 5.0), (oldest, 5.0), (last_ended, 0.0)], [10, 50]))
async def test_a_list_that_is_nearly_ordered_is_cheap_and_complete(
    lists: Lists, kind: tuple[Order, float], page_rows: int
) -> None:
    order, jitter_s = kind
    old = lives(400, from_s=600.0, until_s=990.0, length_s=3.0)
    since = lives(60, from_s=1030.0, until_s=1090.0, length_s=7.0)
    api = lists.api(old + since, order=order, jitter_s=jitter_s, page_rows=page_rows)
    account = await lists.watch(api)
    await account.run_for(30)
    before = len(api.asked)
    assert_all(await emitted(account, after_s=100), since)
    pages = sum(what.startswith("page") for _, what in api.asked[before:])
    assert pages <= 3 * 100, pages


def now_and_then(_count: int, _page: int, draw: Random) -> bool:
    return draw.random() < 1 / 3


def every_second(count: int, _page: int, _draw: Random) -> bool:
    return count % 2 == 1


def first_page(_count: int, page: int, draw: Random) -> bool:
    return page == 1 and draw.random() < 1 / 3


@pytest.mark.parametrize(
    ("fault", "is_wrong", "order", "dates", "states_total"),
    each_value(
        [Fault.EMPTY, Fault.CUT, Fault.STALE],
        [now_and_then, first_page, every_second, first_page],
        ORDERS,
        ["true", "none"],
        [True, True, False],
    ),
)
async def test_an_answer_that_is_wrong_now_and_then_is_no_gap_and_hides_nothing(
    lists: Lists,
    fault: Fault,
    is_wrong: Callable[[int, int, Random], bool],
    order: Order,
    dates: str,
    *,
    states_total: bool,
) -> None:
    draw = Random(1)
    old, since = lives(300, from_s=-HOUR_S, until_s=900.0), lives(40, from_s=1030.0, until_s=1090.0)
    api = lists.api(old + since, order=order, dates=dates, states_total=states_total)
    api.fault = lambda count, page: fault if is_wrong(count, page, draw) else Fault.NONE
    assert_all(await lists.watched(api, for_s=140), since)


@pytest.mark.parametrize(
    ("repeated", "for_s", "comes_until_s", "restarts"),
    each_value([2, 3], [12.0, 34.0, 45.0, 60.0], [1030.0, 1055.0, 1075.0], [True, False]),
)
async def test_a_page_that_repeats_the_one_before_for_a_while_hides_no_end(
    lists: Lists, repeated: int, for_s: float, comes_until_s: float, *, restarts: bool
) -> None:
    old, burst = lives(120, from_s=-86_400.0, until_s=0.0), lives(180, from_s=1029.8, until_s=1030.0, length_s=0.01)
    since = burst + lives(round(comes_until_s - 1030) - 5, from_s=1055.0, until_s=comes_until_s)
    since = burst if comes_until_s == 1030.0 else since
    api = lists.api(old + since)
    account = await lists.watch(api, rate_per_s=10.0)
    await account.run_for(29.5)
    api.fault = lambda _, page: (
        Fault.REPEATED if page == repeated and lists.clock.monotonic() < 1030 + for_s else Fault.NONE
    )
    if restarts:
        await account.watcher.cancel()
        lists.clock.advance(3)
        account = await lists.watch(api, rate_per_s=10.0)
    assert_all(await emitted(account, after_s=180), since)


# Ends of which the API's clock does not say whether they are new


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


def planned(row: ExecutionSnapshot) -> ExecutionSnapshot:
    return replace(row, status="new", started_at=EPOCH + timedelta(days=1), finished_at=None)


def ends_in_another_age(row: ExecutionSnapshot) -> ExecutionSnapshot:
    return replace(row, finished_at=EPOCH + timedelta(days=30_000))


@pytest.mark.parametrize(
    ("order", "offset_s", "has_odd_dates"), each_value(ORDERS, [-30 * HOUR_S, 30 * HOUR_S], [True, False])
)
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


@pytest.mark.ci
@pytest.mark.parametrize(
    ("order", "odd", "count", "states_total"),
    each_value(ORDERS, [planned, ends_in_another_age], [120, 4], [False, True]),
)
async def test_one_date_in_the_future_hides_no_end(
    lists: Lists, odd: Callable[[ExecutionSnapshot], ExecutionSnapshot], order: Order, count: int, *, states_total: bool
) -> None:
    old, since = lives(count, from_s=-HOUR_S, until_s=900.0), lives(60, from_s=1003.0, until_s=1100.0)
    api = lists.api(old + since, order=order, states_total=states_total)
    api.amend = lambda row: odd(row) if row.id == old[-1].id else row
    assert_all(await lists.watched(api, for_s=150), since)


async def test_what_has_not_begun_on_the_last_page_says_nothing_of_the_history_before(lists: Lists) -> None:
    old, going = lives(100, from_s=-HOUR_S, until_s=-60.0), Life(str(UUID(int=1)), 990.0, 1e9, fails=True)
    api = lists.api([*old, going], order=oldest, offset_s=2 * 86_400.0)
    api.amend = lambda row: replace(row, status="new") if row.id == going.id else row
    account = await lists.watch(api)
    assert (await emitted(account, after_s=60)).ended == {}


# Executions that start late, or never do


def queued(count: int, *, from_s: float, until_s: float, seed: int) -> list[Life]:
    """Return executions that begin at random and take a moment or some seconds."""
    draw = Random(f"{seed}/{from_s}")
    begins = sorted(draw.uniform(from_s, until_s) for _ in range(count))
    return [
        Life(str(UUID(int=draw.getrandbits(128))), at, at + draw.uniform(0.2, 10), fails=draw.random() < 0.3)
        for at in begins
    ]


def has_no_start(life: Life, now_s: float) -> bool:
    """Let one in ten fail before it starts, and the others wait for a moment."""
    return int(life.id[:2], 16) < 26 or now_s < life.begins_s + min(0.6, (life.ends_s - life.begins_s) / 3)


@pytest.mark.ci
@pytest.mark.parametrize("seed", seeds(ci=0, soak=8))
@pytest.mark.parametrize(("last", "sign"), [(True, -1), (False, 1)])
async def test_what_never_started_is_reported_wherever_it_is(lists: Lists, last: bool, sign: int, seed: int) -> None:
    old = queued(300, from_s=-HOUR_S, until_s=950.0, seed=seed)
    since = queued(80, from_s=1017.0, until_s=1070.0, seed=seed)
    life_of = {life.id: life for life in old + since}

    def has_none(life: Life) -> bool:
        return has_no_start(life, lists.clock.monotonic())

    api = lists.api(old + since, order=lambda life: (has_none(life) is last, sign * life.begins_s))
    api.amend = lambda row: replace(row, started_at=None) if has_none(life_of[row.id]) else row
    result = await lists.watched(api, for_s=240)
    assert result.missing(old) == len(old)
    assert result.missing(since) == 0 or result.gaps
    assert set(result.ended.values()) == {1}


@pytest.mark.parametrize(("count", "seed"), each_value([301, 351], [1, 0]))
async def test_where_the_earlier_started_later_no_history_is_reported(lists: Lists, count: int, seed: int) -> None:
    draw = Random(seed)
    old = lives(count, from_s=700.0 - 5.0 * count, until_s=700.0)
    old = [replace(life, begins_s=life.begins_s + draw.uniform(0, 290)) for life in old]
    old = [replace(life, ends_s=life.begins_s + draw.uniform(0.2, 4)) for life in old]
    since = queued(20, from_s=1030.0, until_s=1100.0, seed=seed)
    rank = {life.id: number for number, life in enumerate(old + since)}
    assert_all(await lists.watched(lists.api(old + since, order=lambda life: rank[life.id]), for_s=130), since)


# A store that fails meanwhile


@pytest.mark.parametrize(("order", "size"), each_value([newest, oldest, by_id], [(50, 0.0), (130, 0.5)]))
async def test_a_store_that_is_locked_in_the_first_scan_makes_no_history_reported(
    lists: Lists, path: Path, order: Order, size: tuple[int, float]
) -> None:
    count, after_s = size
    old, since = lives(count, from_s=-HOUR_S, until_s=-60.0), lives(5, from_s=1030.0, until_s=1060.0)
    api = lists.api(old + since, order=order)
    account = await lists.watch(api, rate_per_s=2.0)
    await account.run_for(after_s)
    with held(path):
        await account.run_for(8)
    assert_all(await emitted(account, after_s=100), since)
    assert account.watcher._registry.found_count == 0


class Refusing(HeardStore):
    """The store, but for the first two writes of one kind, which fail."""

    def __init__(self, store: SqlStore, *, kind: Callable[[SourceChange], object]) -> None:
        super().__init__(store)
        self.failures = 2
        self._kind = kind

    async def hear(self, item: Item) -> None:
        if isinstance(item, SourceChange) and item.cursor is not None and self._kind(item) and self.failures:
            self.failures -= 1
            raise StoreError("locked")


@pytest.mark.parametrize(
    "reason", each_value(["forbidden deeper", "forbidden", "deleted", "unordered", "outrun", "lookback"])
)
async def test_a_gap_that_the_store_could_not_take_is_reported_once_it_can(lists: Lists, reason: str) -> None:
    going, old = Life(str(UUID(int=1)), 500.0, 1e9, fails=False), lives(300, from_s=0.0, until_s=990.0)
    api = lists.api([*old, going])
    account = await lists.watch(api)
    await account.run_for(30)
    refusing: Any = Refusing(lists.store, kind=lambda change: change.entries)
    pages_at_most = 50
    match reason:
        case "forbidden":
            api.refused = lambda _page: True
        case "forbidden deeper":
            api.lives += lives(120, from_s=1030.0, until_s=1031.0)
            api.refused = lambda page: page > 1
        case "deleted":
            api.lives = lives(400, from_s=1030.0, until_s=1031.0)
        case "unordered":
            api.orders, pages_at_most = ((0.0, by_id),), 5
        case "outrun":
            api.lives += lives(6000, from_s=1030.0, until_s=1090.0)
            api.page_rows = 10
            pages_at_most = 5
        case _:
            api.lives += lives(300, from_s=1030.0, until_s=1030.0 + 20 * 86_400)
            lists.clock.advance(20 * 86_400)
    account = await replace(lists, store=refusing).watch(api, pages_at_most=pages_at_most)
    await account.run_for(150)
    assert refusing.failures == 0
    gaps = (await emitted(account)).gaps
    if reason == "outrun":  # what such a scan left out further down is missed by the next one, too
        assert gaps[0] == reason
        assert set(gaps) <= {reason, "unordered"}
    else:
        assert gaps == [reason.split(maxsplit=1)[0]]


async def test_what_version_1_0_0_recorded_is_turned_into_our_clock_once_the_store_can(lists: Lists) -> None:
    api = lists.api(lives(130, from_s=-HOUR_S, until_s=900.0), offset_s=-1200.0)
    account = await lists.watch(api)
    await account.run_for(30)
    (listing,) = account.watcher._list_poller._lists.values()
    ours, ahead_us = listing.cursor, round(api.offset_s * 1e6)
    theirs = replace(ours, since_at=Micros(ours.since_at + ahead_us), complete_at=Micros(ours.complete_at + ahead_us))
    await account.watcher._list_poller.record(listing, replace(theirs, ahead_us=None, dated=True))
    await account.watcher.cancel()
    refusing: Any = Refusing(lists.store, kind=lambda change: change.cursor is not None and not change.cursor.dated)
    missed = Life(str(UUID(int=1)), lists.clock.elapsed_s + 1, lists.clock.elapsed_s + 2, fails=True)
    api.lives.append(missed)
    lists.clock.advance(10)
    account = await replace(lists, store=refusing).watch(api)
    await account.run_for(30)
    (listing,) = account.watcher._list_poller._lists.values()
    assert (refusing.failures, listing.cursor.dated, listing.cursor.since_at) == (0, False, ours.since_at)
    assert listing.cursor.complete_at > ours.complete_at
    assert await emitted(account) == Emitted({missed.id: 1}, [], [])


@pytest.mark.parametrize("seed", seeds(ci=2, soak=int(os.environ.get("LIST_SEEDS", "60"))))
async def test_whatever_a_list_is_like_all_is_reported_and_no_history_within_the_budget(
    lists: Lists, path: Path, seed: int
) -> None:
    draw = Random(seed)
    orders = draw.sample([newest, oldest, by_id], 2)
    api = lists.api(
        [],
        orders=((0.0, orders[0]), (draw.uniform(1040, 1090), draw.choice(orders))),
        page_rows=draw.choice([10, 50]),
        offset_s=draw.choice([-172_800.0, -1200.0, 0.0, 1200.0, 172_800.0]),
        jitter_s=draw.choice([0.0, 2.0]),
    )
    empty = draw.choice([0.0, 0.0, 0.1])
    api.fault = lambda *_: Fault.EMPTY if draw.random() < empty else Fault.NONE
    api.states_total = draw.random() < 0.5
    old = lives(draw.choice([0, 5, 60, 300]), from_s=-HOUR_S, until_s=900.0)
    since = lives(60, from_s=1030.0, until_s=1110.0, length_s=draw.choice([0.3, 5.0]), fails=draw.random() < 0.5)
    api.lives = old + since
    account = await lists.watch(api)
    await account.run_for(20)
    # The first scan of a list without an order takes long: then ends dated between two steps would count as history.
    locks, step_count = draw.random() < 0.5, draw.choice([0, 1, 1 if orders[0] is by_id else 3])
    steps = [(draw.uniform(1020, 1120), draw.choice([-1200.0, -30.0, 30.0, 1200.0])) for _ in range(step_count)]
    api.clock_set = lambda now: max(((at, by) for at, by in steps if at <= now), default=(0.0, 0.0))[1]
    while lists.clock.monotonic() < 1130:
        await account.run_for(draw.uniform(1, 15))
        with held(path) if locks else nullcontext():
            await account.run_for(draw.uniform(0, 4))
        if draw.random() < 0.2:  # a kill
            await account.watcher.cancel()
            account = await lists.watch(api)
    result = await emitted(account, after_s=60)
    assert (result.missing(since), len(result.ended), result.other, account.fatal) == (0, 60, [], [])
    assert result.gaps == []
    assert set(result.ended.values()) == {1}
    assert len(api.asked) <= 5 * (lists.clock.monotonic() - 1000) + 1
