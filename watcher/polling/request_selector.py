"""Which request goes out next, within what an account may be asked. Decides; sends nothing.

Confirmations, then the next pages of scans under way, take every second turn while anything else wants one. The rest
goes to what is late, and then by turns to what is due and to what has grown stalest. So nothing can starve the rest: no
storm of failures the lists, no deep scan the other pipelines, no named executions those that are watched whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from watcher.domain.timestamps import Monotonic
from watcher.polling.confirmations import ConfirmationQueue
from watcher.polling.pipeline_list import HEAD_EVERY_PAGES, PipelineListState
from watcher.polling.poll_queue import PollItem, PollQueue, TrackedExecution
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


class RequestSelector:
    """Decides which request is next."""

    def __init__(self, poll_queue: PollQueue, registry: ExecutionRegistry, confirmations: ConfirmationQueue) -> None:
        self._poll_queue = poll_queue
        self._registry = registry
        self._confirmations = confirmations
        self._confirmation_went = False

    def next(self, now: Monotonic) -> Request | None:
        """Return the next request, if there is one, taking what it is about out of the queue."""
        other = self._poll_queue.next(now)
        confirmable = self._confirmations.first(now) if self._confirmations.waiting else None
        self._confirmation_went = confirmable is not None and (other is None or not self._confirmation_went)
        if confirmable is not None and self._confirmation_went:
            self._confirmations.take(confirmable)
            return GetRequest(confirmable)
        if other is None:
            return None
        return self._request_for(other, now=now)

    def probe(self, probe_target: PollItem | None, *, now: Monotonic) -> Request | None:
        """Return the one request of a degraded account: what last succeeded, else any."""
        item = probe_target if probe_target is not None and probe_target.queued else self._poll_queue.peek()
        if isinstance(item, TrackedExecution):
            return GetRequest(item, self._poll_queue.goes(item, now))
        return None if item is None else self._request_for(item, now=now)

    def _request_for(self, item: PollItem, *, now: Monotonic) -> Request:
        """Return the page that answers for an execution and for others that are due, else the execution alone.

        Of a list, the next page of its scan; of a deep one now and then that of the newest rows, while it waits on.
        """
        if isinstance(item, PipelineListState):
            wanted, head = item.scan.page, item.scan.head
            if head is not None and head != wanted and item.progress.depth >= HEAD_EVERY_PAGES:
                wanted, item.progress.depth = head, 0
            return self._list_request(item, item, page=wanted, now=now)
        assert isinstance(item, TrackedExecution)
        listing = self._registry.listings.get(item.known.pipeline)
        if listing is not None and listing.failing_until <= now:
            page = listing.rows.page_of(item, at=now)
            if page is not None and self._answers_for_several(listing, page=page, now=now):
                return self._list_request(listing, item, page=page, now=now)
        return GetRequest(item, self._poll_queue.goes(item, now))

    def _answers_for_several(self, listing: PipelineListState, *, page: int, now: Monotonic) -> bool:
        """Return whether a page answers for more than one that is due: executions on it, or the scan itself."""
        shown = listing.rows.on_page(page, at=now)
        scanned = (listing,) if page == listing.scan.page else ()
        return len([each for each in (*shown, *scanned) if each.queued and each.due_at <= now]) > 1

    def _list_request(self, listing: PipelineListState, item: PollItem, *, page: int, now: Monotonic) -> ListRequest:
        """Take out `item`, who should be on that page, and the list if its scan wants the page: nobody else asks."""
        entries = [entry for entry in listing.rows.on_page(page, at=now) if entry.queued]
        scans = listing.queued and page == listing.scan.page
        late_s = self._poll_queue.goes(item, now)
        self._poll_queue.take(*entries, *((listing,) if scans else ()))
        if item is listing and not scans:
            self._poll_queue.restore(listing)  # its scan waits on: the newest rows are read out of turn
        return ListRequest(listing, page, entries, scans, late_s)
