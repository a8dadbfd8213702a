"""Asks for the lists of pipelines watched whole, and says when they cannot prove that everything was seen.

Which page is next is the scan's, when it is asked for `turns`', what its rows lead to the rows'.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import structlog

from watcher.clerk.protocol import PageReply
from watcher.domain.models import Cursor, Execution, GapReason, Known, Outcome, Watch
from watcher.polling.list_failures import Cursors, Ending, ListTrouble, Step
from watcher.polling.page_processor import Rows, ScanRules, by_id, raise_worst
from watcher.polling.pagination.api_clock import ApiClock
from watcher.polling.pagination.paging import Paging
from watcher.polling.pagination.result import Finding, Learnt
from watcher.polling.pagination.sort_order import Ordering
from watcher.polling.pagination.traversal import Scan
from watcher.polling.pipeline_list import HEAD_EVERY_PAGES, Listing
from watcher.polling.poll_queue import Agenda, Entry, Queue
from watcher.polling.registry import Roster
from watcher.polling.request_selector import ListTurn
from watcher.polling.session import AccountParts, AccountSession
from watcher.store.protocol import ExecutionChange, PipelineRecord

CURSOR_EVERY_US = 60_000_000
"""The cursor of a pipeline in which nothing happens is written so often."""

log = structlog.get_logger()

TOLD_ONCE = frozenset(
    {GapReason.NOT_FOUND, GapReason.REJECTED, GapReason.FORBIDDEN, GapReason.UNREADABLE, GapReason.UNORDERED}
)
"""What goes on, scan after scan, is told once, until a scan was complete without it."""

BEYOND_THE_END = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})
"""How an API may answer for a page that its list does not have."""


class Scanner:
    """Asks for pages, one request after the other, and keeps the cursors of the account's pipelines."""

    def __init__(
        self,
        parts: AccountParts,
        rules: ScanRules,
        *,
        session: AccountSession,
        roster: Roster,
        agenda: Agenda,
        rows: Rows,
    ) -> None:
        """Start with nothing under way."""
        self._parts = parts
        self._rules = rules
        self._session = session
        self._roster = roster
        self._agenda = agenda
        self._rows = rows
        self._cursors = Cursors(parts, session=session)
        self._trouble = ListTrouble(parts, session=session, roster=roster, cursors=self._cursors)
        self._ending = Ending(lost_after=rules.lost_after, lost_grace_s=rules.lost_grace_s)
        self._clock = parts.clock
        self._at_rest = Step(Queue.STALE, rules.min_interval_s)  # where nothing is left to do

    async def listing(self, watch: Watch, record: PipelineRecord) -> Listing:
        """Return the list of a pipeline as it is recorded, with its first scan.

        Since when it is watched is recorded before anything is asked: what has ended by then is history (SPEC 3,
        `first_sight`), whenever that may be read. Raises `StoreError`.
        """
        cursor = record.cursor or Cursor(self._clock.steady_us())
        self._parts.judge.learn_name(watch.pipeline, cursor.name)
        scan, named = self._scan(cursor, Learnt(Ordering(), Paging()), clock=ApiClock()), watch.name is not None
        listing = Listing(watch, cursor, record.sequence, scan, recorded_at=cursor.complete_at, named=named)
        if record.cursor is None:
            await self._cursors.record(listing, cursor)
        return listing

    def _scan(self, cursor: Cursor, learnt: Learnt, *, clock: ApiClock) -> Scan:
        """Return a scan that goes on from what the last one of this process learnt."""
        return Scan(
            learnt,
            clock=clock,
            cursor=cursor,
            lookback_us=self._rules.lookback_us,
            began_at=self._clock.steady_us(),
            pages_at_most=self._rules.pages_at_most,
        )

    async def ask(self, turn: ListTurn) -> None:
        """Ask for a page and do what it calls for; then everything of this turn is back in the agenda."""
        listing, left = turn.listing, {entry.known.execution: entry for entry in turn.entries}
        step = self._at_rest
        try:
            step = await self._session.guard(
                self._ask(turn, left=left),
                instead=lambda wait_s: self._trouble.rests(listing, wait_s, now=self._clock.monotonic()),
            )
        finally:
            for entry in left.values():
                self._roster.restore(entry)
            if turn.scans and not listing.unwatched:
                self._put_back(listing, step)

    # One page

    async def _ask(self, turn: ListTurn, *, left: dict[str, Entry]) -> Step:
        listing = turn.listing
        if turn.scans and listing.nameless is not None:
            return await self._ask_name(turn, *listing.nameless, left=left)
        reply = await self._parts.api.list(pipeline=listing.watch.pipeline, page=turn.page)
        now = self._clock.monotonic()
        self._parts.metrics.listed(reply.outcome, now - reply.sent_at)
        if reply.rows is None and self._is_beyond_the_end(turn, reply):
            return await self._read(turn, reply, (), left=left)
        if reply.rows is None:
            return await self._fail(turn, reply, now=now)
        self._session.note_success(listing, reply, now=now)
        await self._session.report_answer(failed=False)
        if turn.scans:
            self._trouble.works(listing)
        if listing.unwatched:
            return self._at_rest
        return await self._read(turn, reply, reply.rows, left=left)

    def _is_beyond_the_end(self, turn: ListTurn, reply: PageReply) -> bool:
        if turn.page == 1 or reply.outcome not in BEYOND_THE_END:
            return False
        return not (turn.scans and turn.listing.scan.expects_page)

    async def _fail(self, turn: ListTurn, reply: PageReply, *, now: float) -> Step:
        """Let a list rest. One whose deeper pages are refused is read again from its head: the rest is a gap, once."""
        listing = turn.listing
        reason = await self._trouble.failed(listing, reply, now=now)
        if not listing.progress.began_at or not turn.scans:
            return await self._trouble.give_up(listing, reason, now=now)
        if reason is None:
            listing.progress.depth = HEAD_EVERY_PAGES  # what is new is read before the page that failed
            return await self._trouble.give_up(listing, None, now=now)
        told = listing.gaps_told
        await self._end(listing, listing.scan.finding or Finding(GapReason(reason.value), listing.scan.unread_count()))
        listing.gaps_told |= told
        self._trouble.works(listing)
        return self._at_rest

    async def _ask_name(self, turn: ListTurn, page: PageReply, execution: str, *, left: dict[str, Entry]) -> Step:
        """Fetch one execution for what its pipeline is called, then read the page. If that fails events do without."""
        listing = turn.listing
        listing.nameless = None
        reply = await self._parts.api.get(pipeline=listing.watch.pipeline, execution=execution)
        now = self._clock.monotonic()
        self._parts.metrics.asked(reply.outcome, now - reply.sent_at)
        if reply.execution is not None:
            self._session.note_success(listing, reply, now=now)
            self._parts.judge.learn_name(listing.watch.pipeline, reply.execution.pipeline_name)
        if listing.unwatched:
            return self._at_rest
        return await self._read(turn, page, page.rows or (), left=left)

    async def _read(
        self, turn: ListTurn, reply: PageReply, executions: Sequence[Execution], *, left: dict[str, Entry]
    ) -> Step:
        listing, paging = turn.listing, turn.listing.scan.paging
        if turn.scans:
            paging.note(turn.page, len(executions) + reply.skipped)
        rows = by_id(executions, first=paging.before(turn.page))
        when = self._counts_as_found_at(turn, reply)
        recorded = await self._recorded(listing, rows, when=when)
        if listing.unwatched:
            return self._at_rest
        self._rows.recall(listing, executions, recorded=recorded)
        found_at = {name: listing.rows.found_at(name) for name in rows}
        fresh = [name for name, at in found_at.items() if at is None]
        if turn.scans and fresh and self._needs_name(listing):
            listing.nameless = (reply, fresh[0])
            return Step(Queue.BEGUN)
        if fresh:
            now, shown = self._clock.steady_us(), [row for row in executions if found_at[row.id] is None]
            watched_us, is_read = now - listing.cursor.since_at, bool(listing.cursor.complete_at)
            listing.baseline.beginning.note(shown, now=now, watched_us=watched_us, is_read=is_read)
        known = {name: at for name, at in found_at.items() if at and at <= listing.cursor.complete_at}
        listing.rows.find_astray({name: row.index for name, row in rows.items()}, at=reply.sent_at)
        await self._rows.take(
            listing, rows.values(), reply, recorded=recorded, found_at=when, scanned=turn.scans, left=left
        )
        for entry in left.values():
            listing.rows.miss(entry, page=turn.page, at=reply.sent_at)
        listing.found(len(fresh), scanned=turn.scans)
        if not turn.scans:
            listing.scan.hear(reply.total)
            if turn.page == listing.scan.head and len(rows) >= paging.rows:
                listing.scan.head_is_full()
            return self._at_rest
        return await self._step(listing, reply, executions, known=known)

    def _counts_as_found_at(self, turn: ListTurn, reply: PageReply) -> int:
        """Return when the rows of a page count as found: when the first page of the scan that reads it was asked for.

        What a page shows that is read out of turn may have come later than that: it is ground for the next scan only.
        The clock may have been set back: no scan begins before the last complete one.
        """
        listing = turn.listing
        asked_at = self._clock.steady_us() - round((self._clock.monotonic() - reply.sent_at) * 1_000_000)
        now = max(asked_at, listing.cursor.complete_at + 1)
        if turn.scans:
            listing.progress.began_at = listing.progress.began_at or now
        in_turn = turn.scans and not listing.scan.probes
        return listing.progress.began_at if in_turn else max(now, listing.progress.began_at + 1)

    async def _recorded(self, listing: Listing, executions: Collection[str], *, when: int) -> Mapping[str, Known]:
        """Return what only the store knows of these, and remember of it what has ended, all of it found by now."""
        strangers = listing.rows.strangers(executions)
        if not strangers:
            return {}
        recorded = await self._parts.store.load_executions(self._parts.lease, strangers)
        ended = [known for known in recorded.values() if known.ended_at is not None]
        noted = (self._note_found(known, when=when) for known in ended if not known.found_at)
        raise_worst(await asyncio.gather(*noted, return_exceptions=True))
        listing.rows.remember({known.execution: known.found_at or when for known in ended})
        return recorded

    async def _note_found(self, known: Known, *, when: int) -> None:
        """Record that a list shows what was named, and told, before."""
        change = ExecutionChange(self._parts.lease, known.sequence, replace(known, found_at=when), ())
        await self._session.write(self._parts.store.record(change))

    def _needs_name(self, listing: Listing) -> bool:
        """Tell whether the first that is told of would lack the pipeline's name: a list does not say it."""
        if listing.named or self._parts.judge.pipeline_name(listing.watch.pipeline) is not None:
            return False
        listing.named = True
        return True

    # The end of a scan, and of a list

    async def _step(
        self,
        listing: Listing,
        reply: PageReply,
        rows: Sequence[Execution],
        *,
        known: Mapping[str, int],
    ) -> Step:
        """Let the scan take in a page."""
        scan, now = listing.scan, self._clock.steady_us()
        listing.met(rows, now=now)
        ground = {row.id for row in rows if row.id in known and listing.is_ground(row, found_at=known[row.id], now=now)}
        finding = scan.read(reply, ground=ground, unsettled=known.keys() - ground, unplaced=listing.sought_count())
        if scan.order is not None and scan.order is not listing.rows.places.order:
            listing.rows.places.order = scan.order
            pipeline, order = listing.watch.pipeline, scan.order.value
            log.info("list.order", account=self._parts.lease.name, pipeline=pipeline, order=order)
        newest_at = listing.head_newest_at(rows, now=now)
        if finding is None:
            if newest_at is not None:
                await self._cursors.record(listing, replace(listing.cursor, newest_at=newest_at))
            return Step(Queue.BEGUN)
        if not self._ending.ends_early(listing, finding):
            await self._end(listing, finding, newest_at=newest_at)
            return self._at_rest
        believed = self._ending.believed(listing, finding, now_s=self._clock.running())
        if believed is None:
            listing.scan_again(self._scan(listing.cursor, scan.to_be_made_anew(), clock=listing.scan.clock))
        else:
            await self._end_anew(listing, believed)
        return self._at_rest

    def _put_back(self, listing: Listing, step: Step) -> None:
        """Queue a list. Those whose scan has begun take turns, whoever has waited longest."""
        match step.queue:
            case Queue.BEGUN:
                self._agenda.put_begun(listing, since=listing.asked_at)
            case Queue.STALE:
                self._agenda.put_stale(listing, from_at=listing.asked_at + step.wait_s)
            case Queue.DUE:
                self._agenda.put(listing, due_at=max(self._clock.monotonic(), listing.asked_at + step.wait_s))

    async def _end_anew(self, listing: Listing, finding: Finding) -> None:
        """End a scan that ended too early; if that cannot be written the list is read again, it may be back."""
        try:
            await self._end(listing, finding)
        except BaseException:
            listing.scan_again(self._scan(listing.cursor, listing.scan.before, clock=listing.scan.clock))
            raise

    async def _end(self, listing: Listing, finding: Finding, *, newest_at: int | None = None) -> None:
        """Move the cursor on. Where nothing was found the store need not know at once: an older one is as true."""
        now = self._clock.steady_us()
        finding = self._ending.with_unproven(listing, finding, now=now)
        name = self._parts.judge.pipeline_name(listing.watch.pipeline)
        if self._ending.proves_empty(listing, now=now):
            newest_at = 0
        cursor = listing.next_cursor(name=name, newest_at=newest_at)
        gap = None if finding.gap in listing.gaps_told else finding.gap
        old = replace(listing.cursor, complete_at=cursor.complete_at)
        overdue = now - listing.recorded_at >= CURSOR_EVERY_US
        if listing.progress.found_count or gap or cursor != old or overdue:
            await self._cursors.record(listing, cursor, gap=gap, at_most=finding.at_most)
        listing.cursor = cursor
        listing.baseline.beginning.unproven.clear()
        listing.baseline.beginning.is_counted |= listing.scan.is_counted
        if finding.gap is None:
            listing.gaps_told = frozenset()
        elif finding.gap in TOLD_ONCE:
            listing.gaps_told |= {finding.gap}
        listing.scan_ended(self._scan(cursor, listing.scan.learnt(), clock=listing.scan.clock))
