"""The executions that one account watches, until they end: those named in the file, and those of whole pipelines.

The registry knows no request and no rule.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter

from watcher.domain.execution import LOST, ExecutionRecord
from watcher.domain.timestamps import Monotonic
from watcher.domain.watch import Watch
from watcher.polling.dependencies import AccountDependencies
from watcher.polling.poll_item import PolledList, QueueKind, TrackedExecution
from watcher.polling.poll_queue import PollQueue
from watcher.runtime.metrics import open_label


class ExecutionRegistry:
    """The open executions of an account, counted by status, and its lists.

    `entries` are the executions by id, `lists` the lists by pipeline.
    """

    def __init__(self, deps: AccountDependencies, poll_queue: PollQueue) -> None:
        self.lists: Mapping[str, PolledList] = {}
        self.entries: dict[str, TrackedExecution] = {}
        self._poll_queue, self._min_interval_s, self._clock = poll_queue, deps.rules.min_interval_s, deps.clock
        self._counts = Counter[str]()  # by label of the metric
        for label, gauge in deps.metrics.open.items():
            gauge.set_function(partial(self._counts.__getitem__, label))

    @property
    def found_count(self) -> int:
        """Return how many of the executions are not lost."""
        return len(self.entries) - self._counts[LOST]

    def apply(self, watches: Sequence[Watch], found: Mapping[str, ExecutionRecord]) -> None:
        """Watch the executions of these watches and no others. `found` are the store's rows of new executions.

        Executions that have ended are not watched. The others are queued, those with the oldest poll first. Executions
        of whole pipelines count as requested now: one page answers for many of them, and a GET for each would delay the
        lists.
        """
        now = self._clock.monotonic()
        named = {execution: watch for watch in watches for execution in watch.executions}
        whole = {watch.pipeline: watch for watch in watches if watch.whole}
        for entry in list(self.entries.values()):
            new_watch = named.get(entry.known.execution) or whole.get(entry.known.pipeline)
            if new_watch is not None and new_watch.rules != entry.watch.rules:
                entry.row = entry.body_hash = None  # an equal answer may mean more by the new rules
            entry.is_unwatched, entry.watch = new_watch is None, new_watch or entry.watch
            # An entry whose end is to be confirmed leaves with the answer.
            if entry.is_unwatched and entry.is_queued:
                self._poll_queue.take(entry)
                self.leave(entry)
        unknown = [execution for execution in named if execution not in self.entries]
        candidates = {execution: ExecutionRecord(execution, named[execution].pipeline) for execution in unknown}
        candidates |= found
        for each in sorted(candidates.values(), key=attrgetter("polled_at")):
            execution, watch = each.execution, named.get(each.execution) or whole.get(each.pipeline)
            known = each
            # The end of an execution that was history was not reported. It is reported now that the execution is named.
            if execution in named and each.end_seen_at is not None and not each.sequence:
                known = ExecutionRecord(execution, each.pipeline, found_at=each.found_at)
            if watch is None or execution in self.entries or known.end_seen_at is not None:
                continue
            entry = TrackedExecution(known, watch, known.polled_at, is_recorded=execution in found, asked_at=now)
            self.enter(entry)
            self.put_back(entry, 0.0)

    def enter(self, entry: TrackedExecution) -> None:
        """Watch an execution from now on. The caller polls it or puts it back."""
        self.entries[entry.known.execution] = entry
        self._counts[open_label(entry.known)] += 1
        if (listing := self.lists.get(entry.known.pipeline)) is not None:
            listing.enter(entry)

    def move(self, entry: TrackedExecution, known: ExecutionRecord) -> None:
        """Replace the record of an entry by a newer one."""
        self._counts[open_label(entry.known)] -= 1
        self._counts[open_label(known)] += 1
        entry.known = known

    def put_back(self, entry: TrackedExecution, next_s: float | None) -> None:
        """Queue an entry again, due `next_s` seconds after its last request. Forget the entry if `next_s` is `None`.

        An entry whose end is to be confirmed waits for its GET. If a GET has failed, the entry waits for `next_s` from
        now.
        """
        now, failure_count = self._clock.monotonic(), 0 if entry.failures is None else entry.failures.count
        if next_s is None or entry.is_unwatched:
            self.leave(entry)
        elif entry.unconfirmed_end is not None:
            if next_s:
                entry.unconfirmed_end.retry_after(next_s, now=now)
            self._poll_queue.confirmations.add(entry)
        elif entry.known.lost is None and not failure_count and entry.known.pipeline in self.lists:
            # Its list polls it, so it has no due time of its own: it grows stale.
            self._poll_queue.put(entry, due_at=Monotonic(entry.asked_at + self._min_interval_s), queue=QueueKind.STALE)
        else:
            self._poll_queue.put(entry, due_at=max(now, Monotonic(entry.asked_at + next_s)))

    def leave(self, entry: TrackedExecution) -> None:
        """Forget an entry that ended, or is no longer watched. It must not be in the queue or in flight."""
        del self.entries[entry.known.execution]
        self._counts[open_label(entry.known)] -= 1
        if (listing := self.lists.get(entry.known.pipeline)) is not None:
            listing.leave(entry)
