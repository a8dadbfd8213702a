"""What one account may be asked for, in the order in which to ask. In memory, no clock of its own."""

import heapq
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

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
    weight: ClassVar[float] = 1.0
    """How many times as fast it grows stale."""

    number: int = 0
    queued: bool = False
    stale: bool = False
    unwatched: bool = False


@dataclass(slots=True, eq=False)
class Entry(Item):
    """One open execution.

    `recorded` tells whether the store has it. `looked_at` is the end of the last look that counts (microseconds,
    steady), of which the store learns lazily: not yet while it is `unflushed`. `unreadable_since` may become a loss.
    `place` is where a list showed it last; `claim` is a row that says it has ended; until `denied_until` no other such
    row is believed.
    """

    known: Known
    watch: Watch
    looked_at: int = 0
    unflushed: bool = False
    recorded: bool = False
    unreadable_since: float | None = None
    place: Place | None = None
    claim: Claim | None = None
    denied_until: float = 0.0


class Agenda:
    """Heaps of items: of what is due, and, by weight, of what is only growing stale; that is due after `patience_s`.

    An item that is taken out is nobody else's until it is put back.
    """

    def __init__(self, *, patience_s: float = 0.0) -> None:
        """Start empty."""
        self._patience_s = patience_s
        self._due: list[tuple[float, int, Item]] = []
        self._stale: defaultdict[float, list[tuple[float, int, Item]]] = defaultdict(list)
        self._put_count = 0

    def put(self, item: Item, *, due_at: float) -> None:
        """Queue an item, or move it if it is queued already."""
        item.stale = False
        self._push(self._due, item, due_at)

    def put_stale(self, item: Item, *, from_at: float) -> None:
        """Queue an item, or move it, for when nothing is due, but not before `from_at`."""
        item.stale = True
        self._push(self._stale[item.weight], item, from_at)

    def first(self, now: float) -> Item | None:
        """Return what is to be asked for now: what has been due longest, else what is stalest."""
        due, stale = _peek(self._due), self._stalest(now) if self._stale else None
        if due is not None and due.due_at <= now and (stale is None or due.due_at <= stale.due_at + self._patience_s):
            return due
        return stale if stale is not None and stale.due_at <= now else None

    def take(self, item: Item) -> None:
        """Take out this item, due or not."""
        item.queued = False

    def restore(self, item: Item) -> None:
        """Put back an item that was taken for nothing."""
        self._push(self._stale[item.weight] if item.stale else self._due, item, item.due_at)

    def peek(self) -> Item | None:
        """Return what may be asked for first, due or not."""
        heads = (_peek(heap) for heap in (self._due, *self._stale.values()))
        return min(filter(None, heads), key=_due_at, default=None)

    def late_s(self, item: Item, now: float) -> float:
        """Return how late it is for an item that is taken now."""
        return max(0.0, now - item.due_at - (self._patience_s if item.stale else 0.0))

    def _stalest(self, now: float) -> Item | None:
        """Return what has grown stalest by its weight, or, once something has waited too long, the longest."""
        heads = [item for heap in self._stale.values() if (item := _peek(heap)) is not None]
        longest = min(heads, key=_due_at, default=None)
        if longest is None or longest.due_at + self._patience_s <= now:
            return longest
        return max(heads, key=lambda item: item.weight * (now - item.due_at))

    def _push(self, heap: list[tuple[float, int, Item]], item: Item, at: float) -> None:
        self._put_count += 1
        item.due_at, item.number, item.queued = at, self._put_count, True
        heapq.heappush(heap, (at, self._put_count, item))


def _due_at(item: Item) -> float:
    return item.due_at


def _peek(heap: list[tuple[float, int, Item]]) -> Item | None:
    """Return the first item, dropping what was moved or taken."""
    while heap:
        _, number, item = heap[0]
        if item.queued and item.number == number:
            return item
        heapq.heappop(heap)
    return None
