"""Makes all events: their data, sequences and sinks. docs/reference/events.md describes the events.

Callers decide whether an event is due, and record the event. An event has only those fields of an API answer that are
named here.
"""

import json
import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from watcher.domain.envelope import (
    LIST_LENGTH,
    NAMESPACE,
    Json,
    cut,
    event_of,
    new_problem,
    ordering_key_of,
    present,
    problem_source,
    sink_source,
    timestamp,
)
from watcher.domain.event import AccountTrouble, ClosedReason, Event, EventType, OutboxEntry
from watcher.domain.execution import TERMINAL_STATUSES, ExecutionRecord, ExecutionSnapshot, Status
from watcher.domain.problems import PROBLEM_KINDS, Problem, ProblemChange, SentOpening, severity_of
from watcher.domain.routing import Router
from watcher.domain.timestamps import Micros, from_us, to_us
from watcher.domain.transitions import StatusChange
from watcher.domain.watch import Watch


class Reported(NamedTuple):
    """An event to be recorded, and the change of its problem, if it has one."""

    entry: OutboxEntry
    problem: ProblemChange | None


class EventFactory:
    """The factory of all events of one process. An event gets the sinks that `router` names when the event is made.

    The parameter `after` is the last sequence of the event's stream, and `at` is the present moment (wall clock).
    """

    def __init__(self, router: Router) -> None:
        self.router = router

    def execution(
        self,
        change: StatusChange,
        known: ExecutionRecord,
        *,
        watch: Watch,
        observed_at: datetime,
        seen_at: Micros,
        not_before: datetime | None = None,
        pipeline_name: str | None = None,
        facts: ExecutionSnapshot | None = None,
        link: str | None = None,
        overdue_s: float | None = None,
        limit_s: float | None = None,
        problem: ProblemChange | None = None,
    ) -> OutboxEntry:
        """Return an event of an execution. The id depends only on the execution and the change, never on the store.

        `observed_at` and `seen_at` are the moment of the poll that saw the change, on the wall clock and on the steady
        clock. `not_before` is the time of the last poll that saw the old status (wall clock). `facts` is the API's
        answer; a lost execution has none. An overdue execution exceeds `limit_s` by `overdue_s`.
        """
        name = "/".join((watch.account, watch.pipeline, known.execution, change.type, change.kind, str(change.nth)))
        reported_at, happened_at = _dates_of(change, known, facts)
        delay_us = None if reported_at is None else max(0, seen_at - (happened_at or seen_at))
        link = link and link.replace("{executionId}", known.execution)
        data = pipeline_data(watch, link=link, name=(facts and facts.pipeline_name) or pipeline_name)
        if facts is not None:
            data["pipeline"] |= {"versionId": cut(facts.version_id), "versionNumber": facts.version_number}
        data |= {
            "execution": _execution(change, known, facts),
            "reason": known.lost,
            "overdueSeconds": None if overdue_s is None else round(overdue_s, 3),
            "limitSeconds": limit_s,
            "tokensPerExecution": watch.max_tokens if change.type is EventType.EXECUTION_EXPENSIVE else None,
            "problem": problem and problem_data(problem),
            "observed": {
                "at": timestamp(observed_at),
                "notBefore": not_before and timestamp(not_before),
                "delaySeconds": None if delay_us is None else round(delay_us / 1_000_000, 3),
            },
        }
        event = event_of(
            *(change.type, watch.source, reported_at or observed_at),
            sequence=change.sequence,
            data=data,
            subject=known.execution,
            id_=uuid.uuid5(NAMESPACE, name),
        )
        return self.router.entry_of(event, watch=watch)

    def pipeline(
        self,
        type_: EventType,
        watch: Watch,
        more: Json,
        problem: Problem | None,
        *,
        name: str | None = None,
        link: str | None = None,
        failed_count: int = 0,
        after: int,
        at: datetime,
    ) -> Reported:
        """Return an event of a pipeline, with the data `more` in addition, and the change of its problem.

        `problem` is as for `of_source`. A link with `{executionId}` leads to the execution in `more`, and is left out
        if `more` has no execution.
        """
        if link and "{executionId}" in link:
            execution = more.get("execution")
            link = None if execution is None else link.replace("{executionId}", execution["id"])
        data = pipeline_data(watch, link=link, name=name) | more
        source = watch.source
        return self.of_source(type_, source, data, problem, after=after, at=at, watch=watch, failed_count=failed_count)

    def of_source(
        self,
        type_: EventType,
        source: str,
        data: Json,
        problem: Problem | None,
        *,
        after: int,
        at: datetime,
        watch: Watch | None = None,
        without_sink: str | None = None,
        failed_count: int = 0,
    ) -> Reported:
        """Return an event of a pipeline, an account or a sink, and the change of its problem.

        Without `problem` an opening opens a new problem with `failed_count` failures. With `problem` an opening reports
        that problem again, and any other event closes the problem. A closing names no sinks, because it goes to those
        of the opening. The sink `without_sink` does not get the event.
        """
        sequence, change = after + 1, None
        if type_ not in PROBLEM_KINDS:
            change = None if problem is None else ProblemChange(problem, closed_at=at)
        elif problem is not None:
            change = ProblemChange(problem)
        else:
            opened = new_problem(type_, source, nth=sequence, sequence=sequence, at=at)
            change = ProblemChange(replace(opened, failed_count=failed_count), is_new=True)
        data = {**data, "problem": change and problem_data(change), "observed": {"at": timestamp(at)}}
        event = event_of(type_, source, at, sequence=sequence, data=data)
        if change is not None and change.closed_at is not None:
            return Reported(self.router.entry_to(event), change)
        return Reported(self.router.entry_of(event, watch=watch, without_sink=without_sink), change)

    def acknowledgement(
        self,
        problem: Problem,
        opening: bytes | None,
        *,
        by: str | None,
        comment: str | None,
        until: datetime | None,
        after: int,
        at: datetime,
    ) -> OutboxEntry:
        """Return `problem.acknowledged`. `opening` is the body of the problem's opening, if the store still has it."""
        taken = {"by": by, "comment": comment, "until": until and timestamp(until)}
        return self._of_problem(
            EventType.PROBLEM_ACKNOWLEDGED, ProblemChange(problem), opening, {"acknowledgement": taken}, after, at
        )

    def closing(
        self, problem: Problem, opening: bytes | None, *, reason: ClosedReason, after: int, at: datetime
    ) -> Reported:
        """Return `problem.closed`. `opening` is the body of the problem's opening, if the store still has it."""
        change = ProblemChange(problem, closed_at=at)
        entry = self._of_problem(EventType.PROBLEM_CLOSED, change, opening, {"reason": reason}, after, at)
        return Reported(entry, change)

    def account(
        self,
        account: str,
        trouble: AccountTrouble | None,
        before: AccountTrouble | None,
        *,
        cause: str | None,
        problem: Problem | None,
        after: int,
        at: datetime,
    ) -> Reported:
        """Return `account.degraded`, which opens a problem; without `trouble` return `account.recovered`.

        `account.recovered` closes `problem`, and has the former trouble `before` as its reason. `cause` is the last
        error: a status code, or a fixed word of the program.
        """
        type_ = EventType.ACCOUNT_DEGRADED if trouble else EventType.ACCOUNT_RECOVERED
        data = {"account": account, "reason": trouble or before, "cause": cause}
        return self.of_source(type_, f"/accounts/{account}", data, problem, after=after, at=at)

    def reminder(self, sent: SentOpening, *, sink: str, after: int, at: datetime) -> OutboxEntry:
        """Return `problem.reminder` for this sink alone, with the data of the opening and the problem as it is now."""
        data = with_latest(json.loads(sent.body)["data"], ProblemChange(sent.problem))
        data["lastEndedAt"] = sent.last_ended_at and timestamp(from_us(sent.last_ended_at))
        ordering_key, source = _ordering_key_of(sent.problem), sink_source(sink)
        event = event_of(
            EventType.PROBLEM_REMINDER, source, at, sequence=after + 1, data=data, ordering_key=ordering_key
        )
        return OutboxEntry(event, (sink,))

    def report(
        self, name: str, report: Json, *, sinks: Iterable[str], moment: datetime, after: int, at: datetime
    ) -> OutboxEntry:
        """Return `watcher.report` for these sinks alone. The report is scheduled for `moment` (wall clock)."""
        id_ = uuid.uuid5(NAMESPACE, f"report/{name}/{to_us(moment)}")
        data = {"report": report, "observed": {"at": timestamp(at)}}
        source = f"/reports/{name}"
        event = event_of(EventType.WATCHER_REPORT, source, moment, sequence=after + 1, data=data, id_=id_)
        return OutboxEntry(event, tuple(dict.fromkeys(sinks)))

    def _of_problem(
        self, type_: EventType, change: ProblemChange, opening: bytes | None, more: Json, after: int, at: datetime
    ) -> OutboxEntry:
        """Return an event about a problem, with the data of the opening and `more`. The store adds the sinks."""
        data: Json = {} if opening is None else json.loads(opening)["data"]
        data = with_latest(data, change) | {**more, "observed": {"at": timestamp(at)}}
        source, ordering_key = problem_source(change.problem.id), _ordering_key_of(change.problem)
        return self.router.entry_to(
            event_of(type_, source, at, sequence=after + 1, data=data, ordering_key=ordering_key)
        )


