"""Begins and ends the scans of one account's lists, and writes what they prove: how far a list was read, and gaps.

What a page shows is the list poller's, what a failure means the list failures'.
"""

from dataclasses import replace

import structlog

from watcher.domain.event import GapReason, OutboxEntry
from watcher.domain.timestamps import NEVER, Micros
from watcher.domain.watch import Cursor, Watch
from watcher.polling.page_processor import ScanRules
from watcher.polling.pagination.arrival_baseline import SETTLED_AFTER_US, ApiClock
from watcher.polling.pagination.coverage import CarryOver, TraversalResult
from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.sort_order import Ordering
from watcher.polling.pagination.traversal import ListTraversal
from watcher.polling.pipeline_list import EarlyEnd, PipelineListState
from watcher.polling.pipeline_rules import AccountRules
from watcher.polling.session import AccountDependencies
from watcher.store.changes import PipelineChange
from watcher.store.records import PipelineRecord

CURSOR_EVERY_US = 60_000_000
"""The cursor of a pipeline in which nothing happens is written so often."""

EMITTED_ONCE = frozenset(
    {GapReason.NOT_FOUND, GapReason.REJECTED, GapReason.FORBIDDEN, GapReason.UNREADABLE, GapReason.UNORDERED}
)
"""What goes on, scan after scan, is reported once, until a scan was complete without it."""

log = structlog.get_logger()


