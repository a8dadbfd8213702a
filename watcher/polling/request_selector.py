"""Whose turn it is: which request goes out next, within what an account may be asked. Decides; sends nothing.

Confirmations, then the next pages of scans under way, take every second turn while anything else wants one. The rest
goes to what is late, and then by turns to what is due and to what has grown stalest. So nothing can starve the rest: no
storm of failures the lists, no deep scan the other pipelines, no named executions those that are watched whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from watcher.polling.confirmations import Confirmations
from watcher.polling.pipeline_list import Listing
from watcher.polling.poll_queue import Agenda, Entry, Item, Queue
from watcher.polling.registry import Roster


class GetTurn(NamedTuple):
    """One execution is to be fetched, so many seconds after it should have been."""

    entry: Entry
    late_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ListTurn:
    """One page of a list is to be fetched; `entries` are taken out of the agenda until its answer is judged.

    `scans` marks a step of the list's scan, `late_s` is as for a `GetTurn`.
    """

    listing: Listing
    page: int
    entries: Sequence[Entry]
    scans: bool
    late_s: float = 0.0


Turn = GetTurn | ListTurn


OneT = TypeVar("OneT")
OtherT = TypeVar("OtherT")


class ByTurns(Generic[OneT, OtherT]):
    """Which of two goes next where both want to: the one that did not go last. `one_went` says who did."""

    def __init__(self) -> None:
        """Let the one go first."""
        self.one_went = False

    def choose(self, one: OneT | None, other: OtherT | None) -> OneT | OtherT | None:
        """Return who goes next; who then goes is noted in `one_went`."""
        if one is None or (self.one_went and other is not None):
            return other
        return one


class Turns:
    """Hands out turns."""

    def __init__(self, agenda: Agenda, roster: Roster, claims: Confirmations) -> None:
        """Take everything from there."""
        self._agenda = agenda
        self._roster = roster
        self._claims = claims
        self._confirming = ByTurns[Entry, Item]()
        self._scanning = ByTurns[Item, Item]()
        self._growing_stale = ByTurns[Item, Item]()

    def wanted_at(self) -> float | None:
        """Return the monotonic time of the next turn, `None` if nothing waits for one."""
        first = self._agenda.peek()
        at = min(self._claims.wanted_at(), float("inf") if first is None else first.due_at)
        return None if at == float("inf") else at

    def next(self, now: float) -> Turn | None:
        """Return the turn that is next, if there is one, taking what it is about out of the agenda."""
        claimed, other = self._claims.first(now), self._next_item(now)
        confirms = claimed is not None and self._confirming.choose(claimed, other) is claimed
        self._confirming.one_went = confirms
        if claimed is not None and confirms:
            self._claims.take(claimed)
            return GetTurn(claimed)
        return None if other is None else self._turn(self._went(other), now=now)

    def _next_item(self, now: float) -> Item | None:
        ready = self._agenda.ready(now)
        waiting = self._waiting(ready, now) if len(ready) > 1 else next(iter(ready), None)
        return self._scanning.choose(self._agenda.begun(), waiting)

    def _waiting(self, ready: Sequence[Item], now: float) -> Item | None:
        late = self._agenda.late(ready, now)
        if late is not None:
            return late
        return self._growing_stale.choose(self._agenda.stalest(ready, now), self._agenda.due(ready))

    def _went(self, item: Item) -> Item:
        self._scanning.one_went = item.queue is Queue.BEGUN
        if item.queue is not Queue.BEGUN:
            self._growing_stale.one_went = item.queue is Queue.STALE
        return item

    def probe(self, witness: Item | None, *, now: float) -> Turn | None:
        """Return the one request of a degraded account: what last succeeded, else any."""
        item = witness if witness is not None and witness.queued else self._agenda.peek()
        if isinstance(item, Entry):
            return self._get_turn(item, now=now)
        return None if item is None else self._turn(item, now=now)

    def _turn(self, item: Item, *, now: float) -> Turn:
        if isinstance(item, Listing):
            return self._scan_turn(item, late_s=self._agenda.late_s(item, now), now=now)
        assert isinstance(item, Entry)  # noqa: S101 (there is no third kind)
        listing = self._roster.listing_of(item)
        page = None if listing is None else listing.rows.layout.page_of(item, at=now)
        if listing is not None and page is not None and listing.failing_until <= now:
            shown, scanned = listing.rows.layout.on_page(page, at=now), (listing,) if page == listing.scan.page else ()
            if sum(each.queued and each.due_at <= now for each in (*shown, *scanned)) > 1:
                return self._list_turn(listing, page=page, late_s=self._agenda.late_s(item, now), now=now)
        return self._get_turn(item, now=now)

    def _scan_turn(self, listing: Listing, *, late_s: float, now: float) -> ListTurn:
        """Return the next page of a scan; of a deep one now and then that of the newest rows, while it waits on."""
        head = listing.head_due()
        if head is None:
            return self._list_turn(listing, page=listing.scan.page, late_s=late_s, now=now)
        listing.progress.depth = 0
        return self._list_turn(listing, page=head, late_s=late_s, now=now)

    def _get_turn(self, entry: Entry, *, now: float) -> GetTurn:
        self._agenda.take(entry)
        return GetTurn(entry, self._agenda.late_s(entry, now))

    def _list_turn(self, listing: Listing, *, page: int, late_s: float, now: float) -> ListTurn:
        """Take out who should be on that page, and the list itself if its scan wants the page: nobody else asks."""
        entries = [entry for entry in listing.rows.layout.on_page(page, at=now) if entry.queued]
        scans = listing.queued and page == listing.scan.page
        for item in (*entries, listing) if scans else entries:
            self._agenda.take(item)
        return ListTurn(listing, page, entries, scans, late_s)
