"""Where the messages of problems are in a sink that updates and answers them: one of each problem."""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Connection, String, bindparam, delete, insert, select, update

from watcher.domain.delivery import MessagePlace, ProblemMessage
from watcher.domain.event import EventType
from watcher.store.changes import AttemptRecords
from watcher.store.row_mapping import AnyRow
from watcher.store.source_ids import Source, SourceNumbers, pipeline, sink
from watcher.store.tables import event, problem, problem_message, source

_OF_SINK = (
    problem_message.c.problem_id == bindparam("of_problem"),
    problem_message.c.sink_id == bindparam("of_sink"),
)
_MOVE = (
    update(problem_message)
    .where(*_OF_SINK)
    .values(channel=bindparam("new_channel", type_=String), number=bindparam("new_number", type_=String))
)
# A problem that retention has taken by now has no message: the write must not fail for it.
_KEEP = insert(problem_message).from_select(
    ["problem_id", "sink_id", "channel", "number"],
    select(
        problem.c.id,
        bindparam("of_sink", type_=BigInteger),
        bindparam("new_channel", type_=String),
        bindparam("new_number", type_=String),
    ).where(problem.c.id == bindparam("of_problem")),
)
_FORGET = delete(problem_message).where(*_OF_SINK)
_MESSAGES = (
    select(problem_message.c.problem_id, problem_message.c.channel, problem_message.c.number, event.c.body)
    .join(problem, problem.c.id == problem_message.c.problem_id)
    .outerjoin(event, (event.c.stream == problem.c.stream) & (event.c.sequence == problem.c.sequence))
)
_OF_PROBLEM = _MESSAGES.where(*_OF_SINK)
_FAILING = (
    _MESSAGES.join(source, source.c.id == problem.c.pipeline_id)
    .where(
        source.c.kind == "pipeline",
        source.c.name == bindparam("of_pipeline"),
        problem.c.kind == EventType.PIPELINE_FAILING,
        problem.c.execution.is_(None),
        problem.c.closed_at.is_(None),
        problem_message.c.sink_id == bindparam("of_sink"),
    )
    .limit(1)
)


def write_messages(connection: Connection, records: Iterable[AttemptRecords], *, numbers: SourceNumbers) -> None:
    """Write where messages are by now, in this order."""
    for of_sink in records:
        for message in of_sink.messages:
            key = {"of_problem": message.problem.bytes, "of_sink": numbers[sink(of_sink.lease.name)]}
            if message.place is None:
                connection.execute(_FORGET, key)
                continue
            row = key | {"new_channel": message.place.channel, "new_number": message.place.number}
            if not connection.execute(_MOVE, row).rowcount:
                connection.execute(_KEEP, row)


def messages_of_problems(connection: Connection, *, sink_id: int, ids: Collection[UUID]) -> dict[UUID, ProblemMessage]:
    """Return the messages of these problems in a sink, of those that have one."""
    rows = (_one(connection, _OF_PROBLEM, {"of_problem": id_.bytes, "of_sink": sink_id}) for id_ in ids)
    return {message.problem: message for row in rows if (message := _message_of(row)) is not None}


def messages_of_failing(
    connection: Connection, *, sink_id: int, pipelines: Collection[tuple[str, str]]
) -> dict[tuple[str, str], ProblemMessage]:
    """Return the messages of the problem that a pipeline keeps failing, by account and pipeline, while it is open."""
    found: dict[tuple[str, str], ProblemMessage] = {}
    for account, pipeline_id in pipelines:
        of_pipeline: Source = pipeline(account, pipeline_id)
        row = _one(connection, _FAILING, {"of_pipeline": of_pipeline.name, "of_sink": sink_id})
        if (message := _message_of(row)) is not None:
            found[account, pipeline_id] = message
    return found


def _one(connection: Connection, statement: Any, key: dict[str, Any]) -> AnyRow | None:
    return connection.execute(statement, key).one_or_none()


def _message_of(row: AnyRow | None) -> ProblemMessage | None:
    if row is None:
        return None
    return ProblemMessage(UUID(bytes=row.problem_id), MessagePlace(row.channel, row.number), row.body)
