"""What one account is asked for next: a confirmation, a page, an execution. In memory, no clock of its own."""

import heapq
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from watcher.domain.timestamps import EARLIEST, LATEST, Monotonic
from watcher.polling.pipeline_list import PipelineListState
from watcher.polling.poll_item import NEVER_TRIED, PendingConfirmation, PollItem, QueueKind, TrackedExecution

BY_DUE_AT, BY_ASKED_AT = attrgetter("due_at"), attrgetter("asked_at")


class GetRequest(NamedTuple):
    """One execution is to be fetched, so many seconds after it should have been."""

    entry: TrackedExecution
    late_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ListRequest:
    """One page of a list is to be fetched.

    `left` are the executions, by id, that the page should show: they are taken out of the poll queue, and out of `left`
    once a row of the page is about them. `scans` marks a step of the list's scan, `late_s` is as for a `GetRequest`.
    """

    listing: PipelineListState
    page: int
    left: dict[str, TrackedExecution]
    scans: bool
    late_s: float = 0.0


Request = GetRequest | ListRequest


Heap = list[tuple[Monotonic, int, PollItem]]


class ConfirmationQueue:
    """Those that wait for a GET to confirm their end: a queue for each pipeline, and the pipelines by turns.

    They are `waiting`, by pipeline, whose turn is next first. `too_late` are those whose turn would come too late, so
    no more wait than can be asked for in time.
    """

    def __init__(self, *, in_time_count: float) -> None:
        """Start with nobody. `in_time_count` are the GETs that can be had within the time an end may wait."""
        self._in_time_count = max(1.0, in_time_count)
        self.too_late: list[TrackedExecution] = []
        self.waiting: dict[str, dict[TrackedExecution, PendingConfirmation]] = {}

    def add(self, entry: TrackedExecution) -> None:
        """Let one wait for its confirmation, or wait again. One whose first turn comes too late has waited enough."""
        pending, pipeline = entry.pending, entry.known.pipeline
        assert pending is not None
        if pending.retry_at == NEVER_TRIED and self._turn_of_next(pipeline) > self._in_time_count:
            self.too_late.append(entry)
        else:
            self.waiting.setdefault(pipeline, {})[entry] = pending

    def first(self, now: Monotonic) -> TrackedExecution | None:
        """Return the next to confirm."""
        waiting = (each for queue in self.waiting.values() for each in queue.items())
        return next((entry for entry, pending in waiting if pending.retry_at <= now), None)

    def take(self, entry: TrackedExecution) -> None:
        """Let go of one; its pipeline's next comes after all others'."""
        queue = self.waiting.pop(entry.known.pipeline)
        del queue[entry]
        if queue:
            self.waiting[entry.known.pipeline] = queue

    def expired(self, now: Monotonic) -> list[TrackedExecution]:
        """Return, and let go of, those that have waited too long, or would be before their turn came."""
        waiting = (each for queue in self.waiting.values() for each in queue.items())
        expired = [entry for entry, pending in waiting if pending.expires_at <= now]
        for entry in expired:
            self.take(entry)
        too_late, self.too_late = self.too_late, []
        return too_late + expired

    def wanted_at(self) -> Monotonic:
        """Return when the first may be confirmed, infinity while nobody waits."""
        return min((each.retry_at for queue in self.waiting.values() for each in queue.values()), default=LATEST)

    def _turn_of_next(self, pipeline: str) -> int:
        """Return how many GETs later the turn comes of one that is added now."""
        rank = len(self.waiting.get(pipeline, ())) + 1
        return rank + sum(min(rank, len(queue)) for other, queue in self.waiting.items() if other != pipeline)


