"""Problems as they are recorded: written with the change that opens or closes them, and read by their owners."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, insert, select, update

from watcher.domain.models import EventKey, EventType
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.timestamps import from_us, to_us
from watcher.store.leases import expect_written
from watcher.store.row_mapping import AnyRow
from watcher.store.tables import problem

PROBLEM_COLUMNS = (
    problem.c.id,
    problem.c.kind,
    problem.c.opened_at,
    problem.c.failed_count,
    problem.c.stream,
    problem.c.sequence,
)
"""What `problem_of` reads."""

_INSERT = insert(problem)
_UPDATE = (
    update(problem)
    .where(problem.c.id == bindparam("of_problem"), problem.c.closed_at.is_(None))
    .values(failed_count=bindparam("new_failed_count"), closed_at=bindparam("new_closed_at"))
)
_OPEN = (
    select(*PROBLEM_COLUMNS)
    .where(problem.c.source_id == bindparam("of_source"), problem.c.closed_at.is_(None))
    .order_by(problem.c.opened_at)
)
_OF_SOURCE = _OPEN.where(problem.c.pipeline_id.is_(None))
_OF_PIPELINE = _OPEN.where(problem.c.pipeline_id == bindparam("of_pipeline"), problem.c.execution.is_(None))


def write_problems(connection: Connection, changes: Iterable[tuple[ProblemChange, dict[str, Any]]]) -> None:
    """Write what becomes of problems, each with the `source_id`, `pipeline_id` and `execution` it is about.

    Raises `SequenceConflictError` where one that is counted on or closed is not open.
    """
    opened: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for change, about in changes:
        if change.is_new:
            opened.append(_row(change.problem) | about)
        else:
            closed_at = None if change.closed_at is None else to_us(change.closed_at)
            key = {"of_problem": change.problem.id.bytes}
            changed.append(key | {"new_failed_count": change.problem.failed_count, "new_closed_at": closed_at})
    if opened:
        connection.execute(_INSERT, sorted(opened, key=lambda row: row["id"]))
    if changed:  # stable, so that of one problem's changes the last stays
        written = connection.execute(_UPDATE, sorted(changed, key=lambda row: row["of_problem"]))
        expect_written(written.rowcount, wanted=len(changed))


def _row(opened: Problem) -> dict[str, Any]:
    return {
        "id": opened.id.bytes,
        "kind": opened.kind,
        "opened_at": to_us(opened.opened_at),
        "failed_count": opened.failed_count,
        "stream": opened.opening.stream,
        "sequence": opened.opening.sequence,
    }


def open_problem_of(connection: Connection, *, source_id: int) -> Problem | None:
    """Return the open problem of an account or a sink itself, which has one at a time."""
    rows = connection.execute(_OF_SOURCE, {"of_source": source_id}).all()
    return problem_of(rows[0]) if rows else None


def open_problems_of_pipeline(connection: Connection, *, account_id: int, pipeline_id: int) -> Sequence[Problem]:
    """Return the open problems of a pipeline itself, its executions' aside."""
    rows = connection.execute(_OF_PIPELINE, {"of_source": account_id, "of_pipeline": pipeline_id})
    return [problem_of(row) for row in rows]


def problem_of(row: AnyRow) -> Problem:
    """Return a row that has `PROBLEM_COLUMNS`."""
    return Problem(
        id=UUID(bytes=row.id),
        kind=EventType(row.kind),
        opened_at=from_us(row.opened_at),
        opening=EventKey(row.stream, row.sequence),
        failed_count=row.failed_count,
    )
