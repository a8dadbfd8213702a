"""Polls executions one by one: asks for one, evaluates the answer, records what it led to.

When to poll which is the account's; how the account is, is the session's.
"""

import structlog

from watcher.clerk.protocol import Reply
from watcher.domain.models import Execution
from watcher.polling.confirmations import DENIED_FOR_S
from watcher.polling.evaluator import Judged
from watcher.polling.policy import AccountState
from watcher.polling.poll_queue import Entry
from watcher.polling.registry import Roster
from watcher.polling.session import AccountParts, AccountSession

log = structlog.get_logger()


class ExecutionPoller:
    """Polls the executions of one account."""

    def __init__(self, parts: AccountParts, *, session: AccountSession, roster: Roster) -> None:
        """Poll for this account."""
        self._parts = parts
        self._clock = parts.clock
        self._health = parts.health
        self._session = session
        self._roster = roster

    async def poll(self, entry: Entry) -> float | None:
        """Poll once; return the seconds from the request to the next poll, `None` when nothing more is to come."""
        return await self._session.guard(self._poll(entry), instead=lambda retry_s: retry_s)

    async def accept(self, entry: Entry) -> float | None:
        """Take what a list said of an execution for its status: nobody could confirm it. Return as `poll` does."""
        return await self._session.guard(self._accept(entry), instead=lambda retry_s: retry_s)

    async def record(self, entry: Entry, judged: Judged, execution: Execution | None) -> None:
        """Write what an answer led to, if it led to anything. Raises `StoreError`: then nothing has changed."""
        if judged.contradicts:
            self._parts.metrics.contradicted.inc()
            log.warning("execution.contradicted", execution=entry.known.execution, status="ended")
        if judged.change is not None:
            await self._session.write(self._parts.store.record(judged.change))
            entry.recorded, entry.unflushed = True, False
            self._roster.move(entry, judged.known)
            for outgoing in judged.change.outgoing:
                self._parts.metrics.events.labels(outgoing.event.type).inc()
            finished_at = None if execution is None else execution.finished_at
            # What had ended before it was watched says nothing of the watching.
            if judged.change.outgoing and judged.known.ended_at is not None and finished_at is not None:
                delay_s = (self._clock.now() - finished_at).total_seconds()
                self._parts.metrics.detection_delay.observe(max(0.0, delay_s))
        elif judged.looked_at is not None:
            self._session.flush_later(entry)
        if judged.looked_at is not None:
            entry.looked_at = judged.looked_at

    def put_back(self, entry: Entry, next_s: float | None) -> None:
        """Put an entry back for a poll so long after the request of this one. It is lost if that fails: nobody has it.

        So whatever is raised ends the daemon, also where a guard is around this.
        """
        try:
            self._roster.put_back(entry, next_s, now=self._clock.monotonic())
        except Exception as error:
            self._parts.fatal(error)
            raise

    async def _poll(self, entry: Entry) -> float | None:
        reply = await self._parts.api.get(pipeline=entry.watch.pipeline, execution=entry.known.execution)
        now = self._clock.monotonic()
        self._parts.metrics.asked(reply.outcome, now - reply.sent_at)
        if reply.execution is None:
            judged = self._judge_failure(entry, reply, now=now)
        else:
            judged = self._parts.judge.success(entry, reply.execution, sent_at=reply.sent_at)
            self._session.note_success(entry, reply, now=now)
        await self._session.report_answer(failed=reply.execution is None)
        await self.record(entry, judged, reply.execution)
        if reply.execution is not None and entry.claim is not None:  # what this says goes before the row, once recorded
            entry.claim, entry.denied_until = None, now + DENIED_FOR_S
        return judged.next_s

    def _judge_failure(self, entry: Entry, reply: Reply, *, now: float) -> Judged:
        lost = entry.known.lost is not None
        if entry.claim is not None:  # a list shows it: whoever does not know it is mistaken
            entry.streak = None
        # Whether nothing else could vouch for the account: what is lost cannot.
        alone = self._roster.found_count == (not lost) and not self._roster.listings
        around = AccountState(alone, self._session.success_at, not self._health.unusable)
        judged = self._parts.judge.failure(entry, reply, around)
        self._session.note_failure(reply, now=now, alone=alone, lost=lost)
        log.debug(
            "poll.failed",
            account=self._parts.lease.name,
            execution=entry.known.execution,
            outcome=reply.outcome,
            reason=reply.reason,
        )
        return judged

    async def _accept(self, entry: Entry) -> float | None:
        claim = entry.claim
        assert claim is not None  # noqa: S101 (only entries with one come here)
        judged = self._parts.judge.success(entry, claim.execution, sent_at=claim.sent_at)
        await self.record(entry, judged, claim.execution)
        entry.claim = None
        return judged.next_s