def _ordering_key_of(problem: Problem) -> bytes:
    """Return the ordering key of a problem's opening. Later events of the problem share it, so they are sent later."""
    return ordering_key_of(problem.kind, problem.opening.stream, id_=problem.id)


def pipeline_data(watch: Watch, *, link: str | None, name: str | None) -> Json:
    """Return the data that all events of a pipeline have. The API's `name` is used if none is configured."""
    return {
        "account": watch.account,
        "labels": dict(watch.labels),
        "link": link and link.replace("{pipelineId}", watch.pipeline),
        "runbook": watch.runbook,
        "pipeline": {"id": watch.pipeline, "name": cut(watch.name or name)},
    }


def _dates_of(
    change: StatusChange, known: ExecutionRecord, facts: ExecutionSnapshot | None
) -> tuple[datetime | None, Micros | None]:
    """Return the API's date of a change, and the same moment on the steady clock; `None` if the API gives no date."""
    if facts and change.kind in TERMINAL_STATUSES:
        return facts.finished_at, facts.ended_at
    if facts and change.kind == Status.RUNNING and change.nth == 1 and not known.was_paused:
        return facts.started_at, facts.began_at
    return None, None


def _execution(change: StatusChange, known: ExecutionRecord, facts: ExecutionSnapshot | None) -> Json:
    head: Json = {"id": known.execution, "status": cut(change.status), "previousStatus": cut(change.previous)}
    if facts is None:
        return head
    duration_s = facts.duration_s
    said = head | {
        "startedAt": facts.started_at and timestamp(facts.started_at),
        "finishedAt": facts.finished_at and timestamp(facts.finished_at),
        "durationSeconds": None if duration_s is None else round(duration_s, 3),
        "error": cut(facts.error),
        "aiTokensUsed": facts.ai_tokens_used,
        "nodesStarted": facts.nodes_started,
        "triggeredBy": cut(facts.triggered_by),
        "triggeredByEntityId": cut(facts.triggered_by_entity_id),
        "conversationId": cut(facts.conversation_id),
    }
    if facts.failed_nodes:
        said["failedNodes"] = [
            present({"id": cut(node.id), "name": cut(node.name), "error": cut(node.error)})
            for node in facts.failed_nodes[:LIST_LENGTH]
        ]
    if facts.goals:
        said["goals"] = [cut(goal) for goal in facts.goals[:LIST_LENGTH] if goal]
    return said


