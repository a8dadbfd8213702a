"""Makes, numbers and routes every event that is recorded, for polling and delivery alike.

It knows neither how something came about nor how it is recorded or sent. `watcher.test` is recorded nowhere and has
neither number nor route: `cloudevents` alone makes it.
"""

import json
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from watcher.domain.cloudevents import (
    ExecutionEventParams,
    execution_event,
    pipeline_data,
    problem_data,
)
from watcher.domain.envelope import (
    Json,
    account_source,
    event_of,
    lane_of,
    new_problem,
    pipeline_source,
    sink_source,
    timestamp,
)
from watcher.domain.event import AccountTrouble, ClosedReason, EventType, GapReason, OutboxEntry
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

    def gap(
        self,
        watch: Watch,
        reason: GapReason,
        *,
        at_most: int | None = None,
        name: str | None = None,
        link: str | None = None,
        after: int,
        at: datetime,
    ) -> OutboxEntry:
        """Return `pipeline.gap`: `at_most` may be missing. A link that wants an execution's id is left out."""
        link = None if link and "{executionId}" in link else link
        data = {**pipeline_data(watch, link=link, name=name), "reason": reason, "atMost": at_most}
        source = pipeline_source(watch)
        return self._of_source(EventType.PIPELINE_GAP, source, data, None, after=after, at=at, watch=watch).entry

    def pipeline(
        self,
        type_: EventType,
        watch: Watch,
        *,
        name: str | None = None,
        link: str | None = None,
        execution: Json | None = None,
        failed_count: int = 0,
        problem: Problem | None,
        after: int,
        at: datetime,
    ) -> Reported:
        """Return what a pipeline's rules conclude: it opens a problem, or closes that `problem`.

        `execution` is the block of the end that opens it, to which a link leads; `failed_count` are the failures it is
        opened for.
        """
        if link and "{executionId}" in link:
            link = None if execution is None else link.replace("{executionId}", execution["id"])
        data = {**pipeline_data(watch, link=link, name=name), "execution": execution}
        source = pipeline_source(watch)
        return self._of_source(type_, source, data, problem, after=after, at=at, watch=watch, failed_count=failed_count)

    def closed(self, problem: Problem, opening: bytes | None, *, reason: ClosedReason, at: datetime) -> Reported:
        """Return `problem.closed`, which closes a problem whose opening was that, as far as it is there."""
        edge = ProblemChange(problem, closed_at=at)
        data: Json = {} if opening is None else json.loads(opening)["data"]
        data |= {"reason": reason, "problem": problem_data(edge), "observed": {"at": timestamp(at)}}
        lane, source = _lane_of(problem), f"/problems/{problem.id}"
        event = event_of(EventType.PROBLEM_CLOSED, source, at, sequence=1, data=data, lane=lane)
        return Reported(OutboxEntry(event, (), with_sinks_of=problem.opening), edge)

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
        """Return `account.degraded`, which opens a problem, or `account.recovered`, which closes that `problem`.

        `reason` is the trouble that began or ended, `cause` a word of ours, or a status code, for what went wrong last.
        """
        data = {"account": account, "reason": reason, "cause": cause}
        return self._of_source(type_, account_source(account), data, problem, after=after, at=at)

    def sink(
        self, type_: EventType, *, sink: str, answer: str, problem: Problem | None, after: int, at: datetime
    ) -> Reported:
        """Return an event of a sink itself, for all the other sinks: it opens its one problem, changes or closes it.

        `answer` is the last one it gave.
        """
        data = {"sink": sink, "answer": answer}
        return self._of_source(type_, sink_source(sink), data, problem, after=after, at=at, but=sink)

    def reminder(self, opening: bytes, problem: Problem, *, sink: str, after: int, at: datetime) -> OutboxEntry:
        """Return `problem.reminder` for that sink alone, from the body of the event that opened the problem."""
        data = json.loads(opening)["data"] | {"problem": problem_data(ProblemChange(problem))}
        lane, source = _lane_of(problem), sink_source(sink)
        event = event_of(EventType.PROBLEM_REMINDER, source, at, sequence=after + 1, data=data, lane=lane)
        return OutboxEntry(event, (sink,))

    def _of_source(
        self,
        type_: EventType,
        source: str,
        data: Json,
        problem: Problem | None,
        *,
        after: int,
        at: datetime,
        watch: Watch | None = None,
        but: str | None = None,
        failed_count: int = 0,
    ) -> Reported:
        """Return an event of a pipeline, an account or a sink, and what it does to the problem it is about.

        What closes a problem goes where its opening went, whatever the routes say by now.
        """
        sequence, edge = after + 1, None
        if type_ not in PROBLEM_KINDS:
            edge = None if problem is None else ProblemChange(problem, closed_at=at)
        elif problem is not None:
            edge = ProblemChange(problem)
        else:
            opened = new_problem(type_, source, nth=sequence, sequence=sequence, at=at)
            edge = ProblemChange(replace(opened, failed_count=failed_count), is_new=True)
        data = {**data, "problem": problem_data(edge), "observed": {"at": timestamp(at)}}
        event = event_of(type_, source, at, sequence=sequence, data=data)
        if edge is not None and edge.closed_at is not None:
            return Reported(OutboxEntry(event, (), with_sinks_of=edge.problem.opening), edge)
        sinks = self.router.sinks_for(type_, watch=watch, but=but)
        return Reported(OutboxEntry(event, sinks, groups=self.router.groups_of(event, sinks)), edge)


def _lane_of(problem: Problem) -> bytes:
    """Return the lane of the event that opened it: what else is told of it comes after that."""
    return lane_of(problem.kind, problem.opening.stream, id_=problem.id)
