"""Two examples of every event type: one with all that it may hold, and one with what it always holds.

A template that renders both can render what comes. Texts hold what breaks JSON if it is put between quotes.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from uuid import UUID

from watcher.domain.cloudevents import (
    ExecutionEventParams,
    GapEventParams,
    ObservedAt,
    PipelineEventParams,
    account_event,
    closed_event,
    execution_block,
    execution_event,
    gap_event,
    pipeline_event,
    reminder_event,
    sink_event,
    trial_event,
)
from watcher.domain.event import AccountTrouble, ClosedReason, Event, EventKey, EventType, GapReason
from watcher.domain.execution import LOST, ExecutionRecord, ExecutionSnapshot, FailedNode, LostReason, Status
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.transitions import StatusChange
from watcher.domain.watch import Watch

AT = datetime(2026, 11, 24, 12, 0, 31, tzinfo=UTC)
OPENED_AT = AT - timedelta(minutes=41)

_PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
_EXECUTION = "9a1b0000-0000-4000-8000-000000000001"
_TEXT = 'upstream "timeout" after 30 s\nat C:\\new <b>Größe</b> & more'
_LINK = "https://example.com/agents/{pipelineId}/runs/{executionId}"
_STATUSES = {
    EventType.EXECUTION_NEW: Status.NEW,
    EventType.EXECUTION_RUNNING: Status.RUNNING,
    EventType.EXECUTION_PAUSED: Status.PAUSED,
    EventType.EXECUTION_SUCCESS: Status.SUCCESS,
    EventType.EXECUTION_FAILED: Status.FAILED,
    EventType.EXECUTION_UNRECOGNIZED: "escalated",
    EventType.EXECUTION_OVERDUE: Status.RUNNING,
    EventType.EXECUTION_LOST: LOST,
}
_OF_RULES = {
    EventType.PIPELINE_FAILING: EventType.PIPELINE_FAILING,
    EventType.PIPELINE_RECOVERED: EventType.PIPELINE_FAILING,
    EventType.PIPELINE_SILENT: EventType.PIPELINE_SILENT,
    EventType.PIPELINE_ACTIVE: EventType.PIPELINE_SILENT,
}
"""Events of rules, and the kind of their problem."""


def example_events() -> Iterator[Event]:
    """Yield both examples of every type."""
    for is_full in (True, False):
        yield from _of_executions(is_full=is_full)
        yield from _of_pipelines(is_full=is_full)
        yield from _of_others(is_full=is_full)
        yield from _of_problems(is_full=is_full)


def example_groups() -> Iterator[Sequence[Event]]:
    """Yield two groups of what is grouped: of full examples, and of the others."""
    for is_full in (True, False):
        gap = next(_of_pipelines(is_full=is_full))
        yield tuple(chain(_of_executions(is_full=is_full), [gap]))


def _watch(*, is_full: bool) -> Watch:
    if is_full:
        return Watch("default", _PIPELINE, (), name='Sales "agent"', labels={"team": 'the "A" team'})
    return Watch("default", _PIPELINE, ())


def _of_executions(*, is_full: bool) -> Iterator[Event]:
    for sequence, (type_, status) in enumerate(_STATUSES.items(), 1):
        is_overdue = type_ is EventType.EXECUTION_OVERDUE
        params = ExecutionEventParams(
            watch=_watch(is_full=is_full),
            status_change=StatusChange(type_, status, status, "running" if is_full else None, 1, sequence),
            known=ExecutionRecord(_EXECUTION, _PIPELINE),
            observed_at=ObservedAt(AT, OPENED_AT if is_full else None),
            facts=_facts(status) if is_full else None,
            link=_LINK if is_full else None,
            reason=LostReason.NOT_FOUND if type_ is EventType.EXECUTION_LOST else None,
            overdue_s=125.0 if is_overdue else None,
            problem=_change(EventType.EXECUTION_OVERDUE, is_closed=not is_overdue) if is_full or is_overdue else None,
        )
        yield execution_event(params)


def _facts(status: str) -> ExecutionSnapshot:
    node = FailedNode("2d3e0000-0000-4000-8000-000000000005", 'Say "hello"', _TEXT)
    return ExecutionSnapshot(
        id=_EXECUTION,
        status=status,
        version_id="1c2d0000-0000-4000-8000-000000000002",
        version_number=7,
        started_at=OPENED_AT,
        finished_at=AT - timedelta(seconds=0.75),
        error=_TEXT,
        ai_tokens_used=512,
        nodes_started=3,
        triggered_by="message_received",
        triggered_by_entity_id="5e6f0000-0000-4000-8000-000000000003",
        conversation_id="7a8b0000-0000-4000-8000-000000000004",
        failed_nodes=(node, node),
        goals=('Booked "it"',),
    )


def _of_pipelines(*, is_full: bool) -> Iterator[Event]:
    watch, link = _watch(is_full=is_full), _LINK if is_full else None
    gap = GapEventParams(watch, GapReason.DELETED, at_most=12 if is_full else None, link=link)
    yield gap_event(gap, sequence=1, at=AT)
    block = execution_block(next(_of_executions(is_full=True)).body) if is_full else None
    for sequence, (type_, kind) in enumerate(_OF_RULES.items(), 2):
        params = PipelineEventParams(watch, link=link, execution=block)
        problem = _change(kind, is_closed=type_ is not kind)
        yield pipeline_event(type_, params, sequence=sequence, at=AT, problem=problem)


def _of_others(*, is_full: bool) -> Iterator[Event]:
    reason, cause = (AccountTrouble.UNREACHABLE, "timeout") if is_full else (AccountTrouble.OVER_BUDGET, None)
    for sequence, type_ in enumerate((EventType.ACCOUNT_DEGRADED, EventType.ACCOUNT_RECOVERED), 1):
        problem = _change(EventType.ACCOUNT_DEGRADED, is_closed=type_ is EventType.ACCOUNT_RECOVERED)
        yield account_event(
            type_, account="default", reason=reason, cause=cause, sequence=sequence, at=AT, problem=problem
        )
    for sequence, type_ in enumerate((EventType.SINK_FAILING, EventType.SINK_RECOVERED, EventType.SINK_DISABLED), 1):
        problem = _change(EventType.SINK_FAILING, is_closed=type_ is EventType.SINK_RECOVERED)
        yield sink_event(type_, sink="ops", answer="503", sequence=sequence, at=AT, problem=problem)
    yield trial_event(sink="ops", at=AT)


def _of_problems(*, is_full: bool) -> Iterator[Event]:
    _, failing, *_ = _of_pipelines(is_full=is_full)
    problem = _change(EventType.PIPELINE_FAILING)
    yield reminder_event(failing.body, problem.problem, sink="ops", sequence=1, at=AT)
    closing = _change(EventType.PIPELINE_FAILING, is_closed=True)
    opening = failing.body if is_full else None  # what opened it may be gone
    yield closed_event(opening, reason=ClosedReason.REMOVED, at=AT, problem=closing)


def _change(kind: EventType, *, is_closed: bool = False) -> ProblemChange:
    id_ = UUID("7d0c0000-0000-5000-8000-000000000001")
    count = 7 if kind is EventType.PIPELINE_FAILING else 0
    problem = Problem(id_, kind, OPENED_AT, EventKey(b"", 1), count)
    return ProblemChange(problem, closed_at=AT) if is_closed else ProblemChange(problem, is_new=True)
