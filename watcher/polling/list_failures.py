"""What it means that a list cannot be read, or ends too early, and what is written of a list: its cursor, its gaps."""

from dataclasses import replace
from typing import NamedTuple

import structlog

from watcher.clerk.protocol import PageReply
from watcher.domain.models import Cursor, GapReason, LostReason, OutboxEntry
from watcher.domain.transitions import EXECUTION_REASONS
from watcher.polling.pagination.arrival_baseline import SETTLED_AFTER_US
from watcher.polling.pagination.result import TraversalResult
from watcher.polling.pipeline_list import EarlyEnd, PipelineListState
from watcher.polling.policy import AccountState
from watcher.polling.poll_queue import QueueKind
from watcher.polling.registry import ExecutionRegistry
from watcher.polling.session import AccountDependencies, AccountSession
from watcher.store.protocol import PipelineChange

log = structlog.get_logger()


class Step(NamedTuple):
    """What is next for a list, so many seconds after it was asked for: why it waits then is what `queue` says."""

    queue: QueueKind
    wait_s: float = 0.0


class Cursors:
    """The cursors of one account's pipelines in its store."""

    def __init__(self, deps: AccountDependencies) -> None:
        """Write for this account."""
        self._lease = deps.lease
        self._evaluator = deps.evaluator
        self._clock = deps.clock
        self._metrics = deps.metrics
        self._store = deps.store

    async def record(
        self, listing: PipelineListState, cursor: Cursor, *, gap: GapReason | None = None, at_most: int | None = None
    ) -> None:
        """Write a cursor, and with it report a gap in which so many executions may be missing. Raises `StoreError`.

        Nothing is noted before that is written, and nothing is written of a list that is no longer watched.
        """
        if listing.unwatched:  # by now another may stand in its place, and counts from what is recorded
            return
        outgoing: tuple[OutboxEntry, ...] = ()
        if gap is not None:
            outgoing = (self._evaluator.gap(listing.watch, gap, at_most=at_most, after=listing.sequence),)
        sequence = listing.sequence + len(outgoing)
        change = PipelineChange(self._lease, listing.watch.pipeline, listing.sequence, sequence, cursor, outgoing)
        await self._store.record(change)
        listing.cursor, listing.sequence, listing.recorded_at = cursor, sequence, self._clock.steady_us()
        for each in outgoing:
            log.warning("pipeline.gap", account=self._lease.name, pipeline=listing.watch.pipeline, reason=gap)
            self._metrics.events.labels(each.event.type).inc()


class ListFailures:
    """Evaluates the failures of one account's lists."""

    def __init__(
        self, deps: AccountDependencies, *, session: AccountSession, registry: ExecutionRegistry, cursors: Cursors
    ) -> None:
        """Start with no list in trouble."""
        self._breaker = deps.breaker
        self._failures = deps.failures
        self._session = session
        self._registry = registry
        self._cursors = cursors

    async def failed(self, listing: PipelineListState, reply: PageReply, *, now: float) -> LostReason | None:
        """Take in a failure, and tell why the list is to be given up, if it is. Raises `StoreError`."""
        alone = self._registry.found_count == 0 and len(self._registry.listings) == 1
        around = AccountState(alone, self._session.success_at, not self._breaker.unusable)
        is_refused = listing.cursor.refused is not None
        reason = self._failures.note_failure(listing, reply, around)
        if is_refused and not listing.progress.began_at:  # it was before, so once more is enough
            reason = EXECUTION_REASONS.get(reply.outcome, reason)
        self._session.note_failure(reply, now=now, alone=alone, lost=is_refused)
        await self._session.report_answer(failed=True)
        return reason

    async def give_up(self, listing: PipelineListState, reason: LostReason | None, *, now: float) -> Step:
        """Report once, if there is a reason to give a list up, and let it rest. Raises `StoreError`."""
        if reason is not None and listing.cursor.refused is None:
            gap = GapReason(reason.value)
            await self._cursors.record(listing, replace(listing.cursor, refused=gap), gap=gap)
        return self.rests(listing, self._failures.wait_s(listing, reason, sent_at=listing.asked_at), now=now)

    def rests(self, listing: PipelineListState, wait_s: float, *, now: float) -> Step:
        """Let a list rest for so long: meanwhile it answers for nobody."""
        listing.failing_until = now + wait_s
        return Step(QueueKind.DUE, wait_s)

    def works(self, listing: PipelineListState) -> None:
        """Note that a list answered."""
        self._failures.note_success(listing)
        listing.failing_until = float("-inf")


class EndCheck:
    """Evaluates how the scans of one account's lists end."""

    def __init__(self, *, lost_after: int, lost_grace_s: float) -> None:
        """Believe what was seen so often in a row, and for so long where it is a gap."""
        self._lost_after = lost_after
        self._lost_grace_s = lost_grace_s

    def ends_early(self, listing: PipelineListState, result: TraversalResult) -> bool:
        """Tell whether a scan ended before anything known, or before all was seen that should be there."""
        return result.gap is GapReason.DELETED or listing.scan.is_cut_short

    def believed(self, listing: PipelineListState, result: TraversalResult, *, now_s: float) -> TraversalResult | None:
        """Return what it means that a scan ended early, once it did so often enough; until then it is made anew.

        `now_s` is for how long the process ran.
        """
        early_end = listing.baseline.early_end or EarlyEnd(0, now_s, is_explained=self._is_explained(listing))
        listing.baseline.early_end = early_end = replace(early_end, count=early_end.count + 1)
        grace_s = SETTLED_AFTER_US / 1_000_000 if result.gap is None else self._lost_grace_s
        if early_end.count < self._lost_after or now_s - early_end.since_s < grace_s:
            return None
        return TraversalResult() if early_end.is_explained else result

    def _is_explained(self, listing: PipelineListState) -> bool:
        """Tell whether all that is gone was known, and only grew too old.

        A list that is no shorter than before is another matter: it may keep so many rows, however young the others.
        """
        if not listing.scan.is_shorter:
            return False
        return listing.baseline.ages.explain_emptiness(since=listing.cursor.complete_at, now=listing.progress.began_at)

    def with_unproven(self, listing: PipelineListState, result: TraversalResult, *, now: int) -> TraversalResult:
        """Return a gap where ends showed of which nobody can tell whether they are new; `now` is microseconds."""
        unproven = listing.baseline.arrivals.compare(watched_us=now - listing.cursor.since_at)
        return TraversalResult(GapReason.UNORDERED, unproven) if unproven and result.gap is None else result

    def proves_empty(self, listing: PipelineListState, *, now: int) -> bool:
        """Tell whether a list that showed nothing yet did so often enough to believe that there was nothing."""
        arrivals = listing.baseline.arrivals
        if listing.progress.shows_any or listing.cursor.found or listing.cursor.newest_at is not None:
            arrivals.empty_count = 0
            return False
        if not arrivals.empty_count:
            arrivals.empty_from_at = now
        arrivals.empty_count += 1
        return arrivals.empty_count >= self._lost_after and now - arrivals.empty_from_at >= SETTLED_AFTER_US
