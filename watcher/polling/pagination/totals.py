"""How many rows a list has: by what the API says, page by page, and by what was seen. Pure; knows no page."""

from dataclasses import dataclass

DISTRUSTED_SCANS = 8
DISTRUSTED_SCANS_AT_MOST = 1024


@dataclass(frozen=True, slots=True)
class TotalTrust:
    """Whether the `total` that the API says is believed.

    Each time it is found untrue, for all of the list was read and was shorter, it is ignored for `pause` scans, twice
    as many as the last time; `scans_left` of them are still to come. It is not ignored for good: a row that moves to a
    page that was already read shows the same. A total that is far from true is ignored for the longest time at once.
    """

    scans_left: int = 0
    pause: int = 0

    @property
    def holds(self) -> bool:
        """Whether it is believed now."""
        return not self.scans_left

    def after(self, *, is_untrue: bool, is_far: bool = False) -> "TotalTrust":
        """Return what holds after one more scan. `is_far`: it was far from true."""
        if is_far:
            return TotalTrust(DISTRUSTED_SCANS_AT_MOST, DISTRUSTED_SCANS_AT_MOST)
        if is_untrue:
            pause = min(DISTRUSTED_SCANS_AT_MOST, max(DISTRUSTED_SCANS, 2 * self.pause))
            return TotalTrust(pause, pause)
        return TotalTrust(max(0, self.scans_left - 1), self.pause)


class Totals:
    """What is said in one scan, and how far it is believed.

    `before` is how many the list had when the last complete scan ended, or the one before that: what is said once may
    be untrue. `accepted` is how many it has: newest first what the first page says, or what is seen where that says it
    all; oldest first what must be there. `now` is what was said last, be it out of turn.
    It `is_untrue` once all of the list was read and had fewer.
    """

    def __init__(self, *before: int | None, trusted: bool) -> None:
        self.before = max((each for each in before if each is not None), default=None)
        self.trusted = self._was_trusted = trusted
        self.accepted: int | None = None
        self.is_untrue = False
        self._moved_count: int | None = None  # all that are known, where it seems untrue but rows may only have moved
        self.now: int | None = None
        self._most = 0  # that was said
        self._first = 0  # as it was first said by a page with rows
        self._begun: int | None = None  # by the page from which all others are read one after the other

    def hear(self, total: int | None, *, row_count: int) -> None:
        """Take in what a page says that has so many rows."""
        self.now, self._most = total, max(total or 0, self._most)
        self._first = self._first or (total or 0 if row_count else 0)

    def begin(self, accepted: int | None) -> None:
        """Note that the page that was heard last is the first that is evaluated, and how many rows that makes."""
        self.accepted, self._begun = accepted, self.now

    def expected(self, *, counts_before: bool) -> int:
        """Return how many rows the list has: by what it said first and, if that counts, what it had before.

        What came since may be on pages that were read before.
        """
        said = self._first if self.trusted else 0
        return max(said, (self.before or 0) if self.trusted or counts_before else 0)

    def says_more_than(self, length: int) -> bool:
        """Return whether any page said that there are more rows than so many."""
        return self.trusted and self._most > length

    def says_now_more_than(self, length: int) -> bool:
        """Return whether the last page did."""
        return self.trusted and self.now is not None and self.now > length

    def counts(self, seen_count: int, *, is_ordered: bool) -> bool:
        """Return whether as many rows were seen as were said to be there, no more and no fewer.

        In a list that `is_ordered` that is what the page says from which it is read: what comes later is not met.
        """
        said = self._begun if is_ordered else self._most
        return self.trusted and 0 < (said or 0) == seen_count

    def is_shorter(self, seen_count: int) -> bool:
        """Return whether a list that was read to its end is known to have fewer rows than before."""
        if self.before is None or seen_count >= self.before:
            return False
        return self.now is None or not self.trusted or self.now < self.before

    def unread(self, seen_count: int) -> int | None:
        """Return how many rows are said to be there that were not seen, `None` if nobody knows."""
        left = (self.now or 0) - seen_count
        return left if self.trusted and left > 0 else None

    def missing(self, *, new_count: int, is_backward: bool) -> int:
        """Return by how much it grew beyond what was found: something may have come to be seen further down.

        What a page says of it that is read later counts as well: an untrue word is not repeated.
        """
        if not self.trusted or self.accepted is None or self.before is None:
            return 0
        said = self.accepted if is_backward or self.now is None else min(self.accepted, self.now)
        return max(0, said - self.before - new_count)

    def read_all(self, seen_count: int, *, known_count: int, page_rows: int) -> None:
        """Take in that all of the list was read for what it says it has: it may have fewer rows than that.

        Of no more than a page of them it may be that they moved while it was read, and come next: then the list has
        what scans have seen, `known_count`.
        """
        unseen_count = (self.accepted or 0) - seen_count
        self.is_untrue = unseen_count > 0
        self.trusted = not self.is_untrue
        if 0 < unseen_count <= page_rows:
            self._moved_count = known_count

    def left(self, *, new_count: int, seen_count: int | None) -> int | None:
        """Return how many rows the list has once a scan is complete; `seen_count`, if that read all of it.

        While nothing that is said is believed, only what was found counts: the rest is searched for once it is again.
        """
        if self._moved_count is not None:
            return self._moved_count
        if seen_count is not None or self._was_trusted or self.before is None:
            return seen_count if self.accepted is None else self.accepted
        found = self.before + new_count
        return found if self.accepted is None else min(self.accepted, found)

    def leave_missing(self, *, new_count: int) -> None:
        """Count only what was found: the rest was searched for as far as may be."""
        if self.before is not None:
            self.accepted = self.before + new_count

    def count_arrivals(self, *, new_count: int) -> None:
        """Count what came, and was found, after the first page said how many there are."""
        if self.accepted is not None and self.before is not None:
            self.accepted = max(self.accepted, self.before + new_count)
