"""Lists as no documentation forbids them, in virtual time: everything that ends is told, or a gap is; no history is."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest
from bench.virtual_time import write_without_waiting
from virtual import EPOCH, PIPELINE, RULES, Account, FakeClock, ScriptedApi, account_of

from watcher.errors import StoreError
from watcher.models import Execution, Outcome, Watch
from watcher.ports.api import PAGE_ROWS, PageReply, Reply
from watcher.ports.store import Change, PipelineChange
from watcher.store.sql import SqlStore

pytestmark = pytest.mark.untraced

WHOLE = Watch("default", PIPELINE, (), name="Sales agent")
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Life:
    """One execution: when it begins and ends, in seconds of the clock."""

    id: str
    begins_s: float
    ends_s: float
    fails: bool


Order = Callable[[Life], Any]
"""By what the rows are sorted."""


def newest(life: Life) -> float:
    return -life.begins_s


def oldest(life: Life) -> float:
    return life.begins_s


def by_id(life: Life) -> str:
    return life.id


def last_ended(life: Life) -> float:
    return -life.ends_s


@dataclass
class ModelApi(ScriptedApi):
    """A list of lives, sorted as `orders` say: from so many seconds on by that."""

    lives: list[Life] = field(default_factory=list)
    orders: Sequence[tuple[float, Order]] = ((0.0, newest),)
    page_rows: int = PAGE_ROWS
    offset_s: float = 0.0
    dates: str = "true"
    jitter_s: float = 0.0
    empties: Callable[[int], bool] = lambda _count: False
    refused: Callable[[int], bool] = lambda _page: False
    count: int = 0

    def _row(self, life: Life, now: float) -> Execution:
        ended = life.ends_s <= now
        status = ("failed" if life.fails else "success") if ended else "running"
        if self.dates == "none":
            return Execution(life.id, status)
        begins_s = life.begins_s + self.jitter_s * (int(life.id[:3], 16) / 4096)
        started_s, ended_s = (0.0, 0.0) if self.dates == "equal" else (begins_s, max(begins_s, life.ends_s))
        began, finished = (EPOCH + timedelta(seconds=at + self.offset_s) for at in (started_s, ended_s))
        return Execution(life.id, status, started_at=began, finished_at=finished if ended else None)

    async def get(self, *, pipeline: str, execution: str) -> Reply:  # noqa: ARG002 (there is one)
        sent_at = self.clock.monotonic()
        self.asked.append((sent_at, execution))
        life = next((each for each in self.lives if each.id == execution and each.begins_s <= sent_at), None)
        if life is None:
            return Reply(Outcome.NOT_FOUND, sent_at, None, 404)
        row = replace(self._row(life, sent_at), pipeline_id=PIPELINE, pipeline_name="Sales agent")
        return Reply(Outcome.OK, sent_at, row, 200)

    async def list(self, *, pipeline: str, page: int) -> PageReply:  # noqa: ARG002
        sent_at = self.clock.monotonic()
        self.asked.append((sent_at, f"page {page}"))
        self.count += 1
        if self.refused(page):
            return PageReply(Outcome.FORBIDDEN, sent_at, None, 0, None, 403)
        order = [order for from_s, order in self.orders if from_s <= sent_at][-1]
        shown = [] if self.empties(self.count) else sorted((x for x in self.lives if x.begins_s <= sent_at), key=order)
        rows = tuple(self._row(each, sent_at) for each in shown[(page - 1) * self.page_rows : page * self.page_rows])
        return PageReply(Outcome.OK, sent_at, rows, 0, len(shown) if self.tells_total else None, 200)


def lives(
    count: int, *, from_s: float, until_s: float, seed: int = 1, length_s: float = 0.5, fails: bool = True
) -> list[Life]:
    """Return executions that begin evenly over that time and are as short as that."""
    draw = Random(f"{seed}/{from_s}")
    begins = [from_s + (until_s - from_s) * number / count for number in range(count)]
    return [Life(str(UUID(int=draw.getrandbits(128))), each, each + length_s, fails=fails) for each in begins]


@dataclass
class Told:
    """What came of it."""

    ended: dict[str, int]
    gaps: list[str]
    other: list[str]

    def missing(self, several: Sequence[Life]) -> int:
        return sum(each.id not in self.ended for each in several)


async def model(
    store: SqlStore,
    clock: FakeClock,
    api: ModelApi,
    *,
    rate_per_s: float = 5.0,
    **rules: Any,  # noqa: ANN401
) -> Account:
    if isinstance(store, SqlStore):
        await write_without_waiting(store)
    watched = replace(RULES, **({"pages_at_most": max(50, round(rate_per_s * 150))} | rules))
    return await account_of(store, clock, watches=[WHOLE], rate_per_s=rate_per_s, rules=watched, api=api)


async def told(account: Account) -> Told:
    result = Told({}, [], [])
    for event in await account.events():
        if event["type"] in {"execution.failed", "execution.success"}:
            result.ended[event["subject"]] = result.ended.get(event["subject"], 0) + 1
        elif event["type"] == "pipeline.gap":
            result.gaps.append(event["data"]["reason"])
        elif not event["type"].startswith("execution."):
            result.other.append(event["type"])
    return result


FLIPS = [(newest, oldest), (oldest, newest)]


@pytest.mark.parametrize("turns", FLIPS)
@pytest.mark.parametrize("tells_total", [True, False])
@pytest.mark.parametrize(("count", "page_rows"), [(19, 10), (120, 10), (1050, 50)])
async def test_of_a_list_that_turns_over_all_that_began_since_is_told(
    store: SqlStore, clock: FakeClock, count: int, page_rows: int, turns: tuple[Order, Order], *, tells_total: bool
) -> None:
    old = lives(count, from_s=-HOUR_S, until_s=900.0)
    since = lives(80, from_s=1030.0, until_s=1130.0)
    api = ModelApi(clock, lives=old + since, orders=((0.0, turns[0]), (1080.0, turns[1])), page_rows=page_rows)
    api.tells_total = tells_total
    account = await model(store, clock, api)
    await account.run_for(160)
    result = await told(account)
    assert (result.missing(since), result.missing(old), result.gaps) == (0, len(old), [])
    assert set(result.ended.values()) == {1}


@pytest.mark.parametrize("tells_total", [True, False])
@pytest.mark.parametrize(("count", "page_rows"), [(130, 50), (60, 10)])
async def test_of_a_list_that_turns_over_again_and_again_all_is_told(
    store: SqlStore, clock: FakeClock, count: int, page_rows: int, *, tells_total: bool
) -> None:
    since = lives(80, from_s=1030.0, until_s=1130.0)
    api = ModelApi(clock, lives=lives(count, from_s=-HOUR_S, until_s=900.0) + since, page_rows=page_rows)
    api.orders = [(1017.0 * number, (newest, oldest)[number % 2]) for number in range(2)] + [
        (1000 + 17.3 * number, (newest, oldest)[number % 2]) for number in range(20)
    ]
    api.tells_total = tells_total
    account = await model(store, clock, api)
    await account.run_for(200)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.gaps) == (0, 80, [])


@pytest.mark.parametrize("dates", ["true", "none", "equal"])
@pytest.mark.parametrize("tells_total", [True, False])
async def test_of_a_list_without_an_order_all_is_told(
    store: SqlStore, clock: FakeClock, dates: str, *, tells_total: bool
) -> None:
    old, since = lives(400, from_s=-HOUR_S, until_s=900.0), lives(60, from_s=1030.0, until_s=1130.0)
    api = ModelApi(clock, lives=old + since, orders=((0.0, by_id),), dates=dates)
    api.tells_total = tells_total
    account = await model(store, clock, api)
    await account.run_for(200)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.gaps) == (0, 60, [])


@pytest.mark.parametrize("tells_total", [True, False])
async def test_a_list_without_an_order_that_is_too_long_is_a_gap_once(
    store: SqlStore, clock: FakeClock, *, tells_total: bool
) -> None:
    old = lives(400, from_s=-HOUR_S, until_s=900.0)
    api = ModelApi(clock, lives=old, orders=((0.0, by_id),))
    api.tells_total = tells_total
    account = await model(store, clock, api, pages_at_most=10)
    await account.run_for(30)
    assert (await told(account)).gaps == []
    api.lives = old + lives(200, from_s=1030.0, until_s=1031.0)
    await account.run_for(60)
    assert (await told(account)).gaps == ["unordered"]
    api.lives = old
    await account.run_for(20)
    api.lives = old + lives(200, from_s=1120.0, until_s=1121.0)
    await account.run_for(60)
    assert (await told(account)).gaps == ["unordered"]


@pytest.mark.parametrize("page_rows", [10, 50])
@pytest.mark.parametrize(("order", "jitter_s"), [(newest, 5.0), (oldest, 5.0), (last_ended, 0.0)])
async def test_a_list_that_is_nearly_ordered_is_cheap_and_complete(
    store: SqlStore, clock: FakeClock, order: Order, jitter_s: float, page_rows: int
) -> None:
    old = lives(1000, from_s=0.0, until_s=990.0, length_s=3.0)
    since = lives(150, from_s=1030.0, until_s=1180.0, length_s=7.0)
    api = ModelApi(clock, lives=old + since, orders=((0.0, order),), jitter_s=jitter_s, page_rows=page_rows)
    account = await model(store, clock, api)
    await account.run_for(30)
    before = len(api.asked)
    await account.run_for(200)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.gaps) == (0, 150, [])
    pages = sum(what.startswith("page") for _, what in api.asked[before:])
    assert pages <= 3 * 200, pages


OFFSETS_S = [-2 * 86_400.0, -1200.0, 0.0, 1200.0, 2 * 86_400.0]


@pytest.mark.parametrize("offset_s", OFFSETS_S)
@pytest.mark.parametrize(("order", "count", "ended_s"), [(newest, 50, 3600.0), (oldest, 300, 0.0), (by_id, 130, 0.0)])
async def test_whatever_the_apis_clock_says_all_that_is_new_is_told_and_no_history(
    store: SqlStore, clock: FakeClock, offset_s: float, order: Order, count: int, ended_s: float
) -> None:
    old = lives(count, from_s=-HOUR_S, until_s=999.0 - ended_s)
    since = lives(30, from_s=1030.0, until_s=1060.0)
    api = ModelApi(clock, lives=old + since, orders=((0.0, order),), offset_s=offset_s)
    account = await model(store, clock, api)
    await account.run_for(100)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.gaps) == (0, 30, [])


@pytest.mark.parametrize("offset_s", OFFSETS_S)
async def test_a_crash_in_the_first_scan_makes_no_difference_to_that(
    store: SqlStore, clock: FakeClock, offset_s: float
) -> None:
    old = lives(1000, from_s=-HOUR_S, until_s=999.0)
    since = lives(30, from_s=1006.0, until_s=1036.0)
    api = ModelApi(clock, lives=old + since, offset_s=offset_s)
    account = await model(store, clock, api, rate_per_s=1.0)
    await account.run_for(5)
    clock.advance(25)
    account = await model(store, clock, api, rate_per_s=1.0)
    await account.run_for(100)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.gaps) == (0, 30, [])


@pytest.mark.parametrize("seed", range(1))
@pytest.mark.parametrize("tells_total", [True, False])
@pytest.mark.parametrize("order", [newest, oldest, by_id])
@pytest.mark.parametrize("often", [1 / 7])
async def test_an_answer_that_is_empty_now_and_then_is_no_gap_and_hides_nothing(
    store: SqlStore, clock: FakeClock, order: Order, often: float, seed: int, *, tells_total: bool
) -> None:
    draw = Random(seed)
    old, since = lives(300, from_s=-HOUR_S, until_s=999.0), lives(60, from_s=1030.0, until_s=1130.0)
    api = ModelApi(clock, lives=old + since, orders=((0.0, order),), empties=lambda _: draw.random() < often)
    api.tells_total = tells_total
    account = await model(store, clock, api)
    await account.run_for(200)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.gaps) == (0, 60, [])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the store's write lock, as another process may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.parametrize("order", [newest, oldest, by_id])
@pytest.mark.parametrize(("count", "after_s"), [(50, 0.0), (130, 0.5)])
async def test_a_store_that_is_locked_in_the_first_scan_makes_no_history_told(
    store: SqlStore, clock: FakeClock, path: Path, order: Order, after_s: float, count: int
) -> None:
    old, since = lives(count, from_s=-HOUR_S, until_s=-60.0), lives(5, from_s=1030.0, until_s=1060.0)
    api = ModelApi(clock, lives=old + since, orders=((0.0, order),))
    account = await model(store, clock, api, rate_per_s=2.0)
    await account.run_for(after_s)
    with locked(path):
        await account.run_for(8)
    await account.run_for(100)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.gaps) == (0, 5, [])
    assert account.watcher._roster.found_count == 0


@pytest.mark.parametrize("order", [newest, oldest])
async def test_what_a_locked_store_could_not_take_is_told_once_it_can(
    store: SqlStore, clock: FakeClock, path: Path, order: Order
) -> None:
    old, since = lives(130, from_s=-HOUR_S, until_s=900.0), lives(60, from_s=1030.0, until_s=1130.0)
    api = ModelApi(clock, lives=old + since, orders=((0.0, order),))
    account = await model(store, clock, api)
    draw = Random(1)
    while clock.monotonic() < 1180:
        await account.run_for(draw.uniform(0.5, 12))
        with locked(path):
            await account.run_for(draw.uniform(0.5, 5))
    await account.run_for(30)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.gaps, account.fatal) == (0, 60, [], [])


class RefusingGaps:
    """The store, but for the first writes of a gap, which fail."""

    def __init__(self, store: SqlStore) -> None:
        self.failures = 2
        self._store = store

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the store has)
        return getattr(self._store, name)

    async def record(self, change: Change) -> None:
        if isinstance(change, PipelineChange) and change.outgoing and self.failures:
            self.failures -= 1
            raise StoreError("locked")
        await self._store.record(change)


@pytest.mark.parametrize("reason", ["forbidden", "forbidden deeper", "deleted", "unordered", "outrun", "lookback"])
async def test_a_gap_that_the_store_could_not_take_is_told_once_it_can(
    store: SqlStore, clock: FakeClock, reason: str
) -> None:
    going, old = Life(str(UUID(int=1)), 500.0, 1e9, fails=False), lives(300, from_s=0.0, until_s=990.0)
    api = ModelApi(clock, lives=[*old, going])
    account = await model(store, clock, api)
    await account.run_for(30)
    refusing: Any = RefusingGaps(store)
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
            api.lives += lives(50_000, from_s=1030.0, until_s=1130.0)
            pages_at_most = 5
        case _:
            api.lives += lives(300, from_s=1030.0, until_s=1030.0 + 20 * 86_400)
            clock.advance(20 * 86_400)
    account = await model(refusing, clock, api, pages_at_most=pages_at_most)
    await account.run_for(150)
    assert refusing.failures == 0
    gaps = (await told(account)).gaps
    assert gaps == [reason.split(maxsplit=1)[0]] * (len(gaps) if reason == "outrun" else 1)


SEEDS = range(int(os.environ.get("LIST_SEEDS", "6")))


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_a_list_is_like_all_is_told_and_no_history_within_the_budget(
    store: SqlStore, clock: FakeClock, path: Path, seed: int
) -> None:
    draw = Random(seed)
    orders = draw.sample([newest, oldest, by_id], 2)
    api = ModelApi(
        clock,
        orders=((0.0, orders[0]), (draw.uniform(1040, 1090), draw.choice(orders))),
        page_rows=draw.choice([10, 50]),
        offset_s=draw.choice([-172_800.0, -1200.0, 0.0, 1200.0, 172_800.0]),
        jitter_s=draw.choice([0.0, 2.0]),
        empties=lambda _: draw.random() < empty,
    )
    empty = draw.choice([0.0, 0.0, 0.1])
    api.tells_total = draw.random() < 0.5
    old = lives(draw.choice([0, 5, 60, 300]), from_s=-HOUR_S, until_s=900.0)
    since = lives(60, from_s=1030.0, until_s=1110.0, length_s=draw.choice([0.3, 5.0]), fails=draw.random() < 0.5)
    api.lives = old + since
    account = await model(store, clock, api, rate_per_s=5.0)
    await account.run_for(20)
    locks = draw.random() < 0.5
    while clock.monotonic() < 1130:
        await account.run_for(draw.uniform(1, 15))
        with locked(path) if locks else nullcontext():
            await account.run_for(draw.uniform(0, 4))
    await account.run_for(60)
    result = await told(account)
    assert (result.missing(since), len(result.ended), result.other, account.fatal) == (0, 60, [], [])
    assert result.gaps == []
    assert set(result.ended.values()) == {1}
    assert len(api.asked) <= 5 * (clock.monotonic() - 1000) + 1
