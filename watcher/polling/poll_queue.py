"""The queue of one account's requests: GETs that confirm ends, pages of lists, polls. In memory, without a clock."""

import heapq
from operator import attrgetter

from watcher.domain.timestamps import EARLIEST, LATEST, Monotonic
from watcher.polling.poll_item import NEVER_TRIED, PendingConfirmation, PollItem, PollRules, QueueKind, TrackedExecution

BY_DUE_AT = attrgetter("due_at")


Heap = list[tuple[Monotonic, int, PollItem]]


class ConfirmationQueue:
    """The executions whose end a GET is to confirm: a queue for each pipeline, and the pipelines take turns.

    `waiting` holds these queues by pipeline, the next one first. `too_late` are executions whose turn would come after
    the time within which an end must be confirmed.
    """

    def __init__(self, confirmed_at_most: float) -> None:
        """Start empty. At most `confirmed_at_most` GETs can be sent within the time to confirm an end."""
        self._in_time_count = max(1.0, confirmed_at_most)
        self.too_late: list[TrackedExecution] = []
        self.waiting: dict[str, dict[TrackedExecution, PendingConfirmation]] = {}

    def add(self, entry: TrackedExecution) -> None:
        """Queue an execution for its GET, or add it to `too_late` if its first turn would come too late."""
        pending, pipeline = entry.unconfirmed_end, entry.known.pipeline
        assert pending is not None
        if pending.retry_at == NEVER_TRIED and self._turn_of_next(pipeline) > self._in_time_count:
            self.too_late.append(entry)
        else:
            self.waiting.setdefault(pipeline, {})[entry] = pending

    def first(self, now: Monotonic) -> TrackedExecution | None:
        """Return the execution to confirm next; `None` if none may be tried now."""
        waiting = (each for queue in self.waiting.values() for each in queue.items())
        return next((entry for entry, pending in waiting if pending.retry_at <= now), None)

    def take(self, entry: TrackedExecution) -> None:
        """Remove an execution. The next turn of its pipeline comes after those of all other pipelines."""
        queue = self.waiting.pop(entry.known.pipeline)
        del queue[entry]
        if queue:
            self.waiting[entry.known.pipeline] = queue

    def take_expired(self, now: Monotonic) -> list[TrackedExecution]:
        """Remove and return the executions that have waited for too long, or would have to."""
        waiting = (each for queue in self.waiting.values() for each in queue.items())
        expired = [entry for entry, pending in waiting if pending.expires_at <= now]
        for entry in expired:
            self.take(entry)
        too_late, self.too_late = self.too_late, []
        return too_late + expired

    def wanted_at(self) -> Monotonic:
        """Return when the first GET may be sent; infinity if no execution waits."""
        return min((each.retry_at for queue in self.waiting.values() for each in queue.values()), default=LATEST)

    def _turn_of_next(self, pipeline: str) -> int:
        """Return the turn that an execution of this pipeline would get now: 1 is the next GET."""
        rank = len(self.waiting.get(pipeline, ())) + 1
        return rank + sum(min(rank, len(queue)) for other, queue in self.waiting.items() if other != pipeline)


