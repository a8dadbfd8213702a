"""Evaluates the rows of a page: each row is a poll of its execution, which is known or recorded as new.

If `polling.details` asks for it, a GET is to confirm an end that a row shows. The evaluator decides what a row means
for its execution. The list poller requests the pages and judges the list.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from watcher.clerk.api import Reply
from watcher.clerk.schemas import ApiDates
from watcher.domain.errors import FINAL_STORE_ERRORS, StoreError
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, Outcome, Status
from watcher.domain.history import ended_execution
from watcher.domain.timestamps import Micros
from watcher.domain.transitions import is_terminal
from watcher.domain.watch import Details, FirstSight
from watcher.polling.lists.pipeline_list import PageRequest
from watcher.polling.poll_item import Evaluation, PendingConfirmation, TrackedExecution
from watcher.polling.session import SessionPart
from watcher.store.changes import ChangeSet, ExecutionChange

HISTORY_US = 3600 * 1_000_000
"""Executions that ended this long before the watch of their pipeline began are history, whichever scan shows them
first."""

LONG_AGO = Micros(1)
"""The time (microseconds) at which unknown old ends count as found: before any scan."""


Row = tuple[int, ExecutionSnapshot]
"""The index of a row in the whole list, from 0, and its execution."""


@dataclass(frozen=True, slots=True)
class ListedPage:
    """The answer to a request for a page, with what is needed to evaluate its rows.

    `rows` are its rows by id. `recorded` are the executions of the page that only the store knows. A list first showed
    its executions at `found_at`. `fresh` are the ids that no list has shown before, whose time is `None`; they count as
    found at `now_at`. The page was requested at `asked_at`. Times are microseconds UTC, steady.
    """

    request: PageRequest
    reply: Reply
    rows: Mapping[str, Row]
    recorded: Mapping[str, ExecutionRecord]
    found_at: Mapping[str, Micros | None]
    fresh: Sequence[str]
    now_at: Micros
    asked_at: Micros


class PageProcessor(SessionPart):
    """Evaluates the rows of pages and records the results."""

    async def look_up(self, request: PageRequest, reply: Reply) -> ListedPage:
        """Return a page with what is known of its executions. Raises `StoreError`.

        An unknown execution that ended long ago is not new: the store may have deleted it since. Recorded ends that no
        list has shown before count as found now.
        """
        listing, executions = request.listing, reply.rows or ()
        rows = by_id(executions, first=listing.scan.memory.before(request.page))
        asked_at = Micros(self._clock.steady_us() - round((self._clock.monotonic() - reply.sent_at) * 1_000_000))
        now_at = _found_at(request, asked_at)
        unknown = listing.rows.find_unknown(rows)
        recorded = await self._deps.store.load_executions(unknown) if unknown else {}
        ended = [known for known in recorded.values() if known.end_seen_at is not None]
        # Executions that were watched and reported by name have no time yet.
        lease, named = self._deps.lease, [known for known in ended if not known.found_at]
        changes = [ExecutionChange(lease, known.sequence, replace(known, found_at=now_at), ()) for known in named]
        if changes:
            await self._deps.store.record(ChangeSet(lease, tuple(changes)))
        listing.rows.remember(ended, found_at=now_at)
        found_at = listing.rows.find_times(rows)
        forgotten_at = min(listing.cursor.complete_at, self._clock.steady_us() - self._rules.history_us)
        for each in executions:
            at = each.dated_at
            is_known = found_at[each.id] is not None or each.id in recorded
            if not is_known and is_terminal(each) and at is not None and at < forgotten_at:
                listing.rows.remember([ExecutionRecord(each.id, listing.watch.pipeline)], found_at=LONG_AGO)
                found_at[each.id] = LONG_AGO
        fresh = [name for name, at in found_at.items() if at is None]
        return ListedPage(request, reply, rows, recorded, found_at, fresh, now_at, asked_at)

    async def take(self, page: ListedPage) -> None:
        """Evaluate the rows of a page. Then write all changes together, the oldest ends first.

        Raises `StoreError` if any change could not be written.
        """
        changed: list[Evaluation] = []
        try:
            for index, execution in self._skip_unchanged(page):
                evaluation = self._evaluate_row(execution, page)
                if evaluation is None:
                    continue
                page.request.listing.rows.put(evaluation.entry, index=index, scanned=page.request.scans)
                if evaluation.change is None:
                    self._session.note(evaluation)
                    self._release(evaluation)
                else:
                    changed.append(evaluation)
        finally:
            if changed:
                await self._record(sorted(changed, key=_ended_at))
        pipeline = page.request.listing.watch.pipeline
        if (recorder := self._alert_rules.recorders.get(pipeline)) is not None:
            found = filter(None, map(self._registry.entries.get, page.rows))
            # An execution that is not queued is being polled. Its answer is newer than this page.
            await recorder.note_shown(each for each in found if each.is_queued and each.known.pipeline == pipeline)

    def _skip_unchanged(self, page: ListedPage) -> list[Row]:
        """Return the rows to evaluate. Handle rows that equal the last answer here, as successful polls.

        An equal row is evaluated, too, if a GET was sent after its page was requested, or if its execution may be
        overdue now.
        """
        left, sent_at, index_of_list = page.request.unseen, page.reply.sent_at, page.request.listing.rows
        evaluator, different, same_count = self._deps.evaluator, [], 0
        seen_at = self._clock.steady_us()
        for index, execution in page.rows.values():
            entry = left.get(execution.id)
            is_same = entry is not None and entry.row == execution and entry.asked_at <= sent_at
            if entry is None or not is_same or evaluator.is_overdue(entry):
                different.append((index, execution))
                continue
            del left[execution.id]
            same_count += 1
            entry.asked_at = sent_at
            entry.failures = None
            index_of_list.put(entry, index=index, scanned=page.request.scans)
            if not entry.is_unflushed:
                self._session.flush_later(entry)
            entry.polled_at = seen_at
            self._put_back(entry, 0.0)  # its list polls it, so it has no due time of its own
        self._deps.metrics.polls[Outcome.OK].inc(same_count)
        return different

    def _evaluate_row(self, execution: ExecutionSnapshot, page: ListedPage) -> Evaluation | None:
        """Evaluate a row. Return `None` if no evaluation is needed.

        None is needed if the execution has ended, is being polled by another request, or may be history, which the
        first scan will show.
        """
        listing = page.request.listing
        entry = page.request.unseen.pop(execution.id, None)
        if entry is None and (entry := self._registry.entries.get(execution.id)) is not None:
            if not entry.is_queued or entry.known.pipeline != listing.watch.pipeline:
                return None
            self._poll_queue.take(entry)
        elif entry is None:
            if execution.id not in page.fresh:
                if listing.rows.contradicts(execution, asked_at=page.asked_at):
                    self._session.report_contradiction(execution.id)
                return None
            recorded = page.recorded.get(execution.id)
            is_early = not page.request.scans and not listing.cursor.complete_at and recorded is None
            if is_early and is_terminal(execution) and self._is_history(page, execution):
                return None  # the first scan will show whether this is history
            known = recorded or ExecutionRecord(execution.id, listing.watch.pipeline)
            entry = TrackedExecution(known, listing.watch, known.polled_at, is_recorded=recorded is not None)
            self._registry.enter(entry)
        try:
            return self._evaluate_entry(entry, execution, page)
        except BaseException:
            self._undo(entry)
            raise

    def _undo(self, entry: TrackedExecution) -> None:
        """Put an entry back as it was. If it is not recorded, forget it: the next page shows it as a new one."""
        entry.unconfirmed_end = None
        self._put_back(entry, 0.0 if entry.is_recorded else None)

    async def _record(self, evaluations: Sequence[Evaluation]) -> None:
        """Write the results of rows in one transaction, and put their entries back.

        If the store works but refuses the transaction, write each result by itself: one bad row must not keep the
        others out of the store.
        """
        try:
            await self._session.record(evaluations)
        except BaseException as error:
            is_of_one = isinstance(error, StoreError) and not isinstance(error, FINAL_STORE_ERRORS)
            if is_of_one and self._deps.store.monitor.failing_since is None and len(evaluations) > 1:
                outcomes = await asyncio.gather(*(self._record([each]) for each in evaluations), return_exceptions=True)
                raised = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
                fatal = (failure for failure in raised if isinstance(failure, FINAL_STORE_ERRORS))
                if raised:  # prefer an error that ends the daemon
                    raise next(fatal, raised[0]) from error
                return
            for each in evaluations:
                self._undo(each.entry)
            raise
        for each in evaluations:
            self._release(each)

    def _release(self, evaluation: Evaluation) -> None:
        """Put an entry back after its row was evaluated, and remember the row."""
        entry = evaluation.entry
        if entry.unconfirmed_end is None:
            is_valid = evaluation.polled_at is not None and not evaluation.contradicts
            entry.row = evaluation.execution if is_valid else None
        self._put_back(entry, evaluation.next_s)

    def _put_back(self, entry: TrackedExecution, next_s: float | None) -> None:
        """Put an entry back for the next poll, `next_s` after this request. If that raises an error, end the daemon.

        Other errors of a page do not end the daemon, but an entry outside the queue would never be polled again.
        """
        try:
            self._registry.put_back(entry, next_s)
        except Exception as error:
            self._deps.fatal(error)
            raise

    def _evaluate_entry(self, entry: TrackedExecution, execution: ExecutionSnapshot, page: ListedPage) -> Evaluation:
        """Evaluate a row of a tracked execution.

        If `polling.details` asks for it, a GET is to confirm an end, unless a GET has just denied it. Until then a new
        execution is recorded as found, so that its end is reported even after a crash.
        """
        lease, sent_at = self._deps.lease, page.reply.sent_at
        entry.asked_at = sent_at
        self._deps.metrics.polls[Outcome.OK].inc()
        if not entry.known.found_at:
            entry.known = replace(entry.known, found_at=page.now_at)
            is_unknown = entry.known.status is None and entry.known.lost is None
            if entry.watch.whole and is_unknown and is_terminal(execution) and self._is_history(page, execution):
                at = self._clock.steady_us()
                known = replace(entry.known, status=execution.status, since_at=at, polled_at=at, end_seen_at=at)
                known = replace(known, ended_at=execution.ended_at or at)
                # A page may show a few ends from before `lookback`. With only these, the history would look quiet.
                is_old = (known.ended_at or at) < page.request.listing.scan.horizon
                ended = None if is_old else ended_execution(known, execution)
                return Evaluation(entry, execution, known, ExecutionChange(lease, None, known, (), ended=ended), None)
        details, is_failed = self._rules.details, execution.status == Status.FAILED
        is_selected = details is Details.ALWAYS or (details is Details.FAILED and is_failed)
        if not (is_selected and is_terminal(execution)):
            return self._deps.evaluator.success(entry, execution, sent_at=sent_at)
        now = self._clock.monotonic()
        if now >= entry.denied_until:
            entry.unconfirmed_end = PendingConfirmation(execution, sent_at, now)
            if (recorder := self._alert_rules.recorders.get(entry.known.pipeline)) is not None:
                recorder.unconfirmed.add(entry)
        found = None if entry.is_recorded else ExecutionChange(lease, None, entry.known, ())
        return Evaluation(entry, execution, entry.known, found, 0.0)

    def _is_history(self, page: ListedPage, execution: ExecutionSnapshot) -> bool:
        """Return whether a new execution that has ended is history, so that its end is not reported.

        In the first scan, an end is history if it came before the watch began. In a later scan, it is history only if
        it came more than an hour before that, or if the gap after a long downtime covers it. With `first_sight: notify`
        an end must lie further back than `lookback` to be history.
        """
        listing, rules = page.request.listing, self._rules
        cursor = listing.cursor
        is_baseline, before_us = rules.first_sight is FirstSight.BASELINE, cursor.ahead_us or 0
        # Either clock may have been set since the watch began, ours while the daemon was off. With the earlier time no
        # end is lost.
        since_at = cursor.since_at + min(0, before_us - page.reply.ahead_us)
        at = execution.dated_at or ApiDates(before_us, self._clock.steady_us()).ours(execution.finished_at)
        if at is None:
            return is_baseline and not cursor.complete_at
        if cursor.complete_at:
            history_us = HISTORY_US if is_baseline else max(HISTORY_US, rules.lookback_us)
            return at < since_at - history_us or listing.scan.is_beyond_lookback(at)
        return at <= since_at if is_baseline else at < since_at - rules.lookback_us


def _found_at(request: PageRequest, asked_at: Micros) -> Micros:
    """Return the time at which the rows of a page count as found: when the first page of its scan was requested.

    A page that was read out of turn may show rows that arrived after the scan began. Their time is later than the start
    of the scan, so they become known rows only with the next scan.
    """
    scan = request.listing.scan
    if not request.scans:
        return max(asked_at, Micros(scan.began_at + 1))
    scan.began_at = scan.began_at or asked_at
    return scan.began_at


def _ended_at(evaluation: Evaluation) -> int:
    return (evaluation.execution and evaluation.execution.ended_at) or 0


def by_id(executions: Sequence[ExecutionSnapshot], *, first: int) -> Mapping[str, Row]:
    """Return the rows of a page by id. If two rows have the same id, one with an end is kept: an end is final."""
    rows: dict[str, Row] = {}
    for index, execution in enumerate(executions, first):
        if execution.id not in rows or is_terminal(execution):
            rows[execution.id] = index, execution
    return rows
