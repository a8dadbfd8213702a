"""The state that all polls of one account share, and the handling of their errors.

The session builds the parts of an account and connects them. `account.degraded` and `account.recovered` are reported
once, also over restarts.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from watcher.domain.errors import FINAL_STORE_ERRORS, StoreError
from watcher.domain.timestamps import EARLIEST
from watcher.polling.dependencies import AccountDependencies
from watcher.polling.pipeline_recorder import AccountRules
from watcher.polling.poll_item import Evaluation, TrackedExecution
from watcher.polling.poll_queue import PollQueue
from watcher.polling.recent_ends import RecentEnds
from watcher.polling.registry import ExecutionRegistry
from watcher.runtime.http_client import REMEDIES
from watcher.store.changes import ChangeSet, ExecutionChange, SourceChange

log = structlog.get_logger()

WORTH_SAVING_S = 1.2
"""The shortest pause that is written to the store: a restart takes about as long."""

SET_AT_LEAST_US = 5_000_000
"""The least step of our clock between two runs (microseconds) that counts. The API's clock shows a step to 2 s."""

STORE_RETRY_S = 2.0
CRASH_RETRY_S = 60.0
FLUSH_COUNT = 10_000
"""The most poll times that one flush writes. With 100,000 executions the oldest unwritten time is 50 s old."""


