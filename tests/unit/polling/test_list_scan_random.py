"""Lists as no documentation forbids them, in virtual time: each end is reported, or a gap is; no history is."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
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

from watcher.domain.errors import StoreError
from watcher.domain.timestamps import Micros
from watcher.store.changes import SourceChange
from watcher.store.recording import Item
from watcher.store.sql_store import SqlStore

FLIPS = [(newest, oldest), (oldest, newest)]


@pytest.mark.parametrize(
    ("size", "selector", "states_total"), each_value([(19, 10), (120, 10), (1050, 50)], FLIPS, [True, False])
)
async def test_of_a_list_that_turns_over_all_that_began_since_is_reported(
    lists: Lists, size: tuple[int, int], selector: tuple[Order, Order], *, states_total: bool
) -> None:
    count, page_rows = size
    old = lives(count, from_s=-HOUR_S, until_s=900.0)
    since = lives(80, from_s=1030.0, until_s=1130.0)
    api = lists.api(old + since, orders=((0.0, selector[0]), (1080.0, selector[1])), page_rows=page_rows)
    api.states_total = states_total
    assert_all(await lists.watched(api, for_s=160), since)


@pytest.mark.parametrize(("size", "states_total"), each_value([(130, 50), (60, 10)], [True, False]))
async def test_of_a_list_that_turns_over_again_and_again_all_is_reported(
    lists: Lists, size: tuple[int, int], *, states_total: bool
) -> None:
    count, page_rows = size
    since = lives(80, from_s=1030.0, until_s=1130.0)
    api = lists.api(lives(count, from_s=-HOUR_S, until_s=900.0) + since, page_rows=page_rows)
    api.orders = [(1017.0 * number, (newest, oldest)[number % 2]) for number in range(2)] + [
        (1000 + 17.3 * number, (newest, oldest)[number % 2]) for number in range(20)
    ]
    api.states_total = states_total
    assert_all(await lists.watched(api, for_s=200), since)


@pytest.mark.parametrize(("dates", "states_total"), each_value(["true", "none", "equal"], [True, False]))
async def test_of_a_list_without_an_order_all_is_reported(lists: Lists, dates: str, *, states_total: bool) -> None:
    old, since = lives(400, from_s=-HOUR_S, until_s=900.0), lives(60, from_s=1030.0, until_s=1130.0)
    api = lists.api(old + since, order=by_id, dates=dates, states_total=states_total)
    assert_all(await lists.watched(api, for_s=200), since)


@pytest.mark.ci
@pytest.mark.parametrize("states_total", [True, False])
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


OFFSETS_S = [-2 * 86_400.0, -1200.0, 0.0, 1200.0, 2 * 86_400.0]


@pytest.mark.parametrize(
    ("offset_s", "kind"), each_value(OFFSETS_S, [(newest, 50, HOUR_S), (oldest, 300, 0.0), (by_id, 130, 0.0)])
)
async def test_whatever_the_apis_clock_says_all_that_is_new_is_reported_and_no_history(
    lists: Lists, offset_s: float, kind: tuple[Order, int, float]
) -> None:
    order, count, ended_s = kind
    old = lives(count, from_s=-HOUR_S, until_s=999.0 - ended_s)
    since = lives(30, from_s=1030.0, until_s=1060.0)
    api = lists.api(old + since, order=order, offset_s=offset_s)
    assert_all(await lists.watched(api, for_s=100), since)


@pytest.mark.parametrize("offset_s", OFFSETS_S)
async def test_a_crash_in_the_first_scan_makes_no_difference_to_that(lists: Lists, offset_s: float) -> None:
    old = lives(1000, from_s=-HOUR_S, until_s=999.0)
    since = lives(30, from_s=1006.0, until_s=1036.0)
    api = lists.api(old + since, offset_s=offset_s)
    account = await lists.watch(api, rate_per_s=1.0)
    await account.run_for(5)
    lists.clock.advance(25)
    assert_all(await lists.watched(api, for_s=100, rate_per_s=1.0), since)


Faults = Callable[[Random], Callable[[int, int], bool]]
"""Whether an answer, of those counted from 1, for a page is wrong."""


def every_second(draw: Random) -> Callable[[int, int], bool]:
    first = draw.randrange(2)
    return lambda count, _page: count % 2 == first


def one_in_seven(draw: Random) -> Callable[[int, int], bool]:
    return lambda _count, _page: draw.random() < 1 / 7


def one_in_three(draw: Random) -> Callable[[int, int], bool]:
    return lambda _count, _page: draw.random() < 1 / 3


def first_page_in_three(draw: Random) -> Callable[[int, int], bool]:
    return lambda _count, page: page == 1 and draw.random() < 1 / 3


EMPTY = [(Fault.EMPTY, faults) for faults in (one_in_seven, every_second, one_in_three, first_page_in_three)]
OTHERS = [(fault, faults) for fault in (Fault.CUT, Fault.STALE) for faults in (one_in_three, first_page_in_three)]


@pytest.mark.parametrize(
    ("wrong", "order", "seed", "states_total"),
    each_value(EMPTY + OTHERS, [newest, oldest, by_id], range(2), [True, False]),
)
async def test_an_answer_that_is_wrong_now_and_then_is_no_gap_and_hides_nothing(
    lists: Lists, wrong: tuple[Fault, Faults], order: Order, seed: int, *, states_total: bool
) -> None:
    fault, faults = wrong
    is_wrong = faults(Random(seed))
    old, since = lives(300, from_s=-HOUR_S, until_s=900.0), lives(40, from_s=1030.0, until_s=1090.0)
    api = lists.api(old + since, order=order, states_total=states_total)
    api.fault = lambda count, page: fault if is_wrong(count, page) else Fault.NONE
    assert_all(await lists.watched(api, for_s=140), since)


def of_its_rows(count: int) -> int:
    return -(-count // 50)


def the_first(_count: int) -> int:
    return 1


@pytest.mark.parametrize(("last_page", "gaps"), [(of_its_rows, []), (the_first, ["unordered"])])
async def test_oldest_first_a_list_that_answers_for_pages_beyond_its_last_is_read_or_a_gap(
    lists: Lists, last_page: Callable[[int], int], gaps: list[str]
) -> None:
    old, since = lives(100, from_s=-HOUR_S, until_s=900.0), lives(20, from_s=1020.0, until_s=1040.0)
    api = lists.api(old + since, order=oldest, states_total=False, last_page=last_page)
    result = await lists.watched(api, for_s=90)
    assert (result.missing(old), result.missing(since), result.gaps) == (100, len(gaps) * 20, gaps)


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


@pytest.mark.ci
@pytest.mark.parametrize("order", [newest, oldest])
async def test_what_a_locked_store_could_not_take_is_reported_once_it_can(
    lists: Lists, path: Path, order: Order
) -> None:
    old, since = lives(130, from_s=-HOUR_S, until_s=900.0), lives(60, from_s=1030.0, until_s=1130.0)
    api = lists.api(old + since, order=order)
    account = await lists.watch(api)
    draw = Random(1)
    while lists.clock.monotonic() < 1180:
        await account.run_for(draw.uniform(0.5, 12))
        with held(path):
            await account.run_for(draw.uniform(0.5, 5))
    result = await emitted(account, after_s=30)
    assert (result.missing(since), len(result.ended), result.gaps, account.fatal) == (0, 60, [], [])


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


@pytest.mark.ci
@pytest.mark.parametrize("reason", ["forbidden", "forbidden deeper", "deleted", "unordered", "outrun", "lookback"])
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
    (listing,) = account.watcher._registry.listings.values()
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
    (listing,) = account.watcher._registry.listings.values()
    assert (refusing.failures, listing.cursor.dated, listing.cursor.since_at) == (0, False, ours.since_at)
    assert listing.cursor.complete_at > ours.complete_at
    assert await emitted(account) == Emitted({missed.id: 1}, [], [])


@pytest.mark.parametrize("seed", seeds(ci=3, soak=int(os.environ.get("LIST_SEEDS", "60"))))
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


async def test_a_list_that_shows_its_only_page_for_all_is_no_gap_where_its_total_counts_what_it_shows_late(
    lists: Lists,
) -> None:
    old, since = lives(5, from_s=-HOUR_S, until_s=900.0), lives(12, from_s=1010.0, until_s=1130.0)
    begins_s = {each.id: each.begins_s for each in since}
    api = lists.api(old + since, page_rows=20, last_page=lambda _: 1)
    api.hides = lambda row: row.id in begins_s and lists.clock.monotonic() < begins_s[row.id] + 4
    result = await lists.watched(api, for_s=130)
    assert (result.missing(since[:-1]), result.gaps) == (0, [])


async def test_a_list_that_shows_its_first_page_for_all_is_a_gap_once(lists: Lists) -> None:
    api = lists.api(lives(60, from_s=-HOUR_S, until_s=900.0), page_rows=20, last_page=lambda _: 1)
    assert (await lists.watched(api, for_s=200)).gaps == ["unordered"]
