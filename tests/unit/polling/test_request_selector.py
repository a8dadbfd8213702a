"""Which request is next, on registries made by hand."""

from dataclasses import dataclass, field

import pytest

from watcher.clerk.protocol import PAGE_ROWS
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Cursor, Watch
from watcher.polling.confirmations import ConfirmationQueue
from watcher.polling.pagination.api_clock import ApiClock
from watcher.polling.pagination.coverage import CarryOver
from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.sort_order import Ordering
from watcher.polling.pagination.traversal import ListTraversal
from watcher.polling.pipeline_list import HEAD_EVERY_PAGES, PipelineListState, PipelineStream
from watcher.polling.poll_queue import PendingConfirmation, PollQueue, QueueKind, TrackedExecution
from watcher.polling.registry import Additions, ExecutionRegistry
from watcher.polling.request_selector import GetRequest, ListRequest, RequestSelector
from watcher.runtime.metrics import Metrics

WHOLE = Watch("default", "whole", ())
NAMED = Watch("default", "named", ("n1", "n2"))


def a_listing() -> PipelineListState:
    scan = ListTraversal(
        CarryOver(Ordering(), Paging()),
        clock=ApiClock(),
        cursor=Cursor(Micros(0)),
        lookback_us=0,
        began_at=Micros(0),
        pages_at_most=10,
    )
    return PipelineListState(WHOLE, Cursor(Micros(0)), PipelineStream(0), scan)


@dataclass
class Table:
    """An account with one whole pipeline and two named executions, all to be put into the poll queue by the test."""

    poll_queue: PollQueue = field(default_factory=lambda: PollQueue(max_interval_s=60.0))
    confirmations: ConfirmationQueue = field(default_factory=lambda: ConfirmationQueue(in_time_count=100))
    listing: PipelineListState = field(default_factory=a_listing)

    def __post_init__(self) -> None:
        self.registry = ExecutionRegistry(self.poll_queue, Metrics().account("default"), min_interval_s=1.0)
        named = [ExecutionRecord(name, "named") for name in NAMED.executions]
        self.registry.apply([WHOLE, NAMED], Additions((), named, [self.listing]), now=Monotonic(0.0))
        self.selector = RequestSelector(self.poll_queue, self.registry, self.confirmations)
        for item in (self.listing, *(self.named(name) for name in NAMED.executions)):
            self.poll_queue.take(item)

    def named(self, name: str) -> TrackedExecution:
        entry = self.registry.find(name)
        assert entry is not None
        return entry

    def shown(self, name: str, *, index: int | None, stale_from: float = 0.0) -> TrackedExecution:
        """Return an execution of the whole pipeline that stands at that place of the list."""
        entry = TrackedExecution(ExecutionRecord(name, "whole"), WHOLE)
        self.registry.enter(entry)
        if index is not None:
            self.listing.rows.put(entry, index=index, at=Monotonic(0.0), scanned=True)
        self.poll_queue.put(entry, due_at=Monotonic(stale_from), queue=QueueKind.STALE)
        return entry


@pytest.fixture
def table() -> Table:
    return Table()


def test_nobody_has_a_turn_where_nothing_waits(table: Table) -> None:
    assert table.selector.next(Monotonic(1e9)) is None
    assert table.selector.probe(None, now=Monotonic(1e9)) is None
    assert table.selector.wanted_at() is None


def test_one_that_is_alone_on_its_page_is_fetched(table: Table) -> None:
    entry = table.shown("a", index=120)
    assert table.selector.next(Monotonic(5.0)) == GetRequest(entry)
    assert not entry.queued


def test_a_page_that_answers_for_two_is_read(table: Table) -> None:
    one, other = table.shown("a", index=PAGE_ROWS), table.shown("b", index=2 * PAGE_ROWS - 1)
    young = table.shown("c", index=70, stale_from=100.0)
    request = table.selector.next(Monotonic(5.0))
    assert isinstance(request, ListRequest)
    assert (request.page, list(request.entries), request.scans) == (2, [one, other, young], False)
    assert table.selector.next(Monotonic(5.0)) is None


