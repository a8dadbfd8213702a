"""Whose turn it is: which request goes out next, within what an account may be asked. Decides; sends nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from watcher.agenda import Agenda, Entry, Item
from watcher.claims import Confirmations
from watcher.listing import Listing
from watcher.roster import Roster


class GetTurn(NamedTuple):
    """One execution is to be fetched."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class ListTurn:
    """One page of a list is to be fetched; `entries` are taken out of the agenda until its answer is judged.

    `scans` marks a step of the list's scan.
    """

    listing: Listing
    page: int
    entries: Sequence[Entry]
    scans: bool


Turn = GetTurn | ListTurn


class Turns:
    """Hands out turns: claims to be confirmed, what is due by lateness, then what is stalest."""

    def __init__(self, agenda: Agenda, roster: Roster, claims: Confirmations[Entry]) -> None:
        """Take everything from there."""
        self._agenda = agenda
        self._roster = roster
        self._claims = claims

    def wanted_at(self) -> float | None:
        """Return the monotonic time of the next turn, `None` if nothing waits for one."""
        first = self._agenda.peek()
        at = min(self._claims.wanted_at(), float("inf") if first is None else first.due_at)
        return None if at == float("inf") else at

    def next(self, now: float) -> Turn | None:
        """Return the turn that is next, if there is one, taking what it is about out of the agenda."""
        first = self._agenda.first(now)
        confirmed = self._claims.take(now, other_wants=first is not None)
        if confirmed is not None:
            return GetTurn(confirmed)
        return None if first is None else self._turn(first, now=now)

    def probe(self, witness: Item | None, *, now: float) -> Turn | None:
        """Return the one request of a degraded account: what last succeeded, else any."""
        item = witness if witness is not None and witness.queued else self._agenda.peek()
        if isinstance(item, Entry):
            self._agenda.take(item)
            return GetTurn(item)
        return None if item is None else self._turn(item, now=now)

    def _turn(self, item: Item, *, now: float) -> Turn:
        if isinstance(item, Listing):
            return self._list_turn(item, page=item.scan.page)
        assert isinstance(item, Entry)  # noqa: S101 (there is no third kind)
        listing = self._roster.listing_of(item)
        if listing is not None and item.place is not None and listing.failing_until <= now:
            page = listing.places.page_of(item.place)
            wanted = (listing,) if page == listing.scan.page else ()
            if sum(each.queued and each.due_at <= now for each in (*listing.on_page(page), *wanted)) > 1:
                return self._list_turn(listing, page=page)
        self._agenda.take(item)
        return GetTurn(item)

    def _list_turn(self, listing: Listing, *, page: int) -> ListTurn:
        """Take out who should be on that page, and the list itself if its scan wants the page: nobody else asks."""
        entries = [entry for entry in listing.on_page(page) if entry.queued]
        scans = listing.queued and page == listing.scan.page
        for item in (*entries, listing) if scans else entries:
            self._agenda.take(item)
        return ListTurn(listing, page, entries, scans)
