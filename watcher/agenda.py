"""What one account may be asked for, in the order in which to ask. In memory, no clock of its own."""

import heapq
from dataclasses import dataclass

from watcher.claims import Claim
from watcher.models import Known, Watch
from watcher.places import Place
from watcher.transitions import Streak


@dataclass(slots=True, eq=False, kw_only=True)
class Item:
    """Something to ask for: an execution, or a pipeline's list. Times are monotonic seconds.

    `due_at` is the next request, or the moment from which one makes sense; `asked_at` was the last. `failure_count`
    counts poll errors in a row; `streak` is what may become a loss. `unwatched` is set while it is in flight and nobody
    wants to know any more. `stale` tells which heap it belongs to, `number` which of the heap's items is meant.
    """

    due_at: float = 0.0
    asked_at: float = 0.0
    failure_count: int = 0
    streak: Streak | None = None
    number: int = 0
    queued: bool = False
    stale: bool = False
    unwatched: bool = False


@dataclass(slots=True, eq=False)
class Entry(Item):
    """One open execution.

    `recorded` tells whether the store has it. `looked_at` is the end of the last look that counts (microseconds,
    steady), of which the store learns lazily. `unreadable_since` may become a loss. `place` is where a list showed it
    last; `claim` is a row that says it has ended; until `denied_until` no other such row is believed.
    """

    known: Known
    watch: Watch
    looked_at: int = 0
    recorded: bool = False
    unreadable_since: float | None = None
    place: Place | None = None
    claim: Claim | None = None
    denied_until: float = 0.0


class Agenda:
    """Two heaps of items: what is due, and what is only growing stale; the latter is due after `patience_s`.

    An item that is taken out is nobody else's until it is put back.
    """

    def __init__(self, *, patience_s: float = 0.0) -> None:
        """Start empty."""
        self._patience_s = patience_s
        self._due: list[tuple[float, int, Item]] = []
        self._stale: list[tuple[float, int, Item]] = []
        self._put_count = 0

    def put(self, item: Item, *, due_at: float) -> None:
        """Queue an item, or move it if it is queued already."""
        item.stale = False
        self._push(self._due, item, due_at)

    def put_stale(self, item: Item, *, from_at: float) -> None:
        """Queue an item, or move it, for when nothing is due, but not before `from_at`."""
        item.stale = True
        self._push(self._stale, item, from_at)

    def first(self, now: float) -> Item | None:
        """Return what is to be asked for now: what has been due longest, else what is stalest."""
        due, stale = _peek(self._due), _peek(self._stale)
        if due is not None and due.due_at <= now and (stale is None or due.due_at <= stale.due_at + self._patience_s):
            return due
        return stale if stale is not None and stale.due_at <= now else None

    def take(self, item: Item) -> None:
        """Take out this item, due or not."""
        item.queued = False

    def restore(self, item: Item) -> None:
        """Put back an item that was taken for nothing."""
        self._push(self._stale if item.stale else self._due, item, item.due_at)

    def peek(self) -> Item | None:
        """Return what may be asked for first, due or not."""
        return min(filter(None, (_peek(self._due), _peek(self._stale))), key=lambda item: item.due_at, default=None)

    def late_s(self, item: Item, now: float) -> float:
        """Return how late it is for an item that is taken now."""
        return max(0.0, now - item.due_at - (self._patience_s if item.stale else 0.0))

    def _push(self, heap: list[tuple[float, int, Item]], item: Item, at: float) -> None:
        self._put_count += 1
        item.due_at, item.number, item.queued = at, self._put_count, True
        heapq.heappush(heap, (at, self._put_count, item))


def _peek(heap: list[tuple[float, int, Item]]) -> Item | None:
    """Return the first item, dropping what was moved or taken."""
    while heap:
        _, number, item = heap[0]
        if item.queued and item.number == number:
            return item
        heapq.heappop(heap)
    return None