def test_a_page_whose_others_were_just_polled_is_not_worth_it(table: Table) -> None:
    entry = table.shown("a", index=60)
    table.shown("b", index=61, stale_from=100.0)
    assert table.selector.next(Monotonic(5.0)) == GetRequest(entry)


def test_one_without_a_known_position_is_fetched(table: Table) -> None:
    table.shown("b", index=None, stale_from=1.0)
    entry = table.shown("a", index=None)
    assert table.selector.next(Monotonic(5.0)) == GetRequest(entry)


def test_while_its_list_fails_everyone_is_fetched(table: Table) -> None:
    entry, _ = table.shown("a", index=0), table.shown("b", index=1)
    table.listing.failing_until = Monotonic(10.0)
    assert table.selector.next(Monotonic(5.0)) == GetRequest(entry)
    assert isinstance(table.selector.next(Monotonic(10.0)), GetRequest)


def test_a_scan_takes_those_on_its_page_along(table: Table) -> None:
    entry = table.shown("a", index=3, stale_from=4.0)
    table.poll_queue.put(table.listing, due_at=Monotonic(1.0), queue=QueueKind.STALE)
    request = table.selector.next(Monotonic(2.0))
    assert isinstance(request, ListRequest)
    assert (request.page, list(request.entries), request.scans) == (1, [entry], True)
    assert not table.listing.queued


def test_one_on_the_page_the_scan_wants_goes_with_it(table: Table) -> None:
    entry = table.shown("a", index=3, stale_from=1.0)
    table.poll_queue.put(table.listing, due_at=Monotonic(2.0), queue=QueueKind.STALE)
    request = table.selector.next(Monotonic(2.0))
    assert isinstance(request, ListRequest)
    assert (list(request.entries), request.scans) == ([entry], True)


def test_a_page_of_its_own_leaves_the_scan_alone(table: Table) -> None:
    table.shown("a", index=60)
    table.shown("b", index=61)
    table.poll_queue.put(table.listing, due_at=Monotonic(3.0), queue=QueueKind.STALE)
    request = table.selector.next(Monotonic(2.0))
    assert isinstance(request, ListRequest)
    assert not request.scans
    assert table.listing.queued


def test_what_is_due_and_what_is_stale_take_turns(table: Table) -> None:
    stale = [table.shown(name, index=None, stale_from=at) for name, at in (("a", 1.0), ("b", 2.0))]
    due = [table.named(name) for name in NAMED.executions]
    for entry in due:
        table.poll_queue.put(entry, due_at=Monotonic(0.0))
    order = [table.selector.next(Monotonic(5.0)) for _ in range(5)]
    assert order == [GetRequest(stale[0]), GetRequest(due[0], 5.0), GetRequest(stale[1]), GetRequest(due[1], 5.0), None]


def test_what_is_late_goes_before_what_is_only_due(table: Table) -> None:
    late, due, stale = table.named("n1"), table.named("n2"), table.shown("a", index=None, stale_from=55.0)
    late.asked_at, due.asked_at, stale.asked_at = Monotonic(0.0), Monotonic(50.0), Monotonic(54.0)
    table.poll_queue.put(due, due_at=Monotonic(51.0))
    table.poll_queue.put(late, due_at=Monotonic(55.0))
    assert table.selector.next(Monotonic(60.0)) == GetRequest(late, 5.0)
    assert table.selector.next(Monotonic(60.0)) == GetRequest(stale)
    assert table.selector.next(Monotonic(60.0)) == GetRequest(due, 9.0)


def test_a_scan_under_way_has_every_second_turn_even_of_what_is_late(table: Table) -> None:
    for name in NAMED.executions:
        table.poll_queue.put(table.named(name), due_at=Monotonic(1.0))
    for expected in (ListRequest, GetRequest, ListRequest, GetRequest, ListRequest):
        if not table.listing.queued:
            table.poll_queue.put(table.listing, due_at=Monotonic(3.0), queue=QueueKind.BEGUN)
        assert isinstance(table.selector.next(Monotonic(100.0)), expected)


