"""What a change is called outside: the CloudEvents envelope, the ids, the fields that docs/events.md allows."""

import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from watcher.domain.envelope import (
    LIST_LENGTH,
    NAMESPACE,
    Json,
    cut,
    event_of,
    pipeline_source,
    present,
    sink_source,
    timestamp,
)
from watcher.domain.event import Event, EventType
from watcher.domain.execution import ExecutionRecord, ExecutionSnapshot, LostReason, Status
from watcher.domain.problems import ProblemChange, severity_of
from watcher.domain.transitions import StatusChange
from watcher.domain.watch import Watch


@dataclass(frozen=True, slots=True)
class ExecutionEventParams:
    """All that an event of an execution is made from. `facts` is absent where the API had nothing to say.

    `observed_at` is when the change was seen (wall clock), `not_before` the last poll that still saw the old status, if
    any did.
    """

    watch: Watch
    status_change: StatusChange
    known: ExecutionRecord
    observed_at: datetime
    not_before: datetime | None = None
    pipeline_name: str | None = None
    facts: ExecutionSnapshot | None = None
    link: str | None = None
    reason: LostReason | None = None
    overdue_s: float | None = None
    problem: ProblemChange | None = None


def execution_event(params: ExecutionEventParams) -> Event:
    """Build an event of an execution. Its id is the same for ever, from whatever store it comes."""
    status_change, watch, execution = params.status_change, params.watch, params.known.execution
    name = "/".join(
        (watch.account, watch.pipeline, execution, status_change.type, status_change.kind, str(status_change.nth))
    )
    observed_at, reported_at = params.observed_at, _reported_at(params)
    delay = None if reported_at is None else max(timedelta(), observed_at - reported_at)
    data = {
        **_where(params),
        "execution": _execution(params),
        "reason": params.reason,
        "overdueSeconds": None if params.overdue_s is None else round(params.overdue_s, 3),
        "problem": problem_data(params.problem),
        "observed": {
            "at": timestamp(observed_at),
            "notBefore": params.not_before and timestamp(params.not_before),
            "delaySeconds": None if delay is None else round(delay.total_seconds(), 3),
        },
    }
    return event_of(
        status_change.type,
        pipeline_source(watch),
        reported_at or observed_at,
        sequence=status_change.sequence,
        data=data,
        subject=execution,
        id_=uuid.uuid5(NAMESPACE, name),
    )


def execution_block(body: bytes) -> Json:
    """Return what an event of an execution says of it."""
    return json.loads(body)["data"]["execution"]  # type: ignore[no-any-return] # as `execution_event` made it


def trial_event(*, sink: str, at: datetime) -> Event:
    """Build `watcher.test` for one sink. It is recorded nowhere, so it is always the first of its own count."""
    data = {"sink": sink, "observed": {"at": timestamp(at)}}
    return event_of(EventType.WATCHER_TEST, sink_source(sink), at, sequence=1, data=data)


def _where(params: ExecutionEventParams) -> Json:
    facts = params.facts
    link = params.link and params.link.replace("{executionId}", params.known.execution)
    where = pipeline_data(params.watch, link=link, name=(facts and facts.pipeline_name) or params.pipeline_name)
    version = {
        "versionId": cut(facts.version_id if facts else None),
        "versionNumber": facts and facts.version_number,
    }
    return where | {"pipeline": where["pipeline"] | version}


def pipeline_data(watch: Watch, *, link: str | None, name: str | None) -> Json:
    """Return what every event of a pipeline says of it; `link` may ask for its id, `name` is what the API calls it."""
    return {
        "account": watch.account,
        "labels": dict(watch.labels),
        "link": link and link.replace("{pipelineId}", watch.pipeline),
        "pipeline": {"id": watch.pipeline, "name": cut(watch.name or name)},
    }


def _execution(params: ExecutionEventParams) -> Json:
    head: Json = {
        "id": params.known.execution,
        "status": cut(params.status_change.status),
        "previousStatus": cut(params.status_change.previous),
    }
    facts = params.facts
    if facts is None:
        return head
    duration_s: float | None = None
    if facts.started_at is not None and facts.finished_at is not None:
        duration_s = round((facts.finished_at - facts.started_at).total_seconds(), 3)
    nodes = facts.failed_nodes[:LIST_LENGTH]
    return head | {
        "startedAt": facts.started_at and timestamp(facts.started_at),
        "finishedAt": facts.finished_at and timestamp(facts.finished_at),
        # below 0 it is by two clocks of the API, of which one is wrong
        "durationSeconds": None if duration_s is None or duration_s < 0 else duration_s,
        "error": cut(facts.error),
        "aiTokensUsed": facts.ai_tokens_used,
        "nodesStarted": facts.nodes_started,
        "triggeredBy": cut(facts.triggered_by),
        "triggeredByEntityId": cut(facts.triggered_by_entity_id),
        "conversationId": cut(facts.conversation_id),
        "failedNodes": [
            present({"id": cut(node.id), "name": cut(node.name), "error": cut(node.error)}) for node in nodes
        ],
        "goals": [cut(goal) for goal in facts.goals[:LIST_LENGTH] if goal],
    }


def _reported_at(params: ExecutionEventParams) -> datetime | None:
    """Return when it happened, where the API says that; an event of anything else is dated when it was seen."""
    facts, status_change = params.facts, params.status_change
    if facts and status_change.type in (EventType.EXECUTION_SUCCESS, EventType.EXECUTION_FAILED):
        return facts.finished_at
    if facts and status_change.kind == Status.RUNNING and status_change.nth == 1 and not params.known.was_paused:
        return facts.started_at
    return None


def problem_data(change: ProblemChange | None) -> Json | None:
    """Return the block of an event that opens, closes or reminds of a problem."""
    if change is None:
        return None
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
