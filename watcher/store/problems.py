"""Writes problems with the changes that open or close them. Reads problems, and the messages that show them."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert, text

from watcher.domain.delivery import ProblemMessage
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import LatestFailure, Problem, ProblemChange
from watcher.domain.timestamps import from_us, to_us
from watcher.store.changes import About, OpenProblem
from watcher.store.sources import execution_id, pipeline_id
from watcher.store.tables import AnyRow, problem

PAGE_COUNT = 1_000
"""Most problems of one page."""

_INSERT = insert(problem)
WRITE_PROBLEM = text(
    "UPDATE problem SET failed_count = :new_failed_count, latest = :new_latest, closed_at = :new_closed_at"
    " WHERE id = :of_problem AND closed_at IS NULL"
)
LAST_ENDED_AT = (
    "(SELECT max(finished_at) FROM execution WHERE problem.kind = 'pipeline.failing'"
    " AND execution.pipeline_id = problem.pipeline_id"
    " AND finished_at IS NOT NULL AND execution.sequence > 0 AND lost IS NULL)"
)
"""A column for statements on `problem`: when an execution of a failing pipeline last ended. NULL for other kinds.

The conditions have no parameters, because with parameters SQLite would not use the partial index.
"""
SLOWEST_FROM = (
    "(SELECT min(started_at) FROM execution WHERE problem.kind = 'pipeline.slow' AND problem.closed_at IS NULL"
    " AND execution.pipeline_id = problem.pipeline_id AND ended_at IS NULL AND lost IS NULL AND was_paused = false)"
)
"""A column for statements on `problem`: the start of the slowest execution of an open `pipeline.slow`, else NULL.

