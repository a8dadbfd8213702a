"""Polls executions one by one: sends the request, evaluates the answer, and records the result.

The account poller decides which execution is next. The session holds the state of the account.
"""

from collections.abc import Sequence

import structlog

from watcher.clerk.api import Reply
from watcher.domain.execution import Outcome
from watcher.domain.timestamps import Monotonic
from watcher.polling.evaluator import Evaluation
from watcher.polling.poll_item import TrackedExecution
from watcher.polling.session import SessionPart
from watcher.store.changes import ChangeSet, ExecutionChange

log = structlog.get_logger()

DENIED_FOR_S = 10.0
"""The time for which rows of lists start no other GET for an end that a GET has just denied."""


class ExecutionPoller(SessionPart):
    """Polls the executions of one account."""

    async def poll(self, entry: TrackedExecution) -> float | None:
        """Poll an execution. Return the seconds from the request to the next poll; `None` to end the polls.

        If a row with an end was waiting for this GET, the answer replaces the row. Raises `StoreError`.
        """
        deps, evaluator = self._deps, self._deps.evaluator
        # An overdue event needs the facts of the answer, so the answer is read even if it has not changed.
        known_hash, pipeline = entry.body_hash, entry.watch.pipeline
        if entry.unconfirmed_end is not None or (entry.watch.overdue_after_s and evaluator.is_overdue(entry)):
            known_hash = None
        reply = await deps.api.get(pipeline=pipeline, execution=entry.known.execution, known_hash=known_hash)
        now, execution = self._clock.monotonic(), reply.execution
        deps.metrics.count_poll(reply.outcome, now - reply.sent_at)
        if reply.outcome is Outcome.OK:
            self._breaker.note(entry, reply, now=now)
            await self._session.note_clock()
            evaluation = evaluator.success(entry, execution, sent_at=reply.sent_at)
        else:
            evaluation = self._evaluate_failure(entry, reply, now=now)
        if reply.outcome is not Outcome.OK or self._breaker.trouble is not self._session.reported:
            await self._session.report()
        if evaluation.change is None:
            self.note(evaluation)
        else:
            await self.record([evaluation])
        if execution is not None and entry.unconfirmed_end is not None:
            entry.unconfirmed_end, entry.denied_until = None, Monotonic(self._clock.monotonic() + DENIED_FOR_S)
        if evaluation.polled_at is not None and not evaluation.contradicts:
            if (recorder := self._alert_rules.recorders.get(pipeline)) is not None:
                await recorder.note_shown([entry])
            entry.body_hash = reply.body_hash
        return evaluation.next_s

    async def accept(self, entry: TrackedExecution) -> float | None:
        """Take a row as the state of an execution whose end no GET could confirm in time. Return the same as `poll`."""
        pending = entry.unconfirmed_end
        assert pending is not None
        evaluation = self._deps.evaluator.success(entry, pending.execution, sent_at=pending.sent_at)
        await self.record([evaluation])
        entry.unconfirmed_end = None
        return evaluation.next_s

    async def record(self, evaluations: Sequence[Evaluation]) -> None:
        """Write the evaluations of one pipeline together. After a `StoreError` nothing is recorded."""
        changes: list[ExecutionChange] = []
        for evaluation in evaluations:
            if evaluation.change is not None:
                evaluation.entry.body_hash = evaluation.entry.row = None
                changes.append(evaluation.change)
        if changes and (recorder := self._alert_rules.recorders.get(evaluations[0].entry.known.pipeline)) is not None:
            await recorder.record(evaluations)
        elif changes:
            change = changes[0] if len(changes) == 1 else ChangeSet(self._deps.lease, tuple(changes))
            await self._deps.store.record(change)
        for evaluation in evaluations:
            if evaluation.change is None:
                self.note(evaluation)
                continue
            entry, execution = evaluation.entry, evaluation.execution
            entry.is_recorded, entry.is_unflushed = True, False
            known, starts = evaluation.known, entry.known.status is None
            self._registry.move(entry, known)
            for emitted in evaluation.change.entries:
                self._deps.metrics.events.labels(emitted.event.type).inc()
            ended_at = None if execution is None else execution.ended_at
            # Executions that ended before the watch began, or were never seen, are not counted.
            is_news = known.sequence > 0 and known.status is not None and known.lost is None
            recent = self._session.recent_ends.get(known.pipeline) if is_news else None
            if recent is not None and (starts or known.end_seen_at is not None):
                recent.note(
                    known,
                    execution,
                    evaluation.change.ended,
                    entry.watch.rules,
                    starts=starts,
                    now=self._clock.steady_us(),
                )
                self._deps.metrics.pipelines[known.pipeline].count(known, execution, starts=starts)
            if is_news and known.end_seen_at is not None and ended_at is not None:
                self._deps.metrics.detection_delay.observe(max(0.0, (known.end_seen_at - ended_at) / 1_000_000))
            entry.polled_at = evaluation.polled_at or entry.polled_at

    def note(self, evaluation: Evaluation) -> None:
        """Note an answer that changes nothing. A later flush writes the time of the poll."""
        entry = evaluation.entry
        if evaluation.contradicts:
            self.report_contradiction(entry.known.execution)
        if evaluation.polled_at is not None:
            if not entry.is_unflushed:
                self._session.flush_later(entry)
            entry.polled_at = evaluation.polled_at

    def report_contradiction(self, execution: str) -> None:
        """Log and count an answer with another status than that with which the execution ended."""
        self._deps.metrics.contradicted.inc()
        log.warning("execution.contradicted", execution=execution, status="ended")

    def _evaluate_failure(self, entry: TrackedExecution, reply: Reply, *, now: Monotonic) -> Evaluation:
        lost = entry.known.lost is not None
        if entry.unconfirmed_end is not None and entry.failures is not None:
            entry.failures.refusals = 0  # a list shows the execution, so a refusal is wrong
        # Whether no other item could show that the account is usable. A lost item cannot.
        alone = self._registry.found_count == (not lost) and not self._registry.listings
        reason = self._breaker.note(entry, reply, now=now, alone=alone, lost=lost)
        log.debug(
            "poll.failed",
            account=self._deps.lease.name,
            execution=entry.known.execution,
            outcome=reply.outcome,
            reason=reply.reason,
        )
        return self._deps.evaluator.failure(entry, reason, sent_at=reply.sent_at)
