"""The needs: problems, dead letters and gaps that somebody has to look after, the most severe first."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote
from uuid import UUID

from watcher.domain.event import EventType
from watcher.domain.problems import severity_of
from watcher.sinks.alert import Alert, clean
from watcher.web import models
from watcher.web.console import Console
from watcher.web.overview import NEEDS_COUNT, Gap, Need, OpenProblemRow, OverviewRows
from watcher.web.problems import ProblemRow, is_acknowledged, load_problems_by_id, opening_alert, problem_view


async def find_needs(console: Console, found: OverviewRows) -> Sequence[Need]:
    """Return the needs that are read from the store.

    Among equally severe problems those of accounts and sinks come first: they may be the cause of the others.
    """
    now = console.clock.now()

    def place(row: OpenProblemRow) -> tuple[object, ...]:
        is_cause = row.pipeline_name is None
        return is_acknowledged(row, now), *severity_place(row.kind), not is_cause, row.owner_kind, row.opened_at

    overdue: dict[tuple[str, bool], list[OpenProblemRow]] = defaultdict(list)
    for each in sorted(found.overdue, key=lambda each: (is_acknowledged(each, now), each.opened_at)):
        overdue[each.pipeline_name or "", is_acknowledged(each, now)].append(each)
    worst = [row.id for row in sorted(found.others, key=place)[:NEEDS_COUNT]]
    longest = [rows[0].id for rows in overdue.values()][:NEEDS_COUNT]
    loaded = await load_problems_by_id(console.store, [*worst, *longest])
    rows = {row.problem.id.bytes: row for row in loaded}
    return [
        *_problem_needs(console, [rows[id_] for id_ in worst if id_ in rows]),
        *_dead_letter_needs(console, found),
        *_overdue_needs(console, overdue, rows),
        *_gap_needs(found),
    ]


def severity_place(kind: str) -> tuple[int, bool]:
    """Return the sort key of a kind of problem: by severity; among equals overdue executions come last."""
    return severity_of(EventType(kind)).rank, kind == EventType.EXECUTION_OVERDUE


def _problem_needs(console: Console, rows: Sequence[ProblemRow]) -> Iterator[Need]:
    watches = console.watches()
    for row in rows:
        it = problem_view(console, row, watches)
        yield Need(
            kind="problem",
            severity=it.severity,
            title=it.title,
            reason=it.reason,
            since=it.opened_at,
            count=it.count or 1,
            page=f"/problems/{it.id}",
            problems=[it.id],
            acknowledged=it.acknowledged is not None,
            acknowledged_by=it.acknowledged and it.acknowledged.by,
            acknowledged_until=it.acknowledged and it.acknowledged.until,
        )


def _dead_letter_needs(console: Console, found: OverviewRows) -> Iterator[Need]:
    for name, row in found.dead.items():
        if row.late_count:
            is_configured = name in console.settings().sinks
            remedy = "send them again once the receiver works" if is_configured else "no such sink now"
            yield Need(
                kind="dead_letters",
                severity=severity_of(EventType.DELIVERY_DEAD),
                title=f"Sink {name}: {row.late_count:,} dead letter{'s' if row.late_count > 1 else ''}",
                reason=f"last answer: {clean(row.answer or 'none')}; {remedy}",
                since=row.since_at,
                count=row.late_count,
                page=f"/deliveries?state=dead&sink={quote(name)}",
            )


def _overdue_needs(
    console: Console, overdue: Mapping[tuple[str, bool], Sequence[OpenProblemRow]], rows: Mapping[bytes, ProblemRow]
) -> Iterator[Need]:
    """Yield up to two needs per pipeline: one of its acknowledged overdue executions, one of its other overdue ones."""
    for (name, is_acked), problems in overdue.items():
        pipeline, row = console.pipelines.get(name), rows.get(problems[0].id)
        yield Need(
            kind="problem",
            severity=severity_of(EventType.EXECUTION_OVERDUE),
            title=f"{(pipeline and pipeline.name) or name}: {len(problems):,} overdue",
            reason=opening_alert(console, row).dwell if row and row.body else "",
            since=problems[0].opened_at,
            count=len(problems),
            page=f"/pipelines/{name}" if len(problems) > 1 else f"/problems/{UUID(bytes=problems[0].id)}",
            problems=[each.id for each in problems[: models.ACK_COUNT]],
            acknowledged=is_acked,
        )


def _gap_needs(found: OverviewRows) -> Iterator[Need]:
    """Yield one need for the gaps of each pipeline."""
    gaps = defaultdict[str, list[Gap]](list)
    for each in found.gaps:
        gaps[each.pipeline_name].append(each)
    for name, rows in gaps.items():
        newest = Alert.of(json.loads(rows[0].body))
        yield Need(
            kind="gap",
            severity=severity_of(EventType.PIPELINE_GAP),
            title=newest.title,
            reason=clean(newest.error),
            since=rows[-1].recorded_at,
            count=len(rows),
            page=f"/pipelines/{name}",
        )
