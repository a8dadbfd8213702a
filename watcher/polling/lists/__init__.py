"""The lists of pipelines that are watched whole: requests their pages, and records the result of each scan.

This module is the face of the package: no other module of it is named outside. The scan chooses the page, the page
processor evaluates its rows, and the list poller connects them. At the end of a scan it records how far the list was
read, and a gap if executions may be missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import structlog

from watcher.clerk.api import Reply
from watcher.domain.event import EventType, GapReason
from watcher.domain.execution import ExecutionRecord, Outcome
from watcher.domain.timestamps import NEVER, Micros, Monotonic
from watcher.domain.transitions import EXECUTION_REASONS
from watcher.domain.watch import Cursor, Watch
from watcher.polling.lists.pages import PageProcessor
from watcher.polling.lists.pipeline_list import PageRequest, PipelineListState
from watcher.polling.poll_item import PollItem, QueueKind, TrackedExecution
from watcher.polling.session import AccountSession, SessionPart
from watcher.store.changes import SourceChange

__all__ = ["ListPoller", "PageRequest"]

log = structlog.get_logger()

CURSOR_EVERY_S = 60.0
"""Interval at which the cursor of an idle pipeline is written."""

EMITTED_ONCE = frozenset(
    {GapReason.NOT_FOUND, GapReason.REJECTED, GapReason.FORBIDDEN, GapReason.UNREADABLE, GapReason.UNORDERED}
)
"""Gaps that may last over many scans. Each is reported once, and again only after a complete scan without a gap."""

PAGES_KEPT = 128
"""The most pages that are kept, to compare the next answers with them: 5 MB, enough for 50 pipelines with 100 open
executions each."""

WHOLE_SHARE = 0.25
"""The share of an account's requests for lists that must be read whole."""

BEYOND_THE_END = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})
"""The outcomes of a refused page that may mean that the list has no such page."""


class Requeue(NamedTuple):
    """The place of a list in the poll queue: `queue`, and `wait_s` seconds from the last request until it is due."""

    queue: QueueKind
    wait_s: float = 0.0