class PollQueue:
    """The executions and lists that wait for a request: in one heap until they are due, and then in another.

    There is a heap of due items for each kind and weight, sorted by the time of the last request. Late items, whose
    last request was `max_interval_s` ago, therefore come first in their heap. Lists whose scan has begun have a heap of
    their own.

    An item that was taken belongs to its request until it is put back. An item that was moved or taken stays in its old
    heap until it comes first there. Its number then shows that this entry is outdated.
    """

    def __init__(self, rules: PollRules) -> None:
        self.confirmations = ConfirmationQueue(rules.confirmed_at_most)
        self._max_interval_s = rules.max_interval_s
        self._waiting: Heap = []  # by `due_at`
        self._due: dict[tuple[QueueKind, float], Heap] = {}  # of each kind and weight, by `asked_at`
        self._begun: Heap = []  # by `due_at`
        self._put_count = 0
        self._scan_went = False
        self._stale_went = False
        self._confirmation_went = False

    def put(self, item: PollItem, *, due_at: Monotonic, queue: QueueKind = QueueKind.DUE) -> None:
        """Queue an item, or move it if it is queued.

        A `STALE` item takes turns with items that are due, but not before `due_at`. For a scan that has `BEGUN`,
        `due_at` is when its last page was requested.
        """
        number = self._put_count = self._put_count + 1
        item.due_at, item.queue, item.number, item.is_queued = due_at, queue, number, True
        heapq.heappush(self._begun if queue is QueueKind.BEGUN else self._waiting, (due_at, number, item))

    def put_first(self, item: PollItem, *, now: Monotonic) -> None:
        """Queue an item, or move it, ahead of all others that are due."""
        item.asked_at = EARLIEST
        self.put(item, due_at=now)

    def take(self, *items: PollItem) -> None:
        """Remove items, due or not."""
        for item in items:
            item.is_queued = False

    def next(self, now: Monotonic) -> PollItem | None:
        """Take out the item that is polled next, if one is due.

        GETs that confirm ends get every second turn while other requests wait, and so do the next pages of scans. Late
        items come next: first the one with the longest time since its last request, multiplied by its weight. The other
        turns alternate between due and stale items. No kind of request can therefore starve another: failures cannot
        delay lists, a long scan cannot delay other pipelines, and named executions cannot delay pipelines watched
        whole. A change here changes `plan_account` in watcher/cli/check/plan.py, too.
        """
        waiting, confirmations = self._waiting, self.confirmations
        while waiting and waiting[0][0] <= now:
            _, number, item = heapq.heappop(waiting)
            if item.is_queued and item.number == number:
                due = self._due.setdefault((item.queue, item.weight), [])
                heapq.heappush(due, (item.asked_at, number, item))
        first: PollItem | None = None
        begun: PollItem | None = None
        rank = (False, False, 0.0)
        for head in self.heads():
            if head.queue is QueueKind.BEGUN:
                begun = head
            elif head.due_at <= now:
                asked_s = now - head.asked_at
                is_late = asked_s >= self._max_interval_s
                has_turn = not is_late and (head.queue is QueueKind.STALE) is not self._stale_went
                if first is None or (is_late, has_turn, head.weight * asked_s) > rank:
                    first, rank = head, (is_late, has_turn, head.weight * asked_s)
        if begun is not None and (first is None or not self._scan_went):
            first = begun
        confirmable = confirmations.first(now) if confirmations.waiting else None
        self._confirmation_went = confirmable is not None and (first is None or not self._confirmation_went)
        if confirmable is not None and self._confirmation_went:
            confirmations.take(confirmable)
            return confirmable
        return None if first is None else self._take_out(first)

    def probe(self, target: PollItem | None) -> PollItem | None:
        """Take out the item to probe an unusable account with: `target`, which succeeded last, else any item."""
        item = target if target is not None and target.is_queued else min(self.heads(), key=BY_DUE_AT, default=None)
        return None if item is None else self._take_out(item)

    def late_s(self, item: PollItem, now: Monotonic) -> float:
        """Return for how many seconds an item that was taken out has been due; 0 for one whose end is to be confirmed.

        The lateness of a stale item is counted from `max_interval_s` after its last request.
        """
        if isinstance(item, TrackedExecution) and item.unconfirmed_end is not None:
            return 0.0
        is_stale = item.queue is QueueKind.STALE
        late_at = max(item.due_at, item.asked_at + self._max_interval_s) if is_stale else item.due_at
        return max(0.0, now - late_at)

    def _take_out(self, item: PollItem) -> PollItem:
        self._scan_went = item.queue is QueueKind.BEGUN
        if not self._scan_went:
            self._stale_went = item.queue is QueueKind.STALE
        item.is_queued = False
        return item

    def next_at(self) -> Monotonic:
        """Return when the next item is due; infinity without any."""
        heads = self.heads()
        return min(heads, key=BY_DUE_AT).due_at if heads else LATEST

    def heads(self) -> list[PollItem]:
        """Return the first item of each heap, due or not. Drop outdated entries."""
        found: list[PollItem] = []
        for heap in (self._waiting, self._begun, *self._due.values()):
            while heap and not (heap[0][2].is_queued and heap[0][2].number == heap[0][1]):
                heapq.heappop(heap)
            if heap:
                found.append(heap[0][2])
        return found