class PollQueue:
    """What waits until it is due, in one heap, and what is due, in one of each kind: by when it was last asked for.

    So what is late, last asked for `max_interval_s` ago, is always first in its heap. Lists whose scan is under way
    have a heap of their own. An item that is taken is nobody else's until it is put back. What was moved or taken stays
    in its heap until it comes first there, where its number shows that it is not meant any more.

    `listings` are the pipelines watched whole, by id; the registry keeps them.
    """

    def __init__(self, confirmations: ConfirmationQueue, *, max_interval_s: float) -> None:
        self.listings: dict[str, PipelineListState] = {}
        self.confirmations = confirmations
        self._max_interval_s = max_interval_s
        self._waiting: Heap = []  # by `due_at`
        self._due: dict[tuple[QueueKind, float], Heap] = {}  # of each kind and weight, by `asked_at`
        self._begun: Heap = []  # by `due_at`
        self._put_count = 0
        self._scan_went = False
        self._stale_went = False
        self._confirmation_went = False

    def put(self, item: PollItem, *, due_at: Monotonic, queue: QueueKind = QueueKind.DUE) -> None:
        """Queue an item, or move it if it is queued already.

        What grows `STALE` waits for when nothing is due, but not before `due_at`; of a scan that has `BEGUN` the page
        before was asked for then.
        """
        number = self._put_count = self._put_count + 1
        item.due_at, item.queue, item.number, item.queued = due_at, queue, number, True
        heapq.heappush(self._begun if queue is QueueKind.BEGUN else self._waiting, (due_at, number, item))

    def put_first(self, item: PollItem, *, now: Monotonic) -> None:
        """Queue an item, or move it, so that nothing that is due has waited longer."""
        item.asked_at = EARLIEST
        self.put(item, due_at=now)

    def take(self, *items: PollItem) -> None:
        """Take out these items, due or not."""
        for item in items:
            item.queued = False

    def next(self, now: Monotonic) -> Request | None:
        """Return the next request, if there is one, taking what it is about out of the queue.

        Confirmations, then the next pages of scans under way, take every second turn while anything else wants one. The
        rest goes to what is late, what was asked for longest ago by its weight; then by turns to what is due and to
        what has grown stale. So nothing can starve the rest: no storm of failures the lists, no deep scan the other
        pipelines, no named executions those that are watched whole.
        """
        waiting, confirmations = self._waiting, self.confirmations
        while waiting and waiting[0][0] <= now:
            _, number, item = heapq.heappop(waiting)
            if item.queued and item.number == number:
                due = self._due.setdefault((item.queue, item.weight), [])
                heapq.heappush(due, (item.asked_at, number, item))
        heads = self.heads()
        begun = next((head for head in heads if head.queue is QueueKind.BEGUN), None)
        due_heads = [head for head in heads if head.queue is not QueueKind.BEGUN and head.due_at <= now]
        first = max(due_heads, key=lambda head: self._rank(head, now), default=None)
        if begun is not None and (first is None or not self._scan_went):
            first = begun
        confirmable = confirmations.first(now) if confirmations.waiting else None
        self._confirmation_went = confirmable is not None and (first is None or not self._confirmation_went)
        if confirmable is not None and self._confirmation_went:
            confirmations.take(confirmable)
            return GetRequest(confirmable)
        return None if first is None else self._request(first, now)

    def _rank(self, item: PollItem, now: Monotonic) -> tuple[bool, bool, float]:
        """Return the rank of an item: late ones are first, then the kind that has the turn, then the oldest request."""
        asked_s = now - item.asked_at
        is_late = asked_s >= self._max_interval_s
        has_turn = not is_late and (item.queue is QueueKind.STALE) is not self._stale_went
        return is_late, has_turn, item.weight * asked_s

    def probe(self, target: PollItem | None, now: Monotonic) -> Request | None:
        """Return the one request of a degraded account: for what last succeeded, else any."""
        item = target if target is not None and target.queued else min(self.heads(), key=BY_DUE_AT, default=None)
        return None if item is None else self._request(item, now, alone=isinstance(item, TrackedExecution))

    def _request(self, item: PollItem, now: Monotonic, *, alone: bool = False) -> Request:
        """Take out who has the turn; return the request for it: alone, or by a page that answers for others too.

        What grows stale is not due before it is late.
        """
        page = self._page_for(item, now=now) if self.listings and not alone else None
        late_at = item.due_at
        self._scan_went = item.queue is QueueKind.BEGUN
        if not self._scan_went:
            self._stale_went = item.queue is QueueKind.STALE
            if self._stale_went:
                late_at = max(late_at, Monotonic(item.asked_at + self._max_interval_s))
        item.queued, late_s = False, max(0.0, now - late_at)
        if page is not None:
            return self._list_request(*page, item, late_s=late_s)
        assert isinstance(item, TrackedExecution)
        return GetRequest(item, late_s)

    def heads(self) -> list[PollItem]:
        """Return the first item of each heap, due or not, dropping what was moved or taken."""
        found: list[PollItem] = []
        for heap in (self._waiting, self._begun, *self._due.values()):
            while heap and not (heap[0][2].queued and heap[0][2].number == heap[0][1]):
                heapq.heappop(heap)
            if heap:
                found.append(heap[0][2])
        return found

    def _page_for(self, item: PollItem, *, now: Monotonic) -> tuple[PipelineListState, int] | None:
        """Return the page that answers for an execution and for others that are due; `None`: it is asked for alone.

        Of a list, the next page of its scan; of a deep one now and then that of the newest rows, while it waits on.
        """
        if isinstance(item, PipelineListState):
            return item, item.timing.page_after(item.scan.page, head=item.scan.head)
        assert isinstance(item, TrackedExecution)
        listing = self.listings.get(item.known.pipeline)
        if listing is None or listing.failing_until > now:
            return None
        page = listing.rows.page_of(item)
        if page is None:
            return None
        shown = listing.rows.on_page(page)
        scanned = (listing,) if page == listing.scan.page else ()
        is_worth_it = len([each for each in (*shown, *scanned) if each.queued and each.due_at <= now]) > 1
        return (listing, page) if is_worth_it else None

    def _list_request(self, listing: PipelineListState, page: int, item: PollItem, *, late_s: float) -> ListRequest:
        """Take out all who should be on that page, and the list if its scan wants the page: nobody else asks."""
        entries = {each.known.execution: each for each in listing.rows.on_page(page) if each.queued or each is item}
        scans = (listing.queued or listing is item) and page == listing.scan.page
        self.take(*entries.values(), *((listing,) if scans else ()))
        if item is listing and not scans:
            # its scan waits on: the newest rows are read out of turn
            self.put(listing, due_at=listing.due_at, queue=listing.queue)
        return ListRequest(listing, page, entries, scans, late_s)