class ListPoller(SessionPart):
    """Requests pages of lists, has their rows evaluated, and records the results of scans."""

    def __init__(self, session: AccountSession) -> None:
        super().__init__(session)
        self._page_processor = PageProcessor(session)
        self._lists: dict[str, PipelineListState] = {}
        self._registry.lists = self._lists
        self._pages: dict[tuple[str, int], Reply] = {}  # in the order of their last requests
        self._at_rest = Requeue(QueueKind.STALE, self._rules.min_interval_s)  # after a page that needs no other at once

    async def watch(self, watches: Sequence[Watch]) -> dict[str, ExecutionRecord]:
        """Poll the lists of these watches and no others. Return the recorded open executions of new lists, by id.

        For a new list the start of the watch is recorded before the first request. After a `StoreError` nothing has
        changed.
        """
        whole = {watch.pipeline: watch for watch in watches if watch.whole}
        new = {pipeline: await self._load(watch) for pipeline, watch in whole.items() if pipeline not in self._lists}
        found = await self._deps.store.load_open(new.keys())
        for gone in self._lists.keys() - whole.keys():
            self._poll_queue.take(self._lists.pop(gone))
        for pipeline, listing in self._lists.items():
            listing.watch = whole[pipeline]
        self._lists |= new
        for entry in self._registry.entries.values():
            if (entered := new.get(entry.known.pipeline)) is not None:
                entered.enter(entry)
        now = self._clock.monotonic()
        for listing in new.values():
            listing.asked_at = now
            self._poll_queue.put(listing, due_at=now)
        return {known.execution: known for known in found}

    async def _load(self, watch: Watch) -> PipelineListState:
        """Return the list of a pipeline as recorded, ready for its first scan."""
        record = await self._deps.store.load_pipeline(watch.pipeline)
        cursor = record.cursor or Cursor(self._clock.steady_us())
        self._deps.evaluator.learn_name(watch.pipeline, cursor.name)
        self._alert_rules.stream(watch.pipeline, sequence=record.sequence)
        listing = PipelineListState(watch, cursor, self._rules)
        if record.cursor is None:
            await self.record(listing, cursor)
        return listing

    def read_now(self, pipeline: str) -> None:
        """Scan a list as soon as the budget allows.

        If a scan is in progress, the page with new rows is read next, and another scan follows the current one.
        """
        if (listing := self._lists.get(pipeline)) is None:
            return
        listing.timing.is_wanted = True
        if listing.is_queued and not listing.scan.began_at:
            self._poll_queue.put_first(listing, now=self._clock.monotonic())
        else:
            listing.timing.read_head_next()

    def request_for(self, item: PollItem, *, now: Monotonic, is_probe: bool) -> PageRequest | TrackedExecution:
        """Return the request for an item that was taken out of the queue: for a page, or for an execution alone.

        A list requests the next page of its scan, or from time to time the page with new rows. An execution is polled
        by the page that should show it, if another item that is due is on that page, too, unless it is to confirm an
        end or to probe the account. The executions of the page leave the queue, and so does the list if its scan needs
        this page.
        """
        if isinstance(item, TrackedExecution):
            listing = self._lists.get(item.known.pipeline)
            if listing is None or listing.failing_until > now or is_probe or item.unconfirmed_end is not None:
                return item
            page = listing.rows.page_of(item)
            shown = () if page is None else (*listing.rows.on_page(page), *((listing,) * (page == listing.scan.page)))
            if page is None or not [each for each in shown if each.is_queued and each.due_at <= now]:
                return item
        else:
            assert isinstance(item, PipelineListState)
            listing, page = item, item.timing.page_after(item.scan.page, head=item.scan.head)
        entries = {each.known.execution: each for each in listing.rows.on_page(page) if each.is_queued or each is item}
        scans = (listing.is_queued or listing is item) and page == listing.scan.page
        self._poll_queue.take(*entries.values(), *((listing,) if scans else ()))
        if item is listing and not scans:
            # Its scan goes on later: this page is read out of turn.
            self._poll_queue.put(listing, due_at=listing.due_at, queue=listing.queue)
        return PageRequest(listing, page, entries, scans)

    async def ask(self, request: PageRequest) -> None:
        """Request a page and handle its answer. Then put the list and its executions back into the queue."""
        listing, requeue = request.listing, self._at_rest
        try:
            requeue = await self._ask(request)
        except Exception as error:  # noqa: BLE001 (an error of one page must not end the other polls)
            requeue = self._rest(listing, self._session.handle_error(error))
        finally:
            for entry in request.unseen.values():
                self._poll_queue.put(entry, due_at=entry.due_at, queue=entry.queue)  # nothing was said about it
            if request.scans:
                # Lists whose scan has begun take turns: the one with the oldest request goes first.
                due_at = Monotonic(listing.asked_at + requeue.wait_s)
                due_at = max(self._clock.monotonic(), due_at) if requeue.queue is QueueKind.DUE else due_at
                if listing.timing.is_wanted and requeue.queue is QueueKind.STALE:
                    self._poll_queue.put_first(listing, now=self._clock.monotonic())
                else:
                    self._poll_queue.put(listing, due_at=due_at, queue=requeue.queue)

    # One page

    async def _ask(self, request: PageRequest) -> Requeue:
        listing = request.listing
        if request.scans and listing.nameless is not None:
            return await self._ask_name(request, *listing.nameless)
        key = listing.watch.pipeline, request.page
        reply = await self._deps.api.list(pipeline=key[0], page=request.page, known=self._pages.pop(key, None))
        will_be_read_again = request.page == 1 or bool(request.unseen)
        if reply.body_hash is not None and will_be_read_again:
            self._pages[key] = reply
            if len(self._pages) > PAGES_KEPT:
                del self._pages[next(iter(self._pages))]
        now = self._clock.monotonic()
        self._deps.metrics.count_page(reply.outcome, now - reply.sent_at)
        if reply.rows is None:
            is_beyond_the_end = request.page > 1 and reply.outcome in BEYOND_THE_END
            if is_beyond_the_end and not (request.scans and listing.scan.expects_page):
                return await self._read(request, reply)
            return await self._fail(request, reply, now=now)
        self._deps.breaker.note(listing, reply, now=now)
        await self._session.report()
        await self._session.note_clock()
        if request.scans:
            listing.note_answer()
            if listing.cursor.ahead_us is None:
                await self._note_clock(listing, reply.ahead_us)
        return await self._read(request, reply)

    async def _ask_name(self, request: PageRequest, page: Reply, execution: str) -> Requeue:
        """Poll one execution to learn the name of its pipeline, then handle the page that waited for the name.

        If the poll fails, events lack the name.
        """
        listing = request.listing
        listing.nameless = None
        reply = await self._deps.api.get(pipeline=listing.watch.pipeline, execution=execution)
        now = self._clock.monotonic()
        self._deps.metrics.count_poll(reply.outcome, now - reply.sent_at)
        if reply.execution is not None:
            self._deps.breaker.note(listing, reply, now=now)
            self._deps.evaluator.learn_name(listing.watch.pipeline, reply.execution.pipeline_name)
        return await self._read(request, page)

    async def _read(self, request: PageRequest, reply: Reply) -> Requeue:
        """Handle a page: evaluate its rows, then pass it to the scan, if the scan requested it."""
        listing = request.listing
        if request.scans:
            listing.scan.note(reply)
        page = await self._page_processor.look_up(request, reply)
        if (recorder := self._alert_rules.recorders.get(listing.watch.pipeline)) is not None:
            recorder.note_starts(reply.rows or ())
        is_named = listing.named or self._deps.evaluator.pipeline_names.get(listing.watch.pipeline) is not None
        if request.scans and page.fresh and not is_named:  # lists lack the name, so the first event would, too
            listing.named, listing.nameless = True, (reply, page.fresh[0])
            return Requeue(QueueKind.BEGUN)
        await self._page_processor.take(page)
        for entry in request.unseen.values():
            listing.rows.miss(entry, page=request.page)
        if listing.cursor.complete_at:
            listing.rows.count_new(len(page.fresh), after_scan_began=bool(listing.scan.began_at) and not request.scans)
        if request.scans:
            return await self._judge_page(listing, reply, found_at=page.found_at)
        listing.scan.note_head(request.page, row_count=len(page.rows), total=reply.total)
        return self._at_rest

    async def _judge_page(
        self, listing: PipelineListState, reply: Reply, *, found_at: Mapping[str, Micros | None]
    ) -> Requeue:
        """Pass a page to the scan, and handle the result if the scan ends. Raises `StoreError`.

        If the result is unconfirmed, a rescan begins. A list that must be read whole rests after its scan, so that all
        such lists take a quarter of the requests.
        """
        scan, order, known_rows = listing.scan, listing.scan.order, listing.known_rows(found_at)
        result = scan.read(
            reply,
            known_rows=known_rows,
            unsettled={name for name, at in found_at.items() if at and at <= listing.cursor.complete_at} - known_rows,
            unlocated=listing.rows.unlocated_count() if scan.seeks else 0,  # open executions that this scan seeks
            may_read_whole=self._clock.monotonic() >= scan.memory.whole_from,
        )
        if scan.order is not None and scan.order is not order:
            pipeline = listing.watch.pipeline
            log.info("list.order", account=self._deps.lease.name, pipeline=pipeline, order=scan.order.value)
        if result is None:
            return Requeue(QueueKind.BEGUN)
        if not scan.is_confirmed(result, ran_s=self._clock.running()):
            listing.restart_scan()
        else:
            is_explained = result.gap is GapReason.DELETED and scan.memory.confirmation.is_explained
            try:
                await self._complete(listing, *((None, None) if is_explained else (result.gap, result.at_most)))
            except BaseException:
                if result.unconfirmed is not None:  # the missing rows may be back by the next attempt
                    listing.restart_scan()
                raise
        listing.timing.whole_pages = scan.unordered_pages
        if not listing.timing.whole_pages:
            return self._at_rest
        pages = sum(each.timing.whole_pages for each in self._lists.values())
        slots = pages / WHOLE_SHARE - listing.timing.whole_pages + 1  # less those that this scan has used
        rest_s = slots * self._deps.pacer.gap_s
        scan.memory.whole_from = Monotonic(self._clock.monotonic() + rest_s)
        return Requeue(QueueKind.STALE, max(self._at_rest.wait_s, 0.0 if scan.order else rest_s))

    # Writing

    async def _note_clock(self, listing: PipelineListState, ahead_us: int) -> None:
        """Record by how much the API's clock was ahead of ours at its first answer. Raises `StoreError`.

        Times that version 1.0.0 recorded on the API's clock are converted to our clock.
        """
        cursor, now = listing.cursor, self._clock.steady_us()
        turned_us = ahead_us if cursor.dated else 0
        since_at = min(now, Micros(cursor.since_at - turned_us))  # our clock, too, may have been set back
        complete_at = min(now, Micros(cursor.complete_at - turned_us)) if cursor.complete_at else NEVER
        cursor = replace(cursor, since_at=since_at, complete_at=complete_at, ahead_us=ahead_us, dated=False)
        await self.record(listing, cursor)
        listing.restart_scan()

    async def record(
        self, listing: PipelineListState, cursor: Cursor, *, gap: GapReason | None = None, at_most: int | None = None
    ) -> None:
        """Write a cursor and, if there is a gap, an event that says that at most `at_most` executions may be missing.

        Memory changes only after both are written. Raises `StoreError`.
        """
        watch, evaluator = listing.watch, self._deps.evaluator
        stream = self._alert_rules.stream(watch.pipeline)
        async with stream.writing:
            more, after = {"reason": gap, "atMost": at_most}, stream.sequence
            gaps = () if gap is None else (evaluator.pipeline_event(watch, EventType.PIPELINE_GAP, more, after=after),)
            entries, sequence = tuple(event for event, _ in gaps), after + len(gaps)
            change = SourceChange(
                self._deps.lease, after, sequence, None, entries, pipeline=watch.pipeline, cursor=cursor
            )
            await self._deps.store.record(change)
            stream.sequence = sequence
        listing.cursor, listing.recorded_at = cursor, self._clock.monotonic()
        for entry in entries:
            if (recorder := self._alert_rules.recorders.get(listing.watch.pipeline)) is not None:
                recorder.hold()
            log.warning("pipeline.gap", account=self._deps.lease.name, pipeline=watch.pipeline, reason=gap)
            self._deps.metrics.events.labels(entry.event.type).inc()

    async def _complete(self, listing: PipelineListState, found: GapReason | None, at_most: int | None) -> None:
        """Move the cursor on after a complete scan that found a gap or none, and begin the next scan.

        The cursor is written at once only if something was found or has changed. Otherwise the older cursor in the
        store is still correct.
        """
        scan, before = listing.scan, listing.cursor
        name = self._deps.evaluator.pipeline_names.get(listing.watch.pipeline)
        cursor = replace(before, complete_at=scan.began_at, refused=None, found=scan.shows_any, name=name)
        cursor = replace(cursor, total=scan.total, known_from=self._known_from(before, scan.began_at, found))
        gap = None if found in listing.gaps_emitted else found
        is_overdue = self._clock.monotonic() - listing.recorded_at >= CURSOR_EVERY_S
        if listing.rows.found_count or gap or cursor != replace(before, complete_at=cursor.complete_at) or is_overdue:
            await self.record(listing, cursor, gap=gap, at_most=at_most)
        listing.cursor = cursor
        if found is None:
            listing.gaps_emitted &= frozenset() if scan.is_whole else {GapReason.UNORDERED}
        elif found in EMITTED_ONCE:
            listing.gaps_emitted |= {found}
        listing.finish_scan()
        if not gap and (recorder := self._alert_rules.recorders.get(listing.watch.pipeline)) is not None:
            silent_until = cursor.complete_at if found is None else None
            await recorder.note_scan(listing.timing.began_at, silent_until=silent_until)

    def _known_from(self, before: Cursor, began_at: Micros, gap: GapReason | None) -> Micros:
        """Return the time from which the history of a pipeline is known, after a complete scan with this gap, if any.

        The scan began at `began_at`. The first scan reads the history back to `lookback`, and so does the first scan
        after a downtime longer than `lookback`.
        """
        is_first = before.known_from is None and not before.complete_at
        if gap is GapReason.LOOKBACK or (is_first and gap is None):
            return Micros(began_at - self._rules.lookback_us)
        return began_at if before.known_from is None else before.known_from

    # Failures

    async def _fail(self, request: PageRequest, reply: Reply, *, now: Monotonic) -> Requeue:
        """Let a list rest after a failure. Report once that it is refused or cannot be read.

        If only pages after the first one of a scan fail, the scan ends. The rest of the list is then a gap, reported
        once.
        """
        listing, scan = request.listing, request.listing.scan
        if (recorder := self._alert_rules.recorders.get(listing.watch.pipeline)) is not None:
            recorder.hold()
        alone = self._registry.found_count == 0 and len(self._lists) == 1
        is_refused, is_deep = listing.cursor.refused is not None, bool(scan.began_at) and request.scans
        reason = self._deps.breaker.note(listing, reply, now=now, alone=alone, lost=is_refused)
        if is_refused and not scan.began_at:  # the list was refused before, so one more refusal is enough
            reason = EXECUTION_REASONS.get(reply.outcome, reason)
        await self._session.report()
        if reason is not None and is_deep:
            emitted, gap = listing.gaps_emitted, GapReason(reason.value)
            left = (gap, scan.unread_count()) if scan.result is None else (scan.result.gap, scan.result.at_most)
            await self._complete(listing, *left)
            listing.gaps_emitted |= emitted
            listing.note_answer()
            return self._at_rest
        if is_deep:
            listing.timing.read_head_next()  # read the head before the page that failed
        if reason is not None and not is_refused:
            gap = GapReason(reason.value)
            await self.record(listing, replace(listing.cursor, refused=gap), gap=gap)
        return self._rest(listing, self._deps.breaker.wait_s(listing, reason, sent_at=listing.asked_at))

    def _rest(self, listing: PipelineListState, wait_s: float) -> Requeue:
        """Let a list rest for `wait_s` seconds. Meanwhile its executions are polled one by one."""
        listing.failing_until = Monotonic(self._clock.monotonic() + wait_s)
        return Requeue(QueueKind.DUE, wait_s)
