"""Which executions one account watches: those that are named, and those of whole pipelines, until they end.

Knows no request and no rule.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from operator import attrgetter

from watcher.domain.execution import LOST, ExecutionRecord
from watcher.domain.timestamps import Monotonic
from watcher.domain.watch import Watch
from watcher.polling.dependencies import AccountDependencies
from watcher.polling.pipeline_list import PipelineListState
from watcher.polling.poll_item import QueueKind, TrackedExecution
from watcher.polling.poll_queue import PollQueue
from watcher.runtime.metrics import open_label


class ExecutionRegistry:
    """The watched executions that have not ended, each one entry, how many are in which status, and the lists.

    `entries` are by execution. `listings` are the pipelines watched whole, by id. Who leaves is kept in `left` while
    that is a dictionary: what the store was asked of them before that is out of date.
    """

    def __init__(self, deps: AccountDependencies, poll_queue: PollQueue) -> None:
        self.listings = poll_queue.listings
        self.entries: dict[str, TrackedExecution] = {}
        self.left: dict[str, TrackedExecution] | None = None
        self._poll_queue, self._min_interval_s = poll_queue, deps.rules.min_interval_s
        self._counts = Counter[str]()  # by the label of the metric
        for label, gauge in deps.metrics.open.items():
            gauge.set_function(partial(self._counts.__getitem__, label))

    @property
    def found_count(self) -> int:
        """Return how many of the executions are not lost."""
        return len(self.entries) - self._counts[LOST]

    def apply(
        self,
        watches: Sequence[Watch],
        found: Mapping[str, ExecutionRecord],
        new_lists: Iterable[PipelineListState],
        *,
        now: Monotonic,
    ) -> None:
        """Watch what these watches ask for and nothing else. `found` is what the store knew of what is new in them.

        By now some of that may be watched, have ended, or be `left`. What ended is not watched; the others are due at
        `now`, those first that were polled longest ago. Those of whole pipelines count as asked for then: their lists
        answer for many at once, and a GET each would delay those.
        """
        named = {execution: watch for watch in watches for execution in watch.executions}
        whole = {watch.pipeline: watch for watch in watches if watch.whole}
        for entry in list(self.entries.values()):
            new_watch = named.get(entry.known.execution) or whole.get(entry.known.pipeline)
            entry.unwatched, entry.watch = new_watch is None, new_watch or entry.watch
            if entry.unwatched and entry.queued:  # one in flight leaves when it is back: no second poll may go out
                self._poll_queue.take(entry)
                self.leave(entry)
        self._apply_lists(whole, new_lists, now=now)
        left = self.left or {}
        recorded = found.keys() | {execution for execution, entry in left.items() if entry.recorded}
        unknown = [execution for execution in named if execution not in self.entries]
        candidates = {execution: ExecutionRecord(execution, named[execution].pipeline) for execution in unknown}
        candidates |= found
        candidates |= {execution: entry.known for execution, entry in left.items()}
        for each in sorted(candidates.values(), key=attrgetter("polled_at")):
            execution, watch = each.execution, named.get(each.execution) or whole.get(each.pipeline)
            known = each
            if execution in named and each.ended_at is not None and not each.sequence:  # history of a list
                known = ExecutionRecord(execution, each.pipeline, found_at=each.found_at)
            if watch is None or execution in self.entries or known.ended_at is not None:
                continue
            entry = TrackedExecution(known, watch, known.polled_at, recorded=execution in recorded, asked_at=now)
            self.enter(entry)
            self.put_back(entry, 0.0, now=now)

    def enter(self, entry: TrackedExecution) -> None:
        """Watch an execution from now on; it is in the caller's hands."""
        self.entries[entry.known.execution] = entry
        self._counts[open_label(entry.known)] += 1
        if (listing := self.listings.get(entry.known.pipeline)) is not None:
            listing.rows.enter(entry)

    def move(self, entry: TrackedExecution, known: ExecutionRecord) -> None:
        """Note what is known of an entry from now on."""
        self._counts[open_label(entry.known)] -= 1
        self._counts[open_label(known)] += 1
        entry.known = known

    def put_back(self, entry: TrackedExecution, next_s: float | None, *, now: Monotonic) -> None:
        """Take an entry back from whoever had it. The next poll comes `next_s` after its last request, `None`: never.

        Where a list says that it has ended it waits for a GET to confirm that: for `next_s` from now if one has failed.
        """
        failure_count = 0 if entry.failures is None else entry.failures.count
        if next_s is None or entry.unwatched:
            self.leave(entry)
        elif entry.pending is not None:
            if next_s:
                entry.pending.retry_after(next_s, now=now)
            self._poll_queue.confirmations.add(entry)
        elif entry.known.lost is None and not failure_count and entry.known.pipeline in self.listings:
            # what a list shows, and is well, is not due at a time of its own, it grows stale
            self._poll_queue.put(entry, due_at=Monotonic(entry.asked_at + self._min_interval_s), queue=QueueKind.STALE)
        else:
            self._poll_queue.put(entry, due_at=max(now, Monotonic(entry.asked_at + next_s)))

    def leave(self, entry: TrackedExecution) -> None:
        """Forget an entry that is nobody's: it ended, or is no longer watched."""
        del self.entries[entry.known.execution]
        if self.left is not None:
            self.left[entry.known.execution] = entry
        self._counts[open_label(entry.known)] -= 1
        if (listing := self.listings.get(entry.known.pipeline)) is not None:
            listing.rows.leave(entry)

    def _apply_lists(self, whole: Mapping[str, Watch], new: Iterable[PipelineListState], *, now: Monotonic) -> None:
        for pipeline, listing in list(self.listings.items()):
            listing.unwatched = pipeline not in whole
            listing.watch = whole.get(pipeline, listing.watch)
            if listing.unwatched:
                self._poll_queue.take(listing)
                del self.listings[pipeline]
        for listing in new:
            self.listings[listing.watch.pipeline] = listing
            for entry in self.entries.values():
                if entry.known.pipeline == listing.watch.pipeline:
                    listing.rows.enter(entry)
            listing.asked_at = now
            self._poll_queue.put(listing, due_at=now)
