"""The evaluation of one account's replies: what is recorded, and when the next poll is due."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from watcher.domain.envelope import Json, new_problem
from watcher.domain.event import EventType, OutboxEntry
from watcher.domain.event_factory import EventFactory, Reported
from watcher.domain.execution import ExecutionSnapshot, LostReason
from watcher.domain.history import ended_execution
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.timestamps import Micros, Monotonic, from_us, to_us
from watcher.domain.transitions import Observation, TransitionResult, exceeds_limit, lose, observe
from watcher.domain.watch import Watch, has_limit
from watcher.polling.poll_item import Evaluation, TrackedExecution
from watcher.runtime.clock import Clock
from watcher.runtime.pacing import Jitter, spread
from watcher.store.changes import ExecutionChange, Lease

Cadence = Callable[[float], float]
"""A function that returns the seconds until the next poll, given the seconds in the current status."""

BACKOFF_SHARE = 0.1
JITTER_SHARE = 0.1

LOST_POLLS_FOR_US = 24 * 3600 * 1_000_000


def backoff_cadence(*, min_interval_s: float, max_interval_s: float, jitter: Jitter) -> Cadence:
    """Return the cadence that waits a tenth of the time in a status, ±10 %, within the two bounds."""

    def interval(dwell_s: float) -> float:
        wanted = spread(max(min_interval_s, dwell_s * BACKOFF_SHARE), share=JITTER_SHARE, jitter=jitter)
        return min(max_interval_s, max(min_interval_s, wanted))

    return interval


@dataclass(eq=False)
class ReplyEvaluator:
    """Evaluates one account's replies. `link` is the template of the account for links to an execution.

    `pipeline_names` are the names that the API gives to pipelines, by id, as far as answers had them.
    """

    lease: Lease
    events: EventFactory
    clock: Clock
    cadence: Cadence
    link: str | None
    pipeline_names: dict[str, str] = field(default_factory=dict)

    def learn_name(self, pipeline: str, name: str | None) -> None:
        """Note the API's name of a pipeline, unless it is empty."""
        if name:
            self.pipeline_names[pipeline] = name

    def success(
        self, entry: TrackedExecution, execution: ExecutionSnapshot | None, *, sent_at: Monotonic
    ) -> Evaluation:
        """Evaluate a successful poll. `execution` is `None` if the answer equals the last one.

        The failures of `entry` end. The request was sent at `sent_at` (monotonic seconds).
        """
        watch, before, seen_at = entry.watch, entry.known, self.clock.steady_us()
        entry.failures = None
        if execution is None:
            return Evaluation(entry, None, before, None, self.cadence((seen_at - before.since_at) / 1_000_000), seen_at)
        self.learn_name(watch.pipeline, execution.pipeline_name)
        elapsed_us = round((self.clock.monotonic() - sent_at) * 1_000_000)
        poll = Observation(execution, Micros(seen_at - elapsed_us), seen_at)
        limits_s, max_tokens = watch.overdue_after_s, watch.max_tokens
        result = observe(before, poll, polled_at=entry.polled_at, overdue_after_s=limits_s, max_tokens=max_tokens)
        change = None if result.known is before else self._change(entry, result, facts=execution, seen_at=seen_at)
        known = before if change is None else change.known
        next_s = None if known.end_seen_at else self.cadence((seen_at - known.since_at) / 1_000_000)
        polled_at = None if result.dropped else seen_at
        return Evaluation(entry, execution, known, change, next_s, polled_at, result.contradicts)

    def is_overdue(self, entry: TrackedExecution) -> bool:
        """Return whether an execution would be overdue if an answer now showed its last known status."""
        limits_s = entry.watch.overdue_after_s
        return bool(limits_s) and exceeds_limit(entry.known, at=self.clock.steady_us(), overdue_after_s=limits_s)

    def failure(self, entry: TrackedExecution, reason: LostReason | None, *, next_s: float) -> Evaluation:
        """Evaluate a failed poll. `reason` is set if the execution is lost. The next poll is due after `next_s`.

        A lost execution is polled for a day. An unreadable one is polled like any execution that fails.
        """
        before, at = entry.known, self.clock.steady_us()
        if before.lost in {None, LostReason.UNREADABLE}:
            if reason is None or reason is before.lost:
                return Evaluation(entry, None, before, None, next_s)
            result = lose(before, reason, at=at, polled_at=entry.polled_at)
            return Evaluation(entry, None, result.known, self._change(entry, result, facts=None, seen_at=at), next_s)
        if at - (before.lost_at or 0) < LOST_POLLS_FOR_US:
            return Evaluation(entry, None, before, None, next_s)
        known = replace(before, end_seen_at=at, ended_at=at)
        ended = ended_execution(known, None)
        change = ExecutionChange(self.lease, known.sequence, known, (), ended=ended)
        return Evaluation(entry, None, known, change, None)

    def pipeline_event(
        self, watch: Watch, type_: EventType, more: Json, problem: Problem | None = None, *, count: int = 0, after: int
    ) -> Reported:
        """Return an event of a pipeline, as `EventFactory.pipeline` does. `count` is its `failed_count`."""
        name, link, at = self.pipeline_names.get(watch.pipeline), self.link, self.clock.now()
        return self.events.pipeline(
            type_, watch, more, problem, name=name, link=link, failed_count=count, after=after, at=at
        )

    def _change(
        self, entry: TrackedExecution, result: TransitionResult, *, facts: ExecutionSnapshot | None, seen_at: Micros
    ) -> ExecutionChange:
        """Return the change to record, with its events.

        Events are dated by the wall clock. They say that the change came between the last poll and now; the time of the
        last poll is computed from the time that has passed since.
        """
        before, known, at = entry.known, result.known, self.clock.now()
        unseen = timedelta(microseconds=max(0, seen_at - entry.polled_at))
        limits_s = entry.watch.overdue_after_s
        limit_s = limits_s.get(known.status or "", 0.0)
        closed = before.overdue_sequence
        if entry.is_unwatched or (closed is not None and not has_limit(limits_s, before.status or "")):
            closed = None  # maintenance closes a problem without a limit
        entries: list[OutboxEntry] = []
        problems: list[ProblemChange] = []
        for status_change in result.status_changes:
            is_overdue, problem = status_change.type is EventType.EXECUTION_OVERDUE, None
            if is_overdue:
                problem = self._overdue_problem(entry, status_change.nth, status_change.sequence, at=at)
            elif closed is not None and status_change.type is not EventType.EXECUTION_EXPENSIVE:
                nth = dict(before.counts).get("overdue", 1)  # the next other event closes the problem
                opened_at = at if before.overdue_at is None else from_us(before.overdue_at)
                problem = self._overdue_problem(entry, nth, closed, at=opened_at, closed_at=at)
                closed = None
            if problem is not None:
                problems.append(problem)
            event = self.events.execution(
                status_change,
                known,
                watch=entry.watch,
                observed_at=at,
                seen_at=seen_at,
                not_before=None if before.status is None else at - unseen,
                pipeline_name=self.pipeline_names.get(entry.watch.pipeline),
                facts=facts,
                link=self.link,
                overdue_s=(seen_at - known.since_at) / 1_000_000 - limit_s if is_overdue else None,
                limit_s=limit_s if is_overdue else None,
                problem=problem,
            )
            entries.append(event)
            if is_overdue:
                known = replace(known, overdue_at=to_us(at))
        sequence = before.sequence if entry.is_recorded else None
        ended = None if known.end_seen_at is None else ended_execution(known, facts)
        return ExecutionChange(self.lease, sequence, known, tuple(entries), tuple(problems), ended)

    def _overdue_problem(
        self, entry: TrackedExecution, nth: int, sequence: int, *, at: datetime, closed_at: datetime | None = None
    ) -> ProblemChange:
        """Return the nth overdue problem of an execution, closed at `closed_at`, or new.

        The event with this `sequence` opened the problem at `at`.
        """
        source, subject = entry.watch.source, entry.known.execution
        problem = new_problem(EventType.EXECUTION_OVERDUE, source, subject=subject, nth=nth, sequence=sequence, at=at)
        return ProblemChange(problem, closed_at, is_new=closed_at is None)
