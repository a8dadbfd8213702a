"""What the rows of a page lead to: polls, new executions, and ends that one GET is to confirm.

What a row means for its execution the evaluator says; asking for pages, and what they prove, is the list poller's.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from watcher.clerk.api import Reply
from watcher.clerk.schemas import ApiDates
from watcher.domain.errors import OwnershipLostError, StoreError, StoreUnusableError
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, Outcome, Status
from watcher.domain.history import ended_execution
from watcher.domain.timestamps import Micros
from watcher.domain.transitions import is_terminal
from watcher.domain.watch import Details, FirstSight
from watcher.polling.evaluator import Evaluation
from watcher.polling.execution_poller import ExecutionPoller
from watcher.polling.list_evidence import dated
from watcher.polling.pipeline_list import PipelineListState
from watcher.polling.poll_item import PendingConfirmation, TrackedExecution
from watcher.polling.poll_queue import ListRequest
from watcher.polling.session import AccountSession
from watcher.store.changes import ChangeSet, ExecutionChange

HISTORY_US = 3600 * 1_000_000
"""What ended so long before a pipeline was watched is no news, though its first scan did not show it."""

LONG_AGO = Micros(1)
"""When what is history counts as found (microseconds): before any scan."""

_FATAL = (OwnershipLostError, StoreUnusableError)


Row = tuple[int, ExecutionSnapshot]
"""Where a row stands in the whole list, from 0, and what it says."""


@dataclass(frozen=True, slots=True)
class ListedPage:
    """A page of a list that was read.

    `recorded` is what only the store knows of the executions on it. `fresh` are those that no list has shown before;
    they count as found at `found_at`. `scanned`: it is the scan's own page. Whom its rows are about is taken out of
    `left`. It was asked for at `asked_at` (microseconds, our clock).
    """

    request: ListRequest
    reply: Reply
    recorded: Mapping[str, ExecutionRecord]
    fresh: Collection[str]
    found_at: Micros
    asked_at: Micros


class PageProcessor:
    """Does what rows call for."""

    def __init__(self, session: AccountSession, poller: ExecutionPoller) -> None:
        self._session = session
        self._poller = poller
        self._deps, self._rules, self._registry = session.deps, session.deps.rules, session.registry
        self._poll_queue = session.poll_queue
        self._alert_rules = session.alert_rules
        self._clock = session.deps.clock

    async def look_up(
        self, listing: PipelineListState, executions: Sequence[ExecutionSnapshot], *, when: Micros
    ) -> tuple[Mapping[str, ExecutionRecord], dict[str, Micros | None]]:
        """Return what only the store knows of these, and when each was found, `None` if that is now.

        Those that nobody knows any more are remembered anew: they were known, and ended so long ago that they were
        forgotten. Raises `StoreError`.
        """
        unknown = listing.rows.unknown([each.id for each in executions])
        recorded = await self._deps.store.load_executions(unknown) if unknown else {}
        ended = [known for known in recorded.values() if known.ended_at is not None]
        # a list shows what was named, and reported, before
        lease, named = self._deps.lease, [known for known in ended if not known.found_at]
        changes = [ExecutionChange(lease, known.sequence, replace(known, found_at=when), ()) for known in named]
        if changes:
            await self._deps.store.record(ChangeSet(lease, tuple(changes)))
        listing.rows.remember(ended, found_at=when)
        found_at = listing.rows.found_at([each.id for each in executions])
        forgotten_at = min(listing.cursor.complete_at, self._clock.steady_us() - self._rules.history_us)
        for each in executions:
            at = dated(each)
            is_known = found_at[each.id] is not None or each.id in recorded
            if not is_known and is_terminal(each) and at is not None and at < forgotten_at:
                listing.rows.remember([ExecutionRecord(each.id, listing.watch.pipeline)], found_at=LONG_AGO)
                found_at[each.id] = LONG_AGO
        return recorded, found_at

    async def take(self, rows: Mapping[str, Row], page: ListedPage) -> None:
        """Evaluate a page's rows; then write, together, what changed, the oldest ends first.

        Raises `StoreError` when that failed for any.
        """
        changed: list[Evaluation] = []
        try:
            for index, execution in self._different(rows.values(), page):
                evaluation = self._evaluated(execution, page)
                if evaluation is None:
                    continue
                page.request.listing.rows.put(evaluation.entry, index=index, scanned=page.request.scans)
                if evaluation.change is None:
                    self._poller.note(evaluation)
                    self._let_go(evaluation)
                else:
                    changed.append(evaluation)
        finally:
            if changed:
                await self._record(sorted(changed, key=_ended_at))

    def _different(self, rows: Iterable[Row], page: ListedPage) -> list[Row]:
        """Return the rows that are not as they were last; of the others all that is left to do is done here.

        Not where a GET was asked for, and answered, while the page was under way; nor of what may be overdue now.
        """
        left, sent_at, index_of_list = page.request.left, page.reply.sent_at, page.request.listing.rows
        evaluator, different, same_count = self._deps.evaluator, [], 0
        seen_at = self._clock.steady_us()
        for index, execution in rows:
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
            if not entry.unflushed:
                self._session.flush_later(entry)
            entry.polled_at = seen_at
            self._put_back(entry, 0.0)  # on a list, so it grows stale: it is due at no time of its own
        self._deps.metrics.polls[Outcome.OK].inc(same_count)
        return different

    def _evaluated(self, execution: ExecutionSnapshot, page: ListedPage) -> Evaluation | None:
        """Return what a row leads to, nothing if its execution is somebody else's, or has ended."""
        listing = page.request.listing
        entry = page.request.left.pop(execution.id, None)
        if entry is None and (entry := self._registry.entries.get(execution.id)) is not None:
            if not entry.queued or entry.known.pipeline != listing.watch.pipeline:
                return None
            self._poll_queue.take(entry)
        elif entry is None:
            if execution.id not in page.fresh:
                if listing.rows.contradicts(execution, asked_at=page.asked_at):
                    self._poller.contradicted(execution.id)
                return None
            recorded = page.recorded.get(execution.id)
            is_early = not page.request.scans and not listing.cursor.complete_at and recorded is None
            if is_early and is_terminal(execution) and self._is_history(page, execution):
                return None  # the first scan is under way: it shows whether this is history
            known = recorded or ExecutionRecord(execution.id, listing.watch.pipeline)
            entry = TrackedExecution(known, listing.watch, known.polled_at, recorded=recorded is not None)
            self._registry.enter(entry)
        try:
            return self._evaluate(entry, execution, page)
        except BaseException:
            self._undo(entry)
            raise

    def _undo(self, entry: TrackedExecution) -> None:
        """Let all be as it was before: what is not recorded is as unknown to the next reading."""
        entry.pending = None
        self._put_back(entry, 0.0 if entry.recorded else None)

    async def _record(self, several: Sequence[Evaluation]) -> None:
        """Write, in one transaction, what rows led to, and let go of their entries.

        If that fails each is written for itself: what is wrong with one harms no other.
        """
        try:
            await self._poller.record(several)
        except BaseException as error:
            is_of_one = isinstance(error, StoreError) and not isinstance(error, _FATAL)
            if is_of_one and self._deps.store.monitor.failing_since is None and len(several) > 1:
                outcomes = await asyncio.gather(*(self._record([each]) for each in several), return_exceptions=True)
                raised = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
                fatal = (failure for failure in raised if isinstance(failure, _FATAL))
                if raised:  # what ends the daemon, if there is such: the others come again
                    raise next(fatal, raised[0]) from error
                return
            for each in several:
                self._undo(each.entry)
            raise
        for each in several:
            self._let_go(each)

    def _let_go(self, evaluation: Evaluation) -> None:
        """Let an entry go, with the row that was evaluated."""
        entry = evaluation.entry
        if entry.pending is None:
            is_told = evaluation.polled_at is not None and not evaluation.contradicts
            entry.row = evaluation.execution if is_told else None
        self._put_back(entry, evaluation.next_s)

    def _put_back(self, entry: TrackedExecution, next_s: float | None) -> None:
        """Put an entry back for a poll so long after the request of this one. It is lost if that fails: nobody has it.

        So whatever is raised ends the daemon, though the failure of a page does not.
        """
        try:
            self._registry.put_back(entry, next_s, now=self._clock.monotonic())
        except Exception as error:
            self._deps.fatal(error)
            raise

    def _evaluate(self, entry: TrackedExecution, execution: ExecutionSnapshot, page: ListedPage) -> Evaluation:
        """Evaluate a row.

        One that says it has ended is confirmed by a GET, unless one has just denied that. An execution nobody knew is
        recorded as found until then, so that it is reported after a crash, too.
        """
        lease, sent_at = self._deps.lease, page.reply.sent_at
        entry.asked_at = sent_at
        self._deps.metrics.polls[Outcome.OK].inc()
        if not entry.known.found_at:
            entry.known = replace(entry.known, found_at=page.found_at)
            is_unknown = entry.known.status is None and entry.known.lost is None
            if entry.watch.whole and is_unknown and is_terminal(execution) and self._is_history(page, execution):
                at = self._clock.steady_us()
                known = replace(entry.known, status=execution.status, since_at=at, polled_at=at, ended_at=at)
                known = replace(known, finished_at=execution.ended_at or at)
                # Of the time before `lookback` a page shows some rows by chance: they would look like a quiet time.
                is_old = (known.finished_at or at) < page.request.listing.scan.horizon
                ended = None if is_old else ended_execution(known, execution)
                return Evaluation(entry, execution, known, ExecutionChange(lease, None, known, (), ended=ended), None)
        details, is_failed = self._rules.details, execution.status == Status.FAILED
        is_selected = details is Details.ALWAYS or (details is Details.FAILED and is_failed)
        if not (is_selected and is_terminal(execution)):
            return self._deps.evaluator.success(entry, execution, sent_at=sent_at)
        now = self._clock.monotonic()
        if now >= entry.denied_until:
            entry.pending = PendingConfirmation(execution, sent_at, now)
            if (recorder := self._alert_rules.recorders.get(entry.known.pipeline)) is not None:
                recorder.pending.add(entry)
        found = None if entry.recorded else ExecutionChange(lease, None, entry.known, ())
        return Evaluation(entry, execution, entry.known, found, 0.0)

    def _is_history(self, page: ListedPage, execution: ExecutionSnapshot) -> bool:
        """Return whether an execution that nobody knew had ended before its pipeline was watched, or long ago.

        A row that only a later scan shows is new, unless by its date it ended much earlier. A row of the first scan is
        new if it ended since the watch began.
        """
        listing, rules = page.request.listing, self._rules
        cursor = listing.cursor
        is_baseline, before_us = rules.first_sight is FirstSight.BASELINE, cursor.ahead_us or 0
        # One of the clocks may have been set since, ours while the daemon was off: whichever it was, nothing is lost.
        since_at = cursor.since_at + min(0, before_us - page.reply.ahead_us)
        at = dated(execution) or ApiDates(before_us, self._clock.steady_us()).ours(execution.finished_at)
        if at is None:
            return is_baseline and not cursor.complete_at
        if cursor.complete_at:
            history_us = HISTORY_US if is_baseline else max(HISTORY_US, rules.lookback_us)
            return at < since_at - history_us or listing.scan.is_beyond_lookback(at)
        return at <= since_at if is_baseline else at < since_at - rules.lookback_us


def _ended_at(evaluation: Evaluation) -> int:
    return (evaluation.execution and evaluation.execution.ended_at) or 0


def by_id(executions: Sequence[ExecutionSnapshot], *, first: int) -> Mapping[str, Row]:
    """Return the rows of a page by id; of one that comes twice that which says it has ended: nothing undoes an end."""
    rows: dict[str, Row] = {}
    for index, execution in enumerate(executions, first):
        if execution.id not in rows or is_terminal(execution):
            rows[execution.id] = index, execution
    return rows