class AccountSession:
    """The shared state of one account's polls. `reported` is the trouble that was reported last, `None` if it ended.

    `ahead_before_us` is the lead of the API's clock over ours that was stored before this start. It is `None` once the
    first answer was compared with it.
    """

    def __init__(self, deps: AccountDependencies) -> None:
        """Start without executions. The state that the breaker began with is recorded already."""
        self.deps = deps
        self.poll_queue = PollQueue(deps.rules)
        self.registry = ExecutionRegistry(deps, self.poll_queue)
        self.alert_rules = AccountRules(deps)
        self.recent_ends: dict[str, RecentEnds] = {}  # of each watched pipeline
        self.reported = deps.breaker.trouble
        self._clock = deps.clock
        self._breaker = deps.breaker
        self._sequence, self._problem = deps.record.sequence, deps.record.problem
        snapshot = deps.record.snapshot
        self.ahead_before_us = None if snapshot is None else snapshot.ahead_us
        self._writing, self._moving = asyncio.Lock(), asyncio.Lock()
        self._saved = deps.breaker.pause.until, deps.record.backoff.failing_for_s
        self._unflushed: deque[TrackedExecution] = deque()  # no dict: with 100,000 entries it takes 10 MB
        deps.metrics.up.set(self.reported is None)
        deps.metrics.last_success.set_function(self._last_success)

    def handle_error(self, error: Exception) -> float:
        """Handle an exception of a poll, so that other polls go on. Return the seconds until the next attempt."""
        if isinstance(error, FINAL_STORE_ERRORS):
            self.deps.fatal(error)
        elif isinstance(error, StoreError):  # nothing was recorded, so the poll is due again
            return STORE_RETRY_S
        else:
            # without the error's text, which may contain an answer of the API
            log.error("poll.crashed", account=self.deps.lease.name, error=type(error).__name__)
        return CRASH_RETRY_S

    async def report(self) -> None:
        """Record a change of the account: trouble, its end, or a pause.

        If the store fails, the poll goes on and the change is written next time.
        """
        if self._breaker.trouble not in {None, self.reported}:
            for recorder in self.alert_rules.recorders.values():
                recorder.hold()
        paused_until, (saved_until, _) = self._breaker.pause.until, self._saved
        try:
            if paused_until != saved_until and paused_until - self._clock.monotonic() >= WORTH_SAVING_S:
                await self._save_backoff()
            if self._breaker.trouble is not self.reported:
                await self._report()
        except FINAL_STORE_ERRORS:
            raise
        except StoreError:
            return

    async def note_clock(self) -> None:
        """After the first answer, move what an earlier run recorded if our clock was set forward meanwhile.

        Otherwise executions would be overdue or slow, and pipelines silent, for as much. Raises `StoreError`. If the
        API's clock was set back instead, they are so later by as much.
        """
        if self.ahead_before_us is None:
            return
        async with self._moving:
            if self.ahead_before_us is None or self.deps.api.ahead_us is None:
                return
            by_us, lease, now = self.ahead_before_us - self.deps.api.ahead_us, self.deps.lease, self._clock.steady_us()
            if by_us >= SET_AT_LEAST_US:
                entries = [each for each in self.registry.entries.values() if each.is_recorded]
                changes = [
                    ExecutionChange(lease, each.known.sequence, each.known.moved(by_us, now=now), ())
                    for each in entries
                ]
                if changes:
                    await self.deps.store.record(ChangeSet(lease, tuple(changes)))
                for entry, change in zip(entries, changes, strict=True):
                    entry.known = change.known
                for recorder in self.alert_rules.recorders.values():
                    await recorder.move(by_us)
            self.ahead_before_us = None

    async def _report(self) -> None:
        trouble, cause, lease = self._breaker.trouble, self._breaker.cause, self.deps.lease
        async with self._writing:
            if trouble is self.reported:
                return
            after, at = self._sequence, self._clock.now()
            entry, problem = self.deps.evaluator.events.account(
                lease.name, trouble, self.reported, cause=cause, problem=self._problem, after=after, at=at
            )
            problems = () if problem is None else (problem,)
            change = SourceChange(lease, after, entry.event.sequence, trouble, (entry,), problems)
            await self.deps.store.record(change)
            self._sequence, self.reported = change.sequence, trouble
            self._problem = problem.problem if problem is not None and trouble else None
        self.deps.metrics.up.set(trouble is None)
        self.deps.metrics.events.labels(entry.event.type).inc()
        if trouble:
            known = {"cause": cause, "remedy": REMEDIES.get(cause or "")}
            known = {word: text for word, text in known.items() if text}
            log.error("account.degraded", account=lease.name, reason=trouble, **known)
        else:
            log.info("account.recovered", account=lease.name)

    async def _save_backoff(self) -> None:
        """Write pause and failures if they have changed. Raises `StoreError`."""
        async with self._writing:
            backoff = self._breaker.backoff()
            state = self._breaker.pause.until, backoff.failing_for_s
            if state != self._saved:
                await self.deps.store.save_backoff(backoff)
                self._saved = state

    async def record(self, evaluations: Sequence[Evaluation]) -> None:
        """Write the evaluations of one pipeline together. After a `StoreError` nothing is recorded."""
        changes: list[ExecutionChange] = []
        for evaluation in evaluations:
            if evaluation.change is not None:
                evaluation.entry.body_hash = evaluation.entry.row = None
                changes.append(evaluation.change)
        if changes and (recorder := self.alert_rules.recorders.get(evaluations[0].entry.known.pipeline)) is not None:
            await recorder.record(evaluations)
        elif changes:
            await self.deps.store.record(
                changes[0] if len(changes) == 1 else ChangeSet(self.deps.lease, tuple(changes))
            )
        for evaluation in evaluations:
            if evaluation.change is None:
                self.note(evaluation)
            else:
                self._note_recorded(evaluation, evaluation.change)

    def _note_recorded(self, evaluation: Evaluation, change: ExecutionChange) -> None:
        """Take over what was recorded, and count it."""
        entry, execution, metrics = evaluation.entry, evaluation.execution, self.deps.metrics
        entry.is_recorded, entry.is_unflushed = True, False
        known, starts = evaluation.known, entry.known.status is None
        self.registry.move(entry, known)
        for emitted in change.entries:
            metrics.events.labels(emitted.event.type).inc()
        # Executions that ended before the watch began, or were never seen, are not counted.
        is_news = known.sequence > 0 and known.status is not None and known.lost is None
        recent = self.recent_ends.get(known.pipeline) if is_news else None
        if recent is not None and (starts or known.end_seen_at is not None):
            now = self._clock.steady_us()
            recent.note(known, execution, change.ended, entry.watch.rules, starts=starts, now=now)
            metrics.pipelines[known.pipeline].count(known, execution, starts=starts)
        ended_at = None if execution is None else execution.ended_at
        if is_news and known.end_seen_at is not None and ended_at is not None:
            metrics.detection_delay.observe(max(0.0, (known.end_seen_at - ended_at) / 1_000_000))
        entry.polled_at = evaluation.polled_at or entry.polled_at

    def note(self, evaluation: Evaluation) -> None:
        """Note an answer that changes nothing. A later flush writes the time of the poll."""
        entry = evaluation.entry
        if evaluation.contradicts:
            self.report_contradiction(entry.known.execution)
        if evaluation.polled_at is not None:
            if not entry.is_unflushed:
                self.flush_later(entry)
            entry.polled_at = evaluation.polled_at

    def report_contradiction(self, execution: str) -> None:
        """Log and count an answer with another status than that with which the execution ended."""
        self.deps.metrics.contradicted.inc()
        log.warning("execution.contradicted", execution=execution, status="ended")

    def flush_later(self, entry: TrackedExecution) -> None:
        """Let a flush write the time of this poll, which has changed nothing else."""
        entry.is_unflushed = True
        self._unflushed.append(entry)

    async def flush(self) -> None:
        """Write the pause and failures of the account, and the times of polls without a change. Raises `StoreError`.

        A time that could not be written is written after the next poll.
        """
        await self._save_backoff()
        entries = [self._unflushed.popleft() for _ in range(min(FLUSH_COUNT, len(self._unflushed)))]
        polled_at = {entry.known.execution: entry.polled_at for entry in entries if entry.is_unflushed}
        for entry in entries:
            entry.is_unflushed = False
        if polled_at:
            await self.deps.store.save_poll_times(polled_at)

    def _last_success(self) -> float:
        """Return the Unix time of the last success, 0 before the first.

        It does not advance while the store cannot be written, because results of polls are not reported then.
        """
        success_at, failing_since = self._breaker.success_at, self.deps.store.monitor.failing_since
        if success_at == EARLIEST:
            return 0.0
        at = success_at if failing_since is None else min(success_at, failing_since)
        return self._clock.now().timestamp() - (self._clock.monotonic() - at)


class SessionPart:
    """A part of an account's polling, with what it uses of the session."""

    def __init__(self, session: AccountSession) -> None:
        deps = session.deps
        self._session, self._deps, self._rules = session, deps, deps.rules
        self._clock, self._breaker, self._alert_rules = deps.clock, deps.breaker, session.alert_rules
        self._registry, self._poll_queue = session.registry, session.poll_queue
