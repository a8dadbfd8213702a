"""Scans of a list that behaves as the API may: nothing is missed in silence, no gap without need, few pages.

What is history, and what is told: `test_pages_history.py`.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from parameters import seeds
from stores import from_us
from virtual import RULES, on_our_clock

from watcher.clerk.api import Reply
from watcher.domain.event import GapReason
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Cursor
from watcher.polling.lists.evidence import ListMemory
from watcher.polling.lists.order import PAIRS_AT_LEAST, Order, Ordering
from watcher.polling.lists.scan import Scan, ScanResult

SECOND = 1_000_000
NOW = Micros(1_800_000_000 * SECOND)
DAY = 86_400 * SECOND


def a_memory(pages_at_most: int) -> ListMemory:
    return ListMemory(7 * DAY, pages_at_most, RULES.lost_after, 0.0)


@dataclass
class World:
    """A list, oldest first inside, and what was recorded of it: id to `found_at`."""

    order: Order = Order.NEWEST
    lie: str = "true"
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    now: int = NOW
    rows: list[ExecutionSnapshot] = field(default_factory=list)
    recorded: dict[str, int] = field(default_factory=dict)
    cursor: Cursor = field(default_factory=lambda: Cursor(since_at=NOW))
    page_rows: int = 50
    count: int = 0
    pages: int = 0
    rate: float = 0.0
    calm_after: int = 10**9
    pages_at_most: int = 10
    clamps: bool = False  # it gives its last page, or that of `clamped_at`, for those beyond
    clamped_at: int | None = None
    asked: list[int] = field(default_factory=list)
    meanwhile: Callable[[int], None] | None = None  # after so many pages

    def __post_init__(self) -> None:
        self.memory = a_memory(self.pages_at_most)

    def arrive(self, count: int, *, dated: float = 1.0) -> None:
        for _ in range(count):
            self.count += 1
            self.now += SECOND // 100
            started_at = from_us(self.now) if self.draw.random() < dated else None
            self.rows.append(on_our_clock(ExecutionSnapshot(f"e{self.count}", "running", started_at=started_at)))

    def claimed(self) -> int | None:
        true = len(self.rows)
        lies = {"true": true, "null": None, "zero": 0, "constant": 7, "huge": 10**9}
        return lies[self.lie] if self.lie in lies else max(0, true + self.draw.randint(-60, 60))

    def page(self, number: int) -> list[ExecutionSnapshot]:
        rows = self.rows[::-1] if self.order is Order.NEWEST else self.rows
        number = min(number, self.clamped_at or max(1, -(-len(rows) // self.page_rows))) if self.clamps else number
        return rows[(number - 1) * self.page_rows : number * self.page_rows]

    def scan(self, *, crash_after: int | None = None) -> ScanResult | None:
        """Read until a scan counts, however often it is made anew; `None`: it was interrupted."""
        self.pages, self.asked = 0, []
        while True:
            self.now += SECOND
            scan = Scan(self.memory, self.cursor)
            scan.began_at = Micros(self.now)
            result = self._read(scan, crash_after)
            if result is None:
                return None
            if scan.is_confirmed(result, ran_s=self.pages):
                self.cursor = Cursor(NOW, scan.began_at, found=scan.shows_any)
                scan.complete()
                return result._replace(unconfirmed=None)
            scan.break_off()

    def _read(self, scan: Scan, crash_after: int | None) -> ScanResult | None:
        while self.pages != crash_after:
            self.pages += 1
            assert self.pages < 1000
            rows = self.page(scan.page)
            self.asked.append(scan.page)
            known_rows = {row.id for row in rows if 0 < self.recorded.get(row.id, 0) <= self.cursor.complete_at}
            fresh = [row.id for row in rows if row.id not in self.recorded]
            reply = answer(rows, total=self.claimed())
            scan.note(reply)
            self.recorded |= dict.fromkeys(fresh, scan.began_at)
            result = scan.read(reply, known_rows=known_rows)
            if result:
                return result
            if self.pages < self.calm_after:
                self.arrive(int(self.rate) + (self.draw.random() < self.rate % 1))
            if self.meanwhile is not None:
                self.meanwhile(self.pages)
        self.memory = a_memory(self.pages_at_most)
        return None

    def missing(self, rows: list[ExecutionSnapshot]) -> list[str]:
        return [row.id for row in rows if row.id not in self.recorded]


def answer(rows: Sequence[ExecutionSnapshot], *, total: int | None, skipped: int = 0) -> Reply:
    return Reply(Outcome.OK, Monotonic(0.0), None, 200, rows=tuple(rows), skipped=skipped, total=total)


LIES = ["true", "null", "zero", "constant", "huge", "off"]
CONTRADICTED = {"constant", "huge", "off"}
"""Totals that name more rows than the list shows: a gap says so."""


def gaps_of(lie: str) -> set[GapReason | None]:
    """Return how a scan of a list with such a total may end."""
    return {None, GapReason.UNORDERED} if lie in CONTRADICTED else {None}


def check_scans(world: World, *, dated: float = 1.0) -> None:
    """Scan a list that grows again and again; some scans are interrupted."""
    for _ in range(12):
        visible = list(world.rows)
        result = world.scan(crash_after=world.draw.choice([None, None, 1, 2]))
        if result:
            assert result.gap in gaps_of(world.lie)
            assert world.missing(visible) == []
        world.arrive(world.draw.choice([0, 0, 1, 20, 50, 170]), dated=dated)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("seed", seeds(ci=1, soak=8))
def test_nothing_is_missed_whatever_total_says_and_a_contradiction_is_a_gap(order: Order, lie: str, seed: int) -> None:
    draw = random.Random(seed)
    page_rows = draw.choice([50, 49, 25, 9])
    rate = draw.choice([0, 0.3, page_rows / 10, page_rows * 0.6])
    world = World(order, lie, draw, rate=rate, page_rows=page_rows, pages_at_most=60, calm_after=60)
    dated = draw.choice([1.0, 0.7, 0.0])
    world.arrive(draw.choice([0, 3, 50, 260]), dated=dated)
    check_scans(world, dated=dated)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("seed", seeds(ci=1, soak=8))
def test_what_the_api_forgot_unseen_is_a_gap(order: Order, lie: str, seed: int) -> None:
    draw = random.Random(seed)
    world = World(order, lie, draw)
    world.arrive(draw.choice([3, 50, 130]))
    for _ in range(12):
        result = world.scan()
        assert result
        assert (result.gap is not None) >= bool(world.missing(world.rows))
        unseen = len(world.rows)
        world.arrive(draw.choice([0, 1, 60, 170]))
        gone = draw.choice([0, 1, 40, unseen + 1])
        lost = world.missing(world.rows[:gone])
        del world.rows[:gone]
        if lost and len(world.rows):
            assert (found := world.scan())
            assert found.gap is GapReason.DELETED
        world.arrive(1)


@pytest.mark.parametrize(("new", "pages"), [(0, 1), (1, 1), (49, 1), (50, 2), (149, 3)])
def test_newest_first_a_scan_reads_no_more_than_it_needs(new: int, pages: int) -> None:
    world = World()
    world.arrive(400)
    world.scan()
    world.arrive(new)
    assert (world.scan(), world.pages) == (ScanResult(), pages)


@pytest.mark.parametrize("page_rows", [7, 25, 50])
def test_oldest_first_a_scan_reads_no_more_than_it_needs(page_rows: int) -> None:
    world = World(Order.OLDEST, page_rows=page_rows)
    world.arrive(400)
    for _ in range(2):  # what the first one met while it looked for the end are known rows for the third
        world.scan()
        world.arrive(1)
    assert world.scan() == ScanResult()
    assert world.pages <= 2


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("gone", [1, 20, 49])
def test_after_a_deletion_while_it_is_read_nothing_is_passed_over(order: Order, gone: int) -> None:
    world = World(order)
    world.arrive(60)
    world.scan()
    world.arrive(400)
    end = slice(-gone, None) if order is Order.NEWEST else slice(0, gone)
    world.meanwhile = lambda pages: world.rows.__delitem__(end) if pages == 4 else None
    assert (world.scan(), world.missing(world.rows)) == (ScanResult(), [])


def test_beyond_lookback_is_a_gap_that_says_how_many() -> None:
    for order in Order:
        world = World(order)
        world.arrive(60)
        world.scan()
        world.arrive(200)
        world.now += 10 * DAY
        world.arrive(20)
        result = world.scan()
        assert result
        assert (result.gap, result.at_most is not None) == (GapReason.LOOKBACK, True)


def test_a_list_that_grows_faster_than_it_is_read_is_a_gap() -> None:
    world = World()
    world.arrive(60)
    world.scan()
    world.arrive(200)
    world.rate = 120
    result = world.scan()
    assert result
    assert result.gap is GapReason.OUTRUN
    assert world.memory.ordering.order is Order.NEWEST


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("rate", [45, 60, 120, 400])
def test_what_came_in_a_storm_that_is_over_is_read_and_is_no_gap(order: Order, rate: int) -> None:
    world = World(order)
    world.arrive(60)
    world.scan()
    world.arrive(200)
    world.rate, world.calm_after = rate, 9
    assert world.scan() == ScanResult()
    world.rate = 0
    assert world.scan() == ScanResult()
    assert world.missing(world.rows) == []


@pytest.mark.parametrize("restarts", [False, True])
def test_what_a_deletion_moved_to_a_page_that_was_read_is_found(*, restarts: bool) -> None:
    world = World()
    world.arrive(400)
    world.scan()
    world.arrive(130)
    if restarts:
        world.scan(crash_after=0)

    def delete(pages: int) -> None:
        if pages == 1:
            del world.rows[-1]
            world.meanwhile = None

    world.meanwhile = delete
    world.scan()
    world.arrive(1)
    world.scan()
    assert world.missing(world.rows) == []


def test_what_is_seen_late_is_found_by_the_total() -> None:
    world = World()
    world.arrive(300)
    world.scan()
    late = ExecutionSnapshot("late", "new", started_at=world.rows[-170].started_at)
    world.rows.insert(-170, late)
    assert (world.scan(), world.pages, world.missing([late])) == (ScanResult(), 4, [])
    world.lie = "huge"
    assert world.scan() == ScanResult(GapReason.UNORDERED, 10**9 - 301)
    assert (world.scan(), world.pages) == (ScanResult(), 1)


@pytest.mark.parametrize("order", Order)
def test_what_comes_far_down_is_found_within_the_budget(order: Order) -> None:
    world = World(order, pages_at_most=60)
    world.arrive(1500)
    world.scan()
    late = [ExecutionSnapshot(f"late{number}", "new", started_at=world.rows[200].started_at) for number in range(3)]
    for row in late:
        world.rows.insert(200, row)
        assert (world.scan(), world.missing([row])) == (ScanResult(), [])
        assert world.pages > 20


def test_what_comes_further_down_than_may_be_read_is_a_gap_and_is_not_looked_for_again() -> None:
    world = World()
    world.arrive(1500)
    world.scan()
    world.rows.insert(200, ExecutionSnapshot("late", "new", started_at=world.rows[200].started_at))
    assert (world.scan(), world.pages) == (ScanResult(GapReason.UNORDERED, 1), 20)
    world.arrive(2)
    assert (world.scan(), world.pages) == (ScanResult(), 1)
    world.rows.insert(-700, ExecutionSnapshot("late too", "new", started_at=world.rows[-700].started_at))
    assert world.scan() == ScanResult(GapReason.UNORDERED, 1)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("lie", ["true", "null", "zero", "constant", "off"])
@pytest.mark.parametrize("count", [51, 100, 130, 260, 300])
@pytest.mark.parametrize("dated", [1.0, 0.0])
def test_where_the_last_page_is_repeated_the_list_ends_there(order: Order, lie: str, count: int, dated: float) -> None:
    world = World(order, lie, clamps=True, pages_at_most=60)
    world.arrive(count, dated=dated)
    for new in (0, 1, 49, 50, 0, 100):
        world.arrive(new, dated=dated)
        result = world.scan()
        assert result
        assert result.gap in gaps_of(lie)
        assert world.missing(world.rows) == []
        assert world.pages <= 12 * (len(world.rows) // 50 + 2)


class Endless(World):
    """A list each page of which shows rows that no other page showed."""

    def page(self, number: int) -> list[ExecutionSnapshot]:
        started_at = [from_us(NOW + at * SECOND) for at in range(50)]
        return [ExecutionSnapshot(f"{number}/{at}", "new", started_at=each) for at, each in enumerate(started_at)]


def test_the_end_of_a_list_is_not_looked_for_for_ever() -> None:
    world = Endless(Order.OLDEST, "null")
    for _ in range(2):
        result = world.scan()
        assert result
        assert result.gap is GapReason.OUTRUN
        assert world.pages <= 2 * (world.pages_at_most + 2)


class Around(World):
    """A list that shows its first page again for all beyond its last one."""

    def page(self, number: int) -> list[ExecutionSnapshot]:
        return super().page(number) or super().page(1)


class Turning(World):
    """A list that turns over with every page of it that is read."""

    def page(self, number: int) -> list[ExecutionSnapshot]:
        self.order = Order.OLDEST if self.order is Order.NEWEST else Order.NEWEST
        return super().page(number)


GENERAL_ANSWERS: list[tuple[str, Callable[[], World], int, tuple[GapReason | None, int | None], GapReason | None]] = [
    ("a total that is much too high", lambda: World(lie="huge"), 130, (GapReason.UNORDERED, 10**9 - 130), None),
    ("a total that stays and is too high", lambda: World(lie="constant"), 3, (GapReason.UNORDERED, 4), None),
    ("a total that is too low", lambda: World(lie="constant"), 130, (None, None), None),
    ("no total", lambda: World(lie="null"), 130, (None, None), None),
    ("its last page for those beyond it", lambda: World(clamps=True), 130, (None, None), None),
    ("that, and no total", lambda: World(lie="null", clamps=True), 130, (None, None), None),
    (
        "its first page for all",
        lambda: World(clamps=True, clamped_at=1),
        130,
        (GapReason.UNORDERED, 80),
        GapReason.DELETED,
    ),
    (
        "that, and no total",
        lambda: World(lie="null", clamps=True, clamped_at=1),
        130,
        (GapReason.UNORDERED, None),
        GapReason.DELETED,
    ),
    ("its first page for those beyond the last", lambda: Around(lie="null"), 130, (None, None), None),
    ("another order with each page", Turning, 100, (GapReason.UNORDERED, 50), GapReason.UNORDERED),
    ("new rows on each page", lambda: Endless(lie="null"), 0, (GapReason.OUTRUN, None), GapReason.OUTRUN),
]
"""What a list may show that no documentation says, with the gap of the first scan and of the one after 60 more rows."""


@pytest.mark.parametrize(("what", "make", "count", "first", "second"), GENERAL_ANSWERS)
def test_what_no_documentation_says_is_read_or_is_a_gap(
    what: str,
    make: Callable[[], World],
    count: int,
    first: tuple[GapReason | None, int | None],
    second: GapReason | None,
) -> None:
    world = make()
    world.arrive(count)
    assert world.scan() == ScanResult(*first), what
    world.arrive(60)
    result = world.scan()
    assert result
    assert result.gap is second, what
    assert second or not world.missing(world.rows), what


@pytest.mark.parametrize("order", Order)
def test_a_page_that_is_repeated_for_all_beyond_is_the_whole_list_while_its_rows_become_more(order: Order) -> None:
    world = World(order, lie="null", clamps=True)
    world.arrive(3)
    world.meanwhile = lambda _: world.arrive(world.asked[-2:] == [2, 2])
    assert (world.scan(), world.missing(world.rows[:3])) == (ScanResult(), [])
    world.meanwhile = None
    assert world.scan() == ScanResult(GapReason.UNORDERED)  # so few rows may be all that a page shows


# In which order a list is

BEGIN = datetime(2026, 11, 24, tzinfo=UTC)
NUMBERS = count()


def rows(seconds: Sequence[int | None]) -> list[ExecutionSnapshot]:
    dates = [None if each is None else BEGIN + timedelta(seconds=each) for each in seconds]
    return [ExecutionSnapshot(f"e{next(NUMBERS)}", "new", started_at=date) for date in dates]


def learnt(ordering: Ordering, page: Sequence[ExecutionSnapshot]) -> Order | None:
    ordering.learn(page)
    return ordering.order


RISING = list(range(50))
FALLING = RISING[::-1]
NEAR_MAJORITY = [*range(20, 50), *range(20)]
"""Of 1,225 pairs 625 stand in one order, 600 in the other; of neighbours 48 and 1."""
JITTERED = [second + (9, 0, 6)[second % 3] for second in FALLING]
"""Half of the neighbours stand the other way round."""


@pytest.mark.parametrize(
    ("seconds", "order"),
    [
        (FALLING, Order.NEWEST),
        (RISING, Order.OLDEST),
        (RISING[: PAIRS_AT_LEAST + 1], Order.OLDEST),
        (RISING[:PAIRS_AT_LEAST], None),
        ([7] * 50, None),
        ([None] * 50, None),
        ([None, *FALLING, None], Order.NEWEST),
        (NEAR_MAJORITY, None),
        ([*range(31), *range(29, 19, -1)], Order.OLDEST),
        (JITTERED, Order.NEWEST),
        ([], None),
    ],
)
def test_a_clear_majority_of_pairs_shows_the_order(seconds: Sequence[int | None], order: Order | None) -> None:
    ordering = Ordering()
    ordering.learn(rows(seconds))
    assert ordering.order is order


def test_the_same_rows_count_once() -> None:
    ordering, page = Ordering(), rows(RISING[:PAIRS_AT_LEAST])
    for _ in range(10):
        ordering.learn(page)
    assert ordering.order is None
    ordering.learn([*page, *rows([99])])
    assert ordering.order is Order.OLDEST


@pytest.mark.parametrize(
    ("believed", "seconds", "mixed", "uncertain"),
    [
        (None, [], False, True),
        (None, FALLING, False, False),
        (Order.NEWEST, [], False, False),
        (Order.NEWEST, FALLING, False, False),
        (Order.NEWEST, [3, 2, 1], False, False),
        (Order.NEWEST, [1, 2], False, True),
        (Order.NEWEST, [7] * 50, False, False),
        (Order.NEWEST, NEAR_MAJORITY, True, True),
        (Order.NEWEST, [*range(25), *range(24, 0, -1)], True, True),
        (Order.OLDEST, [1, 2], False, False),
        (Order.OLDEST, [2, 1], False, True),
        (Order.OLDEST, [1, 2, 1], False, False),
    ],
)
def test_a_scan_knows_whether_its_pages_show_what_is_believed(
    believed: Order | None, seconds: Sequence[int | None], *, mixed: bool, uncertain: bool
) -> None:
    ordering = Ordering(believed)
    ordering.learn(rows(seconds))
    assert (ordering.is_mixed, ordering.is_uncertain) == (mixed, uncertain)


def test_each_scan_starts_anew() -> None:
    ordering, page = Ordering(), rows(FALLING)
    ordering.learn(page)
    ordering.begin()
    assert ordering.order is Order.NEWEST
    ordering.order = None
    assert (ordering.order, ordering.is_uncertain) == (None, True)


def test_a_list_sorted_by_its_ends_is_in_order_too() -> None:
    ends = [replace(row, finished_at=BEGIN + timedelta(seconds=900 - at)) for at, row in enumerate(rows(NEAR_MAJORITY))]
    ordering = Ordering()
    ordering.learn(ends)
    assert (ordering.order, ordering.is_uncertain) == (Order.NEWEST, False)


def test_small_pages_show_that_the_list_has_turned_over_while_it_is_read() -> None:
    ordering = Ordering()
    for first in range(200, 0, -10):
        ordering.learn(rows(range(first, first - 10, -1)))
    found = [learnt(ordering, rows(range(first, first + 10))) for first in range(0, 120, 10)]
    assert found == sorted(found, key=lambda order: order is Order.OLDEST)
    assert found.index(Order.OLDEST) < 9
