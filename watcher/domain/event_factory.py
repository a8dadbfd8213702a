"""Makes, numbers and routes every event that is recorded, for polling and delivery alike.

It knows neither how something came about nor how it is recorded or sent. `watcher.test` is recorded nowhere and has
neither number nor route: `cloudevents` alone makes it.
"""

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from watcher.domain.cloudevents import (
    ExecutionEventParams,
    GapEventParams,
    PipelineEventParams,
    account_event,
    closed_event,
    execution_event,
    gap_event,
    pipeline_event,
    reminder_event,
    sink_event,
)
from watcher.domain.envelope import account_source, new_problem, pipeline_source, sink_source
from watcher.domain.event import AccountTrouble, ClosedReason, Event, EventType, OutboxEntry
from watcher.domain.problems import PROBLEM_KINDS, Problem, ProblemChange
from watcher.domain.routing import Router
from watcher.domain.watch import Watch


class Reported(NamedTuple):
    """An event on its way, and what it does to a problem, if anything."""

    entry: OutboxEntry
    problem: ProblemChange | None


class EventFactory:
    """The events of one process. `after` is the last sequence of the same stream, `at` when it was seen (wall clock).

    Routes may change as it runs: an event goes to whom `router` knows when it is made.
    """

    def __init__(self, router: Router) -> None:
        self.router = router

    def execution(self, params: ExecutionEventParams) -> OutboxEntry:
        """Return an event of an execution, which its status change numbers."""
        event, problem = execution_event(params), params.problem
        opening = None if problem is None or problem.closed_at is None else problem.problem.opening
        sinks = self.router.sinks_for(event.type, watch=params.watch)
        return OutboxEntry(event, sinks, opening, self.router.groups_of(event, sinks))

    def gap(self, params: GapEventParams, *, after: int, at: datetime) -> OutboxEntry:
        """Return `pipeline.gap`."""
        event = gap_event(params, sequence=after + 1, at=at)
        sinks = self.router.sinks_for(event.type, watch=params.watch)
        return OutboxEntry(event, sinks, groups=self.router.groups_of(event, sinks))

    def pipeline(
        self, type_: EventType, params: PipelineEventParams, *, problem: Problem | None, after: int, at: datetime
    ) -> Reported:
        """Return what a pipeline's rules conclude: it opens a problem, or closes that `problem`."""
        edge = _edge(type_, pipeline_source(params.watch), problem, sequence=after + 1, at=at)
        if edge is not None and edge.is_new:
            edge = replace(edge, problem=replace(edge.problem, failed_count=params.failed_count))
        event = pipeline_event(type_, params, sequence=after + 1, at=at, problem=edge)
        return Reported(self._routed(event, edge, watch=params.watch), edge)

    def closed(self, problem: Problem, opening: bytes | None, *, reason: ClosedReason, at: datetime) -> Reported:
        """Return `problem.closed`, which closes a problem whose opening was that, as far as it is there."""
        edge = ProblemChange(problem, closed_at=at)
        return Reported(self._routed(closed_event(opening, reason=reason, at=at, problem=edge), edge), edge)

    def account(
        self,
        type_: EventType,
        *,
        account: str,
        reason: AccountTrouble,
        cause: str | None,
        problem: Problem | None,
        after: int,
        at: datetime,
    ) -> Reported:
        """Return `account.degraded`, which opens a problem, or `account.recovered`, which closes that `problem`."""
        edge = _edge(type_, account_source(account), problem, sequence=after + 1, at=at)
        event = account_event(
            type_, account=account, reason=reason, cause=cause, sequence=after + 1, at=at, problem=edge
        )
        return Reported(self._routed(event, edge), edge)

    def sink(
        self, type_: EventType, *, sink: str, answer: str, problem: Problem | None, after: int, at: datetime
    ) -> Reported:
        """Return an event of a sink itself, for all the other sinks: it opens its one problem, changes or closes it."""
        edge = _edge(type_, sink_source(sink), problem, sequence=after + 1, at=at)
        event = sink_event(type_, sink=sink, answer=answer, sequence=after + 1, at=at, problem=edge)
        return Reported(self._routed(event, edge, but=sink), edge)

    def reminder(self, opening: bytes, problem: Problem, *, sink: str, after: int, at: datetime) -> OutboxEntry:
        """Return `problem.reminder` for that sink alone, from the body of the event that opened the problem."""
        return OutboxEntry(reminder_event(opening, problem, sink=sink, sequence=after + 1, at=at), (sink,))

    def _routed(
        self, event: Event, edge: ProblemChange | None, *, watch: Watch | None = None, but: str | None = None
    ) -> OutboxEntry:
        """Send what closes a problem where what opened it went, whatever the routes say by now."""
        if edge is not None and edge.closed_at is not None:
            return OutboxEntry(event, (), with_sinks_of=edge.problem.opening)
        return OutboxEntry(event, self.router.sinks_for(event.type, watch=watch, but=but))


def _edge(
    type_: EventType, source: str, problem: Problem | None, *, sequence: int, at: datetime
) -> ProblemChange | None:
    """Return what an event of a pipeline, an account or a sink does to the problem it is about."""
    if type_ not in PROBLEM_KINDS:
        return None if problem is None else ProblemChange(problem, closed_at=at)
    if problem is not None:
        return ProblemChange(problem)
    return ProblemChange(new_problem(type_, source, nth=sequence, sequence=sequence, at=at), is_new=True)
