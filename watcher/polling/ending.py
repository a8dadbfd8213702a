"""Whether the end of a scan is believed: a list may be empty, or end too early, for once. No I/O."""

from dataclasses import replace

from watcher.domain.models import GapReason
from watcher.polling.pagination.arrival_baseline import SETTLED_AFTER_US
from watcher.polling.pagination.result import Finding
from watcher.polling.pipeline_list import Doubt, Listing


class Ending:
    """Judges how the scans of one account's lists end."""

    def __init__(self, *, lost_after: int, lost_grace_s: float) -> None:
        """Believe what was seen so often in a row, and for so long where it is a gap."""
        self._lost_after = lost_after
        self._lost_grace_s = lost_grace_s

    def ends_early(self, listing: Listing, finding: Finding) -> bool:
        """Tell whether a scan ended before anything known, or before all was seen that should be there."""
        return finding.gap is GapReason.DELETED or listing.scan.is_cut_short

    def believed(self, listing: Listing, finding: Finding, *, now_s: float) -> Finding | None:
        """Return what it means that a scan ended early, once it did so often enough; until then it is made anew.

        `now_s` is for how long the process ran.
        """
        doubt = listing.doubt or Doubt(0, now_s, is_explained=self._is_explained(listing))
        listing.doubt = doubt = replace(doubt, count=doubt.count + 1)
        grace_s = SETTLED_AFTER_US / 1_000_000 if finding.gap is None else self._lost_grace_s
        if doubt.count < self._lost_after or now_s - doubt.since_s < grace_s:
            return None
        return Finding() if doubt.is_explained else finding

    def _is_explained(self, listing: Listing) -> bool:
        """Tell whether all that is gone was known, and only grew too old.

        A list that is no shorter than before is another matter: it may keep so many rows, however young the others.
        """
        if not listing.scan.is_shorter:
            return False
        return listing.kept.explain_emptiness(since=listing.cursor.complete_at, now=listing.began_at)

    def with_unproven(self, listing: Listing, finding: Finding, *, now: int) -> Finding:
        """Return a gap where ends showed of which nobody can tell whether they are new; `now` is microseconds."""
        unproven = listing.beginning.compare(watched_us=now - listing.cursor.since_at)
        return Finding(GapReason.UNORDERED, unproven) if unproven and finding.gap is None else finding

    def proves_empty(self, listing: Listing, *, now: int) -> bool:
        """Tell whether a list that showed nothing yet did so often enough to believe that there was nothing."""
        beginning = listing.beginning
        if listing.shows_any or listing.cursor.found or listing.cursor.newest_at is not None:
            beginning.empty_count = 0
            return False
        beginning.note_empty(at=now)
        return beginning.is_empty(after=self._lost_after, at=now)
