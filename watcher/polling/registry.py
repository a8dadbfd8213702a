"""Which executions one account watches: those that are named, and those of whole pipelines, until they end.

Knows no request and no rule.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from watcher.domain.execution import ExecutionRecord
from watcher.domain.timestamps import Monotonic
from watcher.domain.watch import Watch
from watcher.polling.pipeline_list import PipelineListState
from watcher.polling.poll_item import QueueKind, TrackedExecution
from watcher.polling.poll_queue import PollQueue
from watcher.runtime.metrics import AccountMetrics, open_label


class Additions(NamedTuple):
    """What is new in a configuration: open executions as recorded, others, and lists that begin to be watched.

    As the store was when it was asked: by now some of them may be watched, or have ended.
    """

    recorded: Sequence[ExecutionRecord]
    unrecorded: Sequence[ExecutionRecord]
    listings: Sequence[PipelineListState]


class ExecutionRegistry:
    """The watched executions that have not ended, each one entry, how many are in which status, and the lists.

    `entries` are by execution, `found_count` of them are not lost. `listings` are the pipelines watched whole, by id.
    """

    def __init__(self, poll_queue: PollQueue, metrics: AccountMetrics, *, min_interval_s: float) -> None:
        """Start with nobody. What a list shows is polled again after `min_interval_s` at the earliest."""
        self.found_count = 0
        self.listings = poll_queue.listings
        self._poll_queue = poll_queue
        self._metrics = metrics
        self._min_interval_s = min_interval_s
        self.entries: dict[str, TrackedExecution] = {}
        self._left: dict[str, TrackedExecution] | None = None
        for gauge in metrics.open.values():
            gauge.set(0)

    def unknown(self, watches: Iterable[Watch]) -> dict[str, str]:
        """Return the executions these watches name that are not watched yet, or ended, with their pipelines."""
        named = ((execution, watch.pipeline) for watch in watches for execution in watch.executions)
        return {execution: pipeline for execution, pipeline in named if execution not in self.entries}

    def overdue_by_other_limits(self, watches: Sequence[Watch]) -> dict[str, int]:
        """Return the executions that are overdue by limits that these watches change, and which event said so."""
        named, whole = _by_what_they_name(watches)
        found: dict[str, int] = {}
        for execution, entry in self.entries.items():
            sequence, watch = entry.known.overdue_sequence, named.get(execution) or whole.get(entry.known.pipeline)
            if sequence is not None and watch is not None and watch.overdue_after_s != entry.watch.overdue_after_s:
                found[execution] = sequence
        return found

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note meanwhile who leaves: what the store was asked of them before that is out of date."""
        self._left = {}
        try:
            yield
        finally:
            self._left = None

    def apply(self, watches: Sequence[Watch], found: Additions, *, now: Monotonic) -> None:
        """Watch what these watches ask for and nothing else. `found` is what the store knew of what is new in them.

        What happened since `noting` began goes before that. What ended is not watched; the others are due at `now`,
        those first that were polled longest ago. Those of whole pipelines count as asked for then: their lists
        answer for many at once, and a GET each would delay those.
        """
        labels = Counter[str]()
        named, whole = _by_what_they_name(watches)
        for entry in list(self.entries.values()):
            new_watch = named.get(entry.known.execution) or whole.get(entry.known.pipeline)
            entry.unwatched, entry.watch = new_watch is None, new_watch or entry.watch
            if entry.unwatched and entry.queued:  # one in flight leaves when it is back: no second poll may go out
                self._poll_queue.take(entry)
                self.leave(entry)
        self._apply_lists(whole, found.listings, now=now)
        for known, recorded in self._new_executions(found, named):
            if known.execution in self.entries or known.ended_at is not None:
                continue
            watch = named.get(known.execution) or whole.get(known.pipeline)
            if watch is None:  # it left because nobody wanted it, nor does anybody now
                continue
            entry = TrackedExecution(known, watch, known.polled_at, recorded=recorded, asked_at=now)
            self._enter(entry)
            self.put_back(entry, 0.0, now=now)
            labels[open_label(known)] += 1
        for label, count in labels.items():
            self._metrics.open[label].inc(count)

    def _new_executions(self, found: Additions, named: Mapping[str, Watch]) -> Iterator[tuple[ExecutionRecord, bool]]:
        """Yield what may be new, and whether the store has it: those first that were polled longest ago.

        Of what left meanwhile, what was known of it then holds.
        """
        left = self._left or {}
        oldest_first = sorted(found.recorded, key=lambda known: known.polled_at)
        for recorded, several in ((False, found.unrecorded), (True, oldest_first)):
            yield from ((known, recorded) for known in several if known.execution not in left)
        for execution, entry in left.items():
            yield as_if_new(entry.known) if execution in named else entry.known, entry.recorded

    def enter(self, entry: TrackedExecution) -> None:
        """Watch an execution from now on; it is in the caller's hands."""
        self._enter(entry)
        self._metrics.open[open_label(entry.known)].inc()

    def _enter(self, entry: TrackedExecution) -> None:
        """As `enter`, but for the metric, which a hundred thousand of them would have to lock as often."""
        self.entries[entry.known.execution] = entry
        self.found_count += entry.known.lost is None
        if (listing := self.listings.get(entry.known.pipeline)) is not None:
            listing.rows.enter(entry)

    def move(self, entry: TrackedExecution, known: ExecutionRecord) -> None:
        """Note what is known of an entry from now on."""
        self._metrics.open[open_label(entry.known)].dec()
        self._metrics.open[open_label(known)].inc()
        self.found_count += (known.lost is None) - (entry.known.lost is None)
        entry.known = known

    def end_overdue(self, execution: str, *, sequence: int) -> None:
        """Forget that an execution is overdue, if that was the event that said so; the store has forgotten it."""
        entry = self.entries.get(execution)
        if entry is not None and entry.known.overdue_sequence == sequence:
            entry.known = replace(entry.known, overdue_sequence=None, overdue_at=None)

    def put_back(self, entry: TrackedExecution, next_s: float | None, *, now: Monotonic) -> None:
        """Take an entry back from a poll; the next comes so long after the request of this one, `None` means never."""
        failure_count = 0 if entry.failures is None else entry.failures.count
        if next_s is None or entry.unwatched:
            self.leave(entry)
        elif entry.known.lost is None and not failure_count and entry.known.pipeline in self.listings:
            # what a list shows, and is well, is not due at a time of its own, it grows stale
            self._poll_queue.put(entry, due_at=Monotonic(entry.asked_at + self._min_interval_s), queue=QueueKind.STALE)
        else:
            self._poll_queue.put(entry, due_at=max(now, Monotonic(entry.asked_at + next_s)))

    def restore(self, entry: TrackedExecution) -> None:
        """Take back an entry that nothing was learnt of."""
        if entry.unwatched:
            self.leave(entry)
        else:
            self._poll_queue.restore(entry)

    def leave(self, entry: TrackedExecution) -> None:
        """Forget an entry that is nobody's: it ended, or is no longer watched."""
        del self.entries[entry.known.execution]
        if self._left is not None:
            self._left[entry.known.execution] = entry
        self.found_count -= entry.known.lost is None
        self._metrics.open[open_label(entry.known)].dec()
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


def _by_what_they_name(watches: Iterable[Watch]) -> tuple[dict[str, Watch], dict[str, Watch]]:
    """Return the watches by the executions they name, and those of whole pipelines by these."""
    named = {execution: watch for watch in watches for execution in watch.executions}
    return named, {watch.pipeline: watch for watch in watches if watch.whole}


def as_if_new(known: ExecutionRecord) -> ExecutionRecord:
    """Return what is recorded of an execution that is named: nothing was reported yet of a list's history."""
    if known.ended_at is None or known.sequence:
        return known
    return ExecutionRecord(known.execution, known.pipeline, found_at=known.found_at)
