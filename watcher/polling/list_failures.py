"""What a list that cannot be read means: for its account, for its next request, and when that is a gap."""

from dataclasses import replace
from typing import NamedTuple

from watcher.clerk.protocol import PageReply
from watcher.domain.models import GapReason
from watcher.domain.transitions import EXECUTION_REASONS, grace_left_s, means_lost, prolong
from watcher.polling.circuit_breaker import PAUSING_CODES
from watcher.polling.cursors import Cursors
from watcher.polling.evaluator import UNREADABLE_AFTER_S
from watcher.polling.page_processor import ScanRules
from watcher.polling.pipeline_list import Listing
from watcher.polling.poll_queue import Queue
from watcher.polling.registry import Roster
from watcher.polling.session import AccountParts, AccountSession
from watcher.runtime.backoff import doubling

REFUSED_EVERY_S = 600.0
"""A list that is refused is asked again so often (SPEC 4)."""


class Step(NamedTuple):
    """What is next for a list, so many seconds after it was asked for: why it waits then is what `queue` says."""

    queue: Queue
    wait_s: float = 0.0


class ListTrouble:
    """Judges the failures of one account's lists."""

    def __init__(
        self, parts: AccountParts, rules: ScanRules, *, session: AccountSession, roster: Roster, cursors: Cursors
    ) -> None:
        """Start with no list in trouble."""
        self._clock = parts.clock
        self._health = parts.health
        self._rules = rules
        self._session = session
        self._roster = roster
        self._cursors = cursors

    async def failed(self, listing: Listing, reply: PageReply, *, now: float) -> GapReason | None:
        """Take in a failure, and tell why the list is to be given up, if it is. Raises `StoreError`."""
        if not self._health.unusable and reply.status_code not in PAUSING_CODES:
            listing.failure_count += 1
        if listing.failing_since is None:
            listing.failing_since, listing.failing_ran_s = now, self._clock.running()
        alone = self._roster.found_count == 0 and len(self._roster.listings) == 1
        reason = self._gap_for(listing, reply, alone=alone, now=now)
        self._session.note_failure(reply, now=now, alone=alone, lost=listing.cursor.refused is not None)
        await self._session.report_answer(failed=True)
        return reason

    async def give_up(self, listing: Listing, reason: GapReason | None, *, now: float) -> Step:
        """Tell once, if there is a reason to give a list up, and let it rest. Raises `StoreError`."""
        if reason is not None and listing.cursor.refused is None:
            await self._cursors.record(listing, replace(listing.cursor, refused=reason), gap=reason)
        wait_s = self._wait_s(listing) if reason in {None, GapReason.UNREADABLE} else REFUSED_EVERY_S
        return self.rests(listing, wait_s, now=now)

    def rests(self, listing: Listing, wait_s: float, *, now: float) -> Step:
        """Let a list rest for so long: meanwhile it answers for nobody."""
        listing.failing_until = now + wait_s
        return Step(Queue.DUE, wait_s)

    def works(self, listing: Listing) -> None:
        """Note that a list answered."""
        listing.failure_count, listing.streak, listing.failing_since = 0, None, None
        listing.failing_until = float("-inf")

    def _gap_for(self, listing: Listing, reply: PageReply, *, alone: bool, now: float) -> GapReason | None:
        """Return why the list is given up for now: refused again and again, or never read while others were."""
        reason, other_at = EXECUTION_REASONS.get(reply.outcome), self._session.success_at
        listing.streak = None if reason is None else prolong(listing.streak, reason, at=now, other_success_at=other_at)
        if listing.streak is None:
            return GapReason.UNREADABLE if self._is_unreadable(listing, other_at) else None
        rules, known = self._rules, listing.cursor.refused is not None and not listing.began_at
        if known or means_lost(
            listing.streak, lost_after=rules.lost_after, lost_grace_s=rules.lost_grace_s, alone=alone
        ):
            return GapReason(listing.streak.reason.value)
        return None

    def _is_unreadable(self, listing: Listing, other_at: float | None) -> bool:
        """Tell whether it could not be read for an hour, while the process ran, in which something else could."""
        since = listing.failing_since
        if since is None or other_at is None:
            return False
        return other_at >= since and self._clock.running() - listing.failing_ran_s >= UNREADABLE_AFTER_S

    def _wait_s(self, listing: Listing) -> float:
        """Return how long to wait after a failure: ever longer, but no longer than until it can mean a gap."""
        count, rules = max(1, listing.failure_count), self._rules
        left_s = grace_left_s(
            listing.streak,
            lost_after=rules.lost_after,
            lost_grace_s=rules.lost_grace_s,
            sent_at=listing.asked_at,
        )
        wait_s = doubling(count, base_s=rules.min_interval_s, cap_s=rules.max_interval_s)
        return min(wait_s, max(left_s, rules.min_interval_s))