An execution that was seen paused is never slow.
"""
OPEN_PROBLEMS = "SELECT * FROM problem WHERE source_id = :of_source AND closed_at IS NULL AND {} ORDER BY opened_at"
_OF_SOURCE = text(OPEN_PROBLEMS.format("pipeline_id IS NULL"))


def write_problems(connection: Connection, changes: Iterable[tuple[ProblemChange, About]]) -> None:
    """Write changes of problems, each given with its columns of `About`. A problem that is closed stays as it is."""
    opened: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for change, about in changes:
        if change.is_new:
            new = change.problem
            row = {"id": new.id.bytes, "kind": new.kind, "opened_at": to_us(new.opened_at)}
            stands = {"failed_count": new.failed_count, "latest": _json(new.latest)}
            opened.append({**row, **stands, **new.opening._asdict(), **about})
        else:
            changed.append(parameters_of(change))
    if opened:
        connection.execute(_INSERT, sorted(opened, key=lambda row: row["id"]))
    if changed:  # a stable sort, so that the last change of a problem is written last
        connection.execute(WRITE_PROBLEM, sorted(changed, key=lambda row: row["of_problem"]))


def parameters_of(change: ProblemChange) -> dict[str, Any]:
    """Return the parameters of `WRITE_PROBLEM` for a change."""
    return {
        "of_problem": change.problem.id.bytes,
        "new_failed_count": change.problem.failed_count,
        "new_latest": _json(change.problem.latest),
        "new_closed_at": change.closed_at and to_us(change.closed_at),
    }


def _json(latest: LatestFailure | None) -> str | None:
    return latest and json.dumps(latest._asdict())


def open_problem_of(connection: Connection, *, source_id: int) -> Problem | None:
    """Return the open problem of an account or a sink itself. Each of these has at most one at a time."""
    rows = connection.execute(_OF_SOURCE, {"of_source": source_id}).all()
    return problem_of(rows[0]) if rows else None


_COUNTS = text("SELECT kind, count(*) AS open_count FROM problem WHERE closed_at IS NULL GROUP BY kind")
_PAGE = text(
    "SELECT problem.*, owner.kind AS owner_kind, owner.name AS owner, pipeline.name AS pipeline,"
    " execution.status, execution.overdue_sequence, execution.ended_at"
    " FROM problem JOIN source AS owner ON owner.id = problem.source_id"
    " LEFT JOIN source AS pipeline ON pipeline.id = problem.pipeline_id"
    " LEFT JOIN execution ON execution.account_id = problem.source_id AND execution.execution = problem.execution"
    " WHERE problem.closed_at IS NULL AND problem.id > :after ORDER BY problem.id LIMIT :limit"
)


def count_open_problems(connection: Connection) -> Mapping[EventType, int]:
    """Return the number of open problems of each kind that has any."""
    return {EventType(row.kind): row.open_count for row in connection.execute(_COUNTS)}


def open_problems(connection: Connection, *, after: UUID | None) -> list[OpenProblem]:
    """Return a page of the open problems in the order of ids: those after the id `after`."""
    rows = connection.execute(_PAGE, {"after": b"" if after is None else after.bytes, "limit": PAGE_COUNT})
    return [
        OpenProblem(
            problem_of(row),
            row.owner_kind,
            row.owner,
            row.pipeline and pipeline_id(row.pipeline),
            row.execution and execution_id(row.execution),
            row.status if row.ended_at is None and row.overdue_sequence == row.sequence else None,
            has_ended=row.execution is not None and (row.ended_at is not None or row.status is None),
            event_count=row.event_count,
        )
        for row in rows
    ]


def problem_of(row: AnyRow) -> Problem:
    """Return the problem of a row."""
    return Problem(
        id=UUID(bytes=row.id),
        kind=EventType(row.kind),
        opened_at=from_us(row.opened_at),
        opening=EventKey(row.stream, row.sequence),
        failed_count=row.failed_count,
        latest=row.latest and LatestFailure(**json.loads(row.latest)),
    )


AS_LONG_AS_OPEN = datetime.max.replace(tzinfo=UTC)
"""The end of an acknowledgement that lasts as long as the problem is open."""


def acked_until(row: AnyRow) -> datetime | None:
    """Return the end (wall clock) of a problem's acknowledgement; `None` if the problem is not acknowledged.

    The row has the columns `acked_at` and `acked_until`.
    """
    if row.acked_at is None:
        return None
    return AS_LONG_AS_OPEN if row.acked_until is None else from_us(row.acked_until)


_ITS_MESSAGE = "problem_message.problem_id = :of_problem AND problem_message.sink_id = :of_sink"
# Retention may have deleted the problem: then nothing is written, and nothing fails.
_SAVE_MESSAGE = text(
    "INSERT INTO problem_message (problem_id, sink_id, channel, number)"
    " SELECT id, :of_sink, :channel, :number FROM problem WHERE id = :of_problem"
    " ON CONFLICT (problem_id, sink_id) DO UPDATE SET channel = excluded.channel, number = excluded.number"
)
_DELETE_MESSAGE = text(f"DELETE FROM problem_message WHERE {_ITS_MESSAGE}")
_MESSAGES = (
    "SELECT problem_message.problem_id, channel, number, body FROM problem_message"
    " JOIN problem ON problem.id = problem_message.problem_id"
    " LEFT JOIN event ON event.stream = problem.stream AND event.sequence = problem.sequence"
)
MESSAGE_OF_PROBLEM = text(f"{_MESSAGES} WHERE {_ITS_MESSAGE}")
MESSAGE_OF_FAILING = text(
    f"{_MESSAGES} JOIN source ON source.id = problem.pipeline_id WHERE source.kind = 'pipeline'"
    " AND source.name = :of_pipeline AND problem.kind = 'pipeline.failing' AND problem.execution IS NULL"
    " AND problem.closed_at IS NULL AND problem_message.sink_id = :of_sink LIMIT 1"
)


def write_messages(connection: Connection, sink_id: int, messages: Iterable[ProblemMessage]) -> None:
    """Write the places of messages at a sink, in this order. A place that is `None` deletes the stored one."""
    for message in messages:
        key = {"of_problem": message.problem.bytes, "of_sink": sink_id}
        if message.place is None:
            connection.execute(_DELETE_MESSAGE, key)
        else:
            connection.execute(_SAVE_MESSAGE, key | {"channel": message.place.channel, "number": message.place.number})
