"""Polls executions one by one: sends the request, evaluates the answer, and records the result.

The account poller decides which execution is next. The session holds the state of the account.
"""

import structlog

from watcher.clerk.api import Reply
from watcher.domain.execution import LostReason, Outcome
from watcher.domain.timestamps import Monotonic
from watcher.polling.poll_item import Evaluation, TrackedExecution
from watcher.polling.session import SessionPart

log = structlog.get_logger()

DENIED_FOR_S = 10.0
"""The time for which rows of lists start no other GET for an end that a GET has just denied."""


class ExecutionPoller(SessionPart):
    """Polls the executions of one account."""

    async def ask(self, entry: TrackedExecution, *, accepts: bool = False) -> None:
        """Poll an execution, and put it back into the queue. With `accepts` the row that waits is its answer."""
        next_s: float | None = 0.0  # a cancelled poll is due again
        try:
            next_s = await (self._accept(entry) if accepts else self._poll(entry))
        except Exception as error:  # noqa: BLE001 (an error of one poll must not end the others)
            next_s = self._session.handle_error(error)
        finally:
            self._registry.put_back(entry, next_s)

    async def _poll(self, entry: TrackedExecution) -> float | None:
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
            self._session.note(evaluation)
        else:
            await self._session.record([evaluation])
        if execution is not None and entry.unconfirmed_end is not None:
            entry.unconfirmed_end, entry.denied_until = None, Monotonic(self._clock.monotonic() + DENIED_FOR_S)
        if evaluation.polled_at is not None and not evaluation.contradicts:
            if (recorder := self._alert_rules.recorders.get(pipeline)) is not None:
                await recorder.note_shown([entry])
            entry.body_hash = reply.body_hash
        return evaluation.next_s

    async def _accept(self, entry: TrackedExecution) -> float | None:
        """Take a row as the state of an execution whose end no GET could confirm in time. Return as `_poll`."""
        pending = entry.unconfirmed_end
        assert pending is not None
        evaluation = self._deps.evaluator.success(entry, pending.execution, sent_at=pending.sent_at)
        await self._session.record([evaluation])
        entry.unconfirmed_end = None
        return evaluation.next_s

    def _evaluate_failure(self, entry: TrackedExecution, reply: Reply, *, now: Monotonic) -> Evaluation:
        lost = entry.known.lost is not None
        if entry.unconfirmed_end is not None and entry.failures is not None:
            entry.failures.refusals = 0  # a list shows the execution, so a refusal is wrong
        # Whether no other item could show that the account is usable. A lost item cannot.
        alone = self._registry.found_count == (not lost) and not self._registry.lists
        reason = self._breaker.note(entry, reply, now=now, alone=alone, lost=lost)
        log.debug(
            "poll.failed",
            account=self._deps.lease.name,
            execution=entry.known.execution,
            outcome=reply.outcome,
            reason=reply.reason,
        )
        known_reason = entry.known.lost
        lost_for = reason if known_reason in {None, LostReason.UNREADABLE} else known_reason
        next_s = self._breaker.wait_s(entry, lost_for, sent_at=reply.sent_at)
        return self._deps.evaluator.failure(entry, reason, next_s=next_s)