def with_latest(opening: Json, change: ProblemChange) -> Json:
    """Return the data of an opening, with the problem after its `change` and with its newest failure."""
    latest = change.problem.latest
    newest = latest and {**latest._asdict(), "at": timestamp(from_us(latest.at))}
    return present({**opening, "problem": problem_data(change), "latest": newest})


def problem_data(change: ProblemChange) -> Json:
    """Return the `problem` block of an event."""
    problem, closed_at = change.problem, change.closed_at
    duration = None if closed_at is None else max(timedelta(), closed_at - problem.opened_at)
    return {
        "id": str(problem.id),
        "kind": problem.kind,
        "severity": severity_of(problem.kind),
        "openedAt": timestamp(problem.opened_at),
        "closedAt": closed_at and timestamp(closed_at),
        "durationSeconds": None if duration is None else round(duration.total_seconds(), 3),
        "count": problem.failed_count if problem.kind is EventType.PIPELINE_FAILING else None,
    }


def trial_event(*, sink: str, at: datetime) -> Event:
    """Build `watcher.test` for one sink. It is never recorded, so its sequence is always 1."""
    data = {"sink": sink, "observed": {"at": timestamp(at)}}
    return event_of(EventType.WATCHER_TEST, sink_source(sink), at, sequence=1, data=data)


def execution_block(body: bytes) -> Json:
    """Return the `execution` block from the body of an event."""
    return json.loads(body)["data"]["execution"]  # type: ignore[no-any-return] # made by `_execution`
