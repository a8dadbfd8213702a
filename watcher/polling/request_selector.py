"""Which request goes out next, within what an account may be asked. Decides; sends nothing.

Confirmations, then the next pages of scans under way, take every second turn while anything else wants one. The rest
goes to what is late, and then by turns to what is due and to what has grown stalest. So nothing can starve the rest: no
storm of failures the lists, no deep scan the other pipelines, no named executions those that are watched whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from watcher.polling.confirmations import ConfirmationQueue
from watcher.polling.pipeline_list import PipelineListState
from watcher.polling.poll_queue import PollItem, PollQueue, QueueKind, TrackedExecution
from watcher.polling.registry import ExecutionRegistry


class GetRequest(NamedTuple):
    """One execution is to be fetched, so many seconds after it should have been."""

    entry: TrackedExecution
    late_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ListRequest:
    """One page of a list is to be fetched; `entries` are taken out of the poll queue until its answer is evaluated.

    `scans` marks a step of the list's scan, `late_s` is as for a `GetRequest`.
    """

    listing: PipelineListState
    page: int
    entries: Sequence[TrackedExecution]
    scans: bool
    late_s: float = 0.0


Request = GetRequest | ListRequest


OneT = TypeVar("OneT")
OtherT = TypeVar("OtherT")


class Alternator(Generic[OneT, OtherT]):
    """Chooses between two that both want to go: the one that did not go last. `one_chosen` says who did."""

    def __init__(self) -> None:
        """Let the one go first."""
        self.one_chosen = False

    def choose(self, one: OneT | None, other: OtherT | None) -> OneT | OtherT | None:
        """Return who goes next; who then goes is noted in `one_chosen`."""
        if one is None or (self.one_chosen and other is not None):
            return other
        return one


class RequestSelector:
    """Decides which request is next."""

    def __init__(self, poll_queue: PollQueue, registry: ExecutionRegistry, confirmations: ConfirmationQueue) -> None:
        """Take everything from there."""
        self._poll_queue = poll_queue
        self._registry = registry
        self._confirmations = confirmations
        self._confirming = Alternator[TrackedExecution, PollItem]()
        self._scanning = Alternator[PollItem, PollItem]()
        self._growing_stale = Alternator[PollItem, PollItem]()

    def wanted_at(self) -> float | None:
        """Return the monotonic time of the next request, `None` if nothing waits."""
        first = self._poll_queue.peek()
        at = min(self._confirmations.wanted_at(), float("inf") if first is None else first.due_at)
        return None if at == float("inf") else at

    def next(self, now: float) -> Request | None:
        """Return the next request, if there is one, taking what it is about out of the queue."""
        confirmable, other = self._confirmations.first(now), self._next_item(now)
        confirms = confirmable is not None and self._confirming.choose(confirmable, other) is confirmable
        self._confirming.one_chosen = confirms
        if confirmable is not None and confirms:
            self._confirmations.take(confirmable)
            return GetRequest(confirmable)
        return None if other is None else self._request_for(self._note_choice(other), now=now)

    def _next_item(self, now: float) -> PollItem | None:
        ready = self._poll_queue.ready(now)
        waiting = self._waiting(ready, now) if len(ready) > 1 else next(iter(ready), None)
        return self._scanning.choose(self._poll_queue.begun(), waiting)

    def _waiting(self, ready: Sequence[PollItem], now: float) -> PollItem | None:
        late = self._poll_queue.late(ready, now)
        if late is not None:
            return late
        return self._growing_stale.choose(self._poll_queue.stalest(ready, now), self._poll_queue.due(ready))

    def _note_choice(self, item: PollItem) -> PollItem:
        self._scanning.one_chosen = item.queue is QueueKind.BEGUN
        if item.queue is not QueueKind.BEGUN:
            self._growing_stale.one_chosen = item.queue is QueueKind.STALE
        return item

    def probe(self, probe_target: PollItem | None, *, now: float) -> Request | None:
        """Return the one request of a degraded account: what last succeeded, else any."""
        item = probe_target if probe_target is not None and probe_target.queued else self._poll_queue.peek()
        if isinstance(item, TrackedExecution):
            return self._get_request(item, now=now)
        return None if item is None else self._request_for(item, now=now)

    def _request_for(self, item: PollItem, *, now: float) -> Request:
        if isinstance(item, PipelineListState):
            return self._scan_request(item, late_s=self._poll_queue.late_s(item, now), now=now)
        assert isinstance(item, TrackedExecution)  # noqa: S101 (there is no third kind)
        listing = self._registry.list_of(item)
        page = None if listing is None else listing.rows.page_index.page_of(item, at=now)
        if listing is not None and page is not None and listing.failing_until <= now:
            shown, scanned = (
                listing.rows.page_index.on_page(page, at=now),
                (listing,) if page == listing.scan.page else (),
            )
            if sum(each.queued and each.due_at <= now for each in (*shown, *scanned)) > 1:
                return self._list_request(listing, page=page, late_s=self._poll_queue.late_s(item, now), now=now)
        return self._get_request(item, now=now)

    def _scan_request(self, listing: PipelineListState, *, late_s: float, now: float) -> ListRequest:
        """Return the next page of a scan; of a deep one now and then that of the newest rows, while it waits on."""
        head = listing.head_due()
        if head is None:
            return self._list_request(listing, page=listing.scan.page, late_s=late_s, now=now)
        listing.progress.depth = 0
        return self._list_request(listing, page=head, late_s=late_s, now=now)

    def _get_request(self, entry: TrackedExecution, *, now: float) -> GetRequest:
        self._poll_queue.take(entry)
        return GetRequest(entry, self._poll_queue.late_s(entry, now))

    def _list_request(self, listing: PipelineListState, *, page: int, late_s: float, now: float) -> ListRequest:
        """Take out who should be on that page, and the list itself if its scan wants the page: nobody else asks."""
        entries = [entry for entry in listing.rows.page_index.on_page(page, at=now) if entry.queued]
        scans = listing.queued and page == listing.scan.page
        for item in (*entries, listing) if scans else entries:
            self._poll_queue.take(item)
        return ListRequest(listing, page, entries, scans, late_s)