def test_turns_within_turns_starve_nobody(table: Table) -> None:
    stale = [table.shown(name, index=None) for name in "abc"]
    for name in NAMED.executions:
        table.poll_queue.put(table.named(name), due_at=Monotonic(1.0))
    asked = []
    for _ in range(8):
        if not table.listing.queued:
            table.poll_queue.put(table.listing, due_at=Monotonic(3.0), queue=QueueKind.BEGUN)
        request = table.selector.next(Monotonic(5.0))
        asked.append("list" if isinstance(request, ListRequest) else request and request.entry.known.execution)
    assert asked == ["list", "a", "list", "n1", "list", "b", "list", "n2"]
    assert stale[2].queued


def test_a_pending_confirmation_goes_first_and_then_every_second_time(table: Table) -> None:
    claimants = [table.shown(name, index=None) for name in "ab"]
    for entry in claimants:
        table.poll_queue.take(entry)
        entry.pending = PendingConfirmation(
            "whole", ExecutionSnapshot(entry.known.execution, "failed"), Monotonic(0.0), Monotonic(0.0)
        )
        table.confirmations.add(entry)
    for name in NAMED.executions:
        table.poll_queue.put(table.named(name), due_at=Monotonic(1.0))
    order = [table.selector.next(Monotonic(5.0)) for _ in range(4)]
    named = [GetRequest(table.named(name), 4.0) for name in NAMED.executions]
    assert order == [GetRequest(claimants[0]), named[0], GetRequest(claimants[1]), named[1]]


def test_a_probe_is_what_last_succeeded_else_what_comes_first(table: Table) -> None:
    entry = table.shown("a", index=0, stale_from=50.0)
    table.poll_queue.put(table.named("n1"), due_at=Monotonic(70.0))
    table.poll_queue.put(table.listing, due_at=Monotonic(90.0))
    assert table.selector.probe(table.named("n1"), now=Monotonic(5.0)) == GetRequest(table.named("n1"))
    probe = table.selector.probe(table.listing, now=Monotonic(5.0))
    assert isinstance(probe, ListRequest)
    assert list(probe.entries) == [entry]
    assert table.selector.probe(table.named("n1"), now=Monotonic(5.0)) is None


def test_the_next_turn_is_wanted_when_the_first_may_go(table: Table) -> None:
    table.shown("a", index=0, stale_from=50.0)
    assert table.selector.wanted_at() == 50.0
    table.poll_queue.put(table.named("n1"), due_at=Monotonic(20.0))
    assert table.selector.wanted_at() == 20.0


def test_scans_under_way_take_turns_page_by_page(table: Table) -> None:
    other = a_listing()
    table.poll_queue.put(table.listing, due_at=Monotonic(3.0), queue=QueueKind.BEGUN)
    table.poll_queue.put(other, due_at=Monotonic(2.0), queue=QueueKind.BEGUN)
    order = []
    for now in (5.0, 6.0, 7.0):
        request = table.selector.next(Monotonic(now))
        assert isinstance(request, ListRequest)
        order.append(request.listing)
        table.poll_queue.put(request.listing, due_at=Monotonic(now), queue=QueueKind.BEGUN)
    assert order == [other, table.listing, other]


def test_a_deep_scan_has_the_head_read_now_and_then(table: Table) -> None:
    pages = []
    for number in range(1, 2 * HEAD_EVERY_PAGES + 4):
        table.listing.scan.page = max(2, number)
        table.poll_queue.put(table.listing, due_at=Monotonic(1.0), queue=QueueKind.BEGUN)
        request = table.selector.next(Monotonic(5.0))
        assert isinstance(request, ListRequest)
        if request.scans:
            table.listing.scan_asked(Monotonic(5.0))
        pages.append((request.page, request.scans))
    assert [number for number, page in enumerate(pages) if page == (1, False)] == [10, 21]