class ListScans:
    """The scans of one account's lists, one after the other, and their cursors in the store."""

    def __init__(self, deps: AccountDependencies, rules: ScanRules, *, alert_rules: AccountRules) -> None:
        self._deps = deps
        self._rules = rules
        self._alert_rules = alert_rules
        self._clock = deps.clock

    async def begin(self, watch: Watch, record: PipelineRecord) -> PipelineListState:
        """Return the list of a pipeline as it is recorded, with its first scan.

        Since when it is watched is recorded before anything is asked: what has ended by then is history
        (`first_sight`), whenever that may be read. Raises `StoreError`.
        """
        cursor = record.cursor or Cursor(self._clock.steady_us())
        self._deps.evaluator.learn_name(watch.pipeline, cursor.name)
        scan, named = self._scan(cursor, CarryOver(Ordering(), Paging()), clock=ApiClock()), watch.name is not None
        stream = self._alert_rules.stream(watch.pipeline, sequence=record.sequence)
        listing = PipelineListState(watch, cursor, stream, scan, recorded_at=cursor.complete_at, named=named)
        if record.cursor is None:
            await self.record(listing, cursor)
        return listing

    def _scan(self, cursor: Cursor, carry_over: CarryOver, *, clock: ApiClock) -> ListTraversal:
        return ListTraversal(
            carry_over,
            clock=clock,
            cursor=cursor,
            lookback_us=self._rules.lookback_us,
            began_at=self._clock.steady_us(),
            pages_at_most=self._rules.pages_at_most,
        )

    async def record(
        self, listing: PipelineListState, cursor: Cursor, *, gap: GapReason | None = None, at_most: int | None = None
    ) -> None:
        """Write a cursor, and with it report a gap in which so many executions may be missing. Raises `StoreError`.

        Nothing is noted before that is written, and nothing is written of a list that is no longer watched.
        """
        stream, watch = listing.stream, listing.watch
        async with stream.writing:
            if listing.unwatched:  # by now another may have replaced it
                return
            entries: tuple[OutboxEntry, ...] = ()
            if gap is not None:
                entries = (self._deps.evaluator.gap(watch, gap, at_most=at_most, after=stream.sequence),)
            sequence = stream.sequence + len(entries)
            change = PipelineChange(self._deps.lease, watch.pipeline, stream.sequence, sequence, cursor, entries)
            await self._deps.store.record(change)
            stream.sequence = sequence
        listing.cursor, listing.recorded_at = cursor, self._clock.steady_us()
        for entry in entries:
            self._alert_rules.hold(watch.pipeline)
            log.warning("pipeline.gap", account=self._deps.lease.name, pipeline=watch.pipeline, reason=gap)
            self._deps.metrics.events.labels(entry.event.type).inc()

    async def end(self, listing: PipelineListState, result: TraversalResult, *, newest_at: Micros | None) -> None:
        """End a scan whose pages gave this result, or make it anew if it ended too early. Raises `StoreError`."""
        if result.gap is not GapReason.DELETED and not listing.scan.is_cut_short:  # it saw all that should be there
            await self.complete(listing, result, newest_at=newest_at)
            return
        scan, believed = listing.scan, self._believed(listing, result)
        if believed is None:
            listing.scan_again(self._scan(listing.cursor, scan.to_be_made_anew(), clock=scan.clock))
            return
        try:
            await self.complete(listing, believed)
        except BaseException:  # it could not be written: the list is read again, what was missing may be back
            listing.scan_again(self._scan(listing.cursor, scan.before, clock=scan.clock))
            raise

    async def complete(
        self, listing: PipelineListState, result: TraversalResult, *, newest_at: Micros | None = None
    ) -> None:
        """Move the cursor on. Where nothing was found the store need not know at once: an older one is as true."""
        now, arrivals, scan = self._clock.steady_us(), listing.arrivals, listing.scan
        result = self._with_unproven(listing, result, now=now)
        if self._proves_empty(listing, now=now):
            newest_at = NEVER
        cursor = Cursor(
            listing.cursor.since_at,
            complete_at=listing.progress.began_at,
            found=listing.progress.shows_any,
            name=self._deps.evaluator.pipeline_name(listing.watch.pipeline),
            newest_at=listing.cursor.newest_at if newest_at is None else newest_at,
        )
        gap = None if result.gap in listing.gaps_emitted else result.gap
        old = replace(listing.cursor, complete_at=cursor.complete_at)
        overdue = now - listing.recorded_at >= CURSOR_EVERY_US
        if listing.progress.found_count or gap or cursor != old or overdue:
            await self.record(listing, cursor, gap=gap, at_most=result.at_most)
        listing.cursor = cursor
        arrivals.unproven.clear()
        arrivals.is_counted |= scan.is_counted
        if result.gap is None:
            listing.gaps_emitted = frozenset()
        elif result.gap in EMITTED_ONCE:
            listing.gaps_emitted |= {result.gap}
        listing.scan_ended(self._scan(cursor, scan.carry_over(), clock=scan.clock))
        if not gap:
            is_proof = result.gap is None
            await self._alert_rules.scanned(listing.watch.pipeline, cursor.complete_at, proves_silence=is_proof)

    # What the end of a scan means

    def _believed(self, listing: PipelineListState, result: TraversalResult) -> TraversalResult | None:
        """Return what it means that a scan ended early, once it did so often enough; until then it is made anew.

        It is no gap where all that is gone was known, and only grew too old. A list that is no shorter than before is
        another matter: it may keep so many rows, however young the others.
        """
        early_end, now_s = listing.early_end, self._clock.running()
        if early_end is None:
            since, began_at = listing.cursor.complete_at, listing.progress.began_at
            is_explained = listing.scan.is_shorter and listing.ages.explain_emptiness(since=since, now=began_at)
            early_end = EarlyEnd(0, now_s, is_explained=is_explained)
        listing.early_end = early_end = replace(early_end, count=early_end.count + 1)
        grace_s = SETTLED_AFTER_US / 1_000_000 if result.gap is None else self._rules.lost_grace_s
        if early_end.count < self._rules.lost_after or now_s - early_end.since_s < grace_s:
            return None
        return TraversalResult() if early_end.is_explained else result

    def _with_unproven(self, listing: PipelineListState, result: TraversalResult, *, now: Micros) -> TraversalResult:
        """Return a gap where ends showed of which nobody knows whether they are new; `now` is microseconds."""
        unproven = listing.arrivals.compare(watched_us=now - listing.cursor.since_at)
        return TraversalResult(GapReason.UNORDERED, unproven) if unproven and result.gap is None else result

    def _proves_empty(self, listing: PipelineListState, *, now: Micros) -> bool:
        """Return whether a list that showed nothing yet did so often enough to believe that there was nothing."""
        arrivals = listing.arrivals
        if listing.progress.shows_any or listing.cursor.found or listing.cursor.newest_at is not None:
            arrivals.empty_count = 0
            return False
        if not arrivals.empty_count:
            arrivals.empty_from_at = now
        arrivals.empty_count += 1
        return arrivals.empty_count >= self._rules.lost_after and now - arrivals.empty_from_at >= SETTLED_AFTER_US
