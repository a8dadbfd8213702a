"""Problems: written with the change that opens or closes them, read by their owners, and how each stands at a sink."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Connection, String, bindparam, delete, func, insert, or_, select, update

from watcher.domain.delivery import DeliveryState, MessagePlace, ProblemMessage
from watcher.domain.event import EventKey, EventType, OutboxEntry
from watcher.domain.problems import Problem, ProblemChange
from watcher.domain.timestamps import Micros, from_us, to_us
from watcher.store.changes import About, Emitted
from watcher.store.records import OpenProblem, SentOpening
from watcher.store.sources import execution_id, pipeline, pipeline_id
from watcher.store.tables import AnyRow, delivery, event, execution, opens, problem, problem_message, reminder, source

PROBLEM_COLUMNS = (
    problem.c.id,
    problem.c.kind,
    problem.c.opened_at,
    problem.c.failed_count,
    problem.c.stream,
    problem.c.sequence,
)
"""What `problem_of` reads."""

PAGE_COUNT = 1_000
"""Problems of one page."""

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


def write_problems(connection: Connection, changes: Iterable[tuple[ProblemChange, About]]) -> None:
    """Write what becomes of problems, each with the `source_id`, `pipeline_id` and `execution` it is about.

    Of one that is closed by now nothing is written: what watched for it may have been removed meanwhile.
    """
    opened: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for change, about in changes:
        if change.is_new:
            new = change.problem
            row = {"id": new.id.bytes, "kind": new.kind, "opened_at": to_us(new.opened_at)}
            opened.append({**row, "failed_count": new.failed_count, **new.opening._asdict(), **about})
        else:
            closed_at = None if change.closed_at is None else to_us(change.closed_at)
            key = {"of_problem": change.problem.id.bytes}
            changed.append(key | {"new_failed_count": change.problem.failed_count, "new_closed_at": closed_at})
    if opened:
        connection.execute(_INSERT, sorted(opened, key=lambda row: row["id"]))
    if changed:  # stable, so that of one problem's changes the last stays
        connection.execute(_UPDATE, sorted(changed, key=lambda row: row["of_problem"]))


def open_problem_of(connection: Connection, *, source_id: int) -> Problem | None:
    """Return the open problem of an account or a sink itself, which has one at a time."""
    rows = connection.execute(_OF_SOURCE, {"of_source": source_id}).all()
    return problem_of(rows[0]) if rows else None


def open_problems_of_pipeline(connection: Connection, *, account_id: int, pipeline_id: int) -> Sequence[Problem]:
    """Return the open problems of a pipeline itself, its executions' aside."""
    rows = connection.execute(_OF_PIPELINE, {"of_source": account_id, "of_pipeline": pipeline_id})
    return [problem_of(row) for row in rows]


_COUNTS = select(problem.c.kind, func.count().label("open_count")).where(problem.c.closed_at.is_(None)).group_by("kind")
_owner = source.alias("owner")
_pipeline = source.alias("pipeline")
_PAGE = (
    select(
        *PROBLEM_COLUMNS,
        problem.c.execution,
        problem.c.told_count,
        _owner.c.kind.label("owner_kind"),
        _owner.c.name.label("owner"),
        _pipeline.c.name.label("pipeline"),
        execution.c.status,
        execution.c.overdue_sequence,
        execution.c.ended_at,
    )
    .join(_owner, _owner.c.id == problem.c.source_id)
    .outerjoin(_pipeline, _pipeline.c.id == problem.c.pipeline_id)
    .outerjoin(
        execution,
        (execution.c.account_id == problem.c.source_id) & (execution.c.execution == problem.c.execution),
    )
    .where(problem.c.closed_at.is_(None), problem.c.id > bindparam("after"))
    .order_by(problem.c.id)
    .limit(PAGE_COUNT)
)
_CLOSE = (
    update(problem)
    .where(problem.c.id == bindparam("of_problem"), problem.c.closed_at.is_(None))
    .values(closed_at=bindparam("new_closed_at"))
)
_ABOUT = select(
    problem.c.id.label("of_problem"),
    problem.c.source_id.label("of_source"),
    problem.c.pipeline_id,
    problem.c.execution.label("of_execution"),
    problem.c.sequence.label("of_sequence"),
).where(problem.c.id == bindparam("of_problem"))
_END_OVERDUE = (
    update(execution)
    .where(
        execution.c.account_id == bindparam("of_source"),
        execution.c.execution == bindparam("of_execution"),
        execution.c.overdue_sequence == bindparam("of_sequence"),
    )
    .values(overdue_sequence=None, overdue_at=None)
)
_END_STATE = (
    update(source)
    .where(
        source.c.id == bindparam("of_source"),
        select(problem.c.id).where(problem.c.id == bindparam("of_problem"), problem.c.closed_at.is_(None)).exists(),
    )
    .values(state=None)
)


def count_open_problems(connection: Connection) -> Mapping[EventType, int]:
    """Return how many problems are open, by kind, of kinds that have any."""
    return {EventType(row.kind): row.open_count for row in connection.execute(_COUNTS)}


def open_problems(connection: Connection, *, after: UUID | None) -> list[OpenProblem]:
    """Return a page of the open problems."""
    rows = connection.execute(_PAGE, {"after": b"" if after is None else after.bytes})
    return [
        OpenProblem(
            problem_of(row),
            row.owner_kind,
            row.owner,
            row.pipeline and pipeline_id(row.pipeline),
            row.execution and execution_id(row.execution),
            row.status if row.ended_at is None and row.overdue_sequence == row.sequence else None,
            has_ended=row.execution is not None and (row.ended_at is not None or row.status is None),
            told_count=row.told_count,
        )
        for row in rows
    ]


def close_problems(connection: Connection, closings: Iterable[tuple[OutboxEntry, ProblemChange]]) -> list[Emitted]:
    """Close problems, but those that are closed by now; return the events of those that were not.

    Nothing says any more that they are open: what it was about may get into another one, if it is watched for again.
    """
    by_id = sorted(closings, key=lambda closing: closing[1].problem.id.bytes)
    abouts = [
        connection.execute(_ABOUT, {"of_problem": change.problem.id.bytes}).one()._asdict() for _, change in by_id
    ]
    # Written as their owners do it, so that none waits in a circle: executions, then accounts and sinks, each in order,
    # then their problems.
    overdue = [each for each in abouts if each["of_execution"] is not None]
    for about in sorted(overdue, key=itemgetter("of_source", "of_execution")):
        connection.execute(_END_OVERDUE, about)
    of_sources = [each for each in abouts if each["of_execution"] is None and each["pipeline_id"] is None]
    for about in sorted(of_sources, key=itemgetter("of_source")):
        connection.execute(_END_STATE, about)
    emitted: list[Emitted] = []
    for about, (entry, change) in zip(abouts, by_id, strict=True):
        assert change.closed_at is not None
        if connection.execute(_CLOSE, about | {"new_closed_at": to_us(change.closed_at)}).rowcount:
            columns = {"source_id": about["of_source"], "pipeline_id": about["pipeline_id"], "execution": None}
            emitted.append((entry, columns))  # of no execution: it goes by its own age
    return emitted


def problem_of(row: AnyRow) -> Problem:
    """Return a row that has `PROBLEM_COLUMNS`."""
    return Problem(
        id=UUID(bytes=row.id),
        kind=EventType(row.kind),
        opened_at=from_us(row.opened_at),
        opening=EventKey(row.stream, row.sequence),
        failed_count=row.failed_count,
    )


AS_LONG_AS_OPEN = datetime.max.replace(tzinfo=UTC)
"""Until when nobody is reminded of a problem that somebody took without saying for how long."""


def acked_until(row: AnyRow) -> datetime | None:
    """Return until when nobody is to be reminded of a problem, of a row with those two columns (wall clock)."""
    if row.acked_at is None:
        return None
    return AS_LONG_AS_OPEN if row.acked_until is None else from_us(row.acked_until)


_TAKEN = (DeliveryState.DELIVERED, DeliveryState.ACCEPTED)
_SENT = (
    select(
        *PROBLEM_COLUMNS,
        problem.c.closed_at,
        problem.c.acked_at,
        problem.c.acked_until,
        delivery.c.recorded_at,
        delivery.c.settled_at,
        reminder.c.reminded_at,
        event.c.body,
    )
    .select_from(problem)
    .join(event, opens(event, problem))
    .join(
        delivery,
        (delivery.c.number == event.c.id) & (delivery.c.sink_id == bindparam("of_sink")) & delivery.c.state.in_(_TAKEN),
    )
    .outerjoin(reminder, (reminder.c.problem_id == problem.c.id) & (reminder.c.sink_id == delivery.c.sink_id))
    .order_by(problem.c.opened_at, problem.c.id, event.c.sequence)
)
_SENT_OPEN = _SENT.where(problem.c.closed_at.is_(None))
_OPEN_OR_LATE = _SENT.where(or_(problem.c.closed_at.is_(None), problem.c.closed_at >= bindparam("closed_from")))
_REMIND = (
    update(reminder)
    .where(reminder.c.problem_id == bindparam("of_problem"), reminder.c.sink_id == bindparam("of_sink"))
    .values(reminded_at=bindparam("at"))
)
_BEGIN_REMINDING = insert(reminder)


def sent_openings(connection: Connection, sink_id: int, *, closed_from: Micros | None) -> Sequence[SentOpening]:
    """Return the last opening that a sink was sent of each problem that is open, or was closed since that moment."""
    statement = _SENT_OPEN if closed_from is None else _OPEN_OR_LATE
    last = {row.id: row for row in connection.execute(statement, {"of_sink": sink_id, "closed_from": closed_from})}
    return [
        SentOpening(
            problem=problem_of(row),
            body=row.body,
            recorded_at=row.recorded_at,
            settled_at=row.settled_at,
            reminded_at=row.reminded_at,
            closed_at=None if row.closed_at is None else from_us(row.closed_at),
            acked_until=acked_until(row),
        )
        for row in last.values()
    ]


def write_reminders(connection: Connection, sink_id: int, reminders: Mapping[UUID, Micros]) -> None:
    """Write of which problems a sink was reminded, and for which moment."""
    for problem_id, reminded_at in reminders.items():
        key = {"of_problem": problem_id.bytes, "of_sink": sink_id, "at": reminded_at}
        if not connection.execute(_REMIND, key).rowcount:
            row = {"problem_id": problem_id.bytes, "sink_id": sink_id, "reminded_at": reminded_at}
            connection.execute(_BEGIN_REMINDING, row)


_ITS_MESSAGE = (
    problem_message.c.problem_id == bindparam("of_problem"),
    problem_message.c.sink_id == bindparam("of_sink"),
)
_MOVE = (
    update(problem_message)
    .where(*_ITS_MESSAGE)
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
_FORGET = delete(problem_message).where(*_ITS_MESSAGE)
_MESSAGES = (
    select(problem_message.c.problem_id, problem_message.c.channel, problem_message.c.number, event.c.body)
    .join(problem, problem.c.id == problem_message.c.problem_id)
    .outerjoin(event, (event.c.stream == problem.c.stream) & (event.c.sequence == problem.c.sequence))
)
_MESSAGE = _MESSAGES.where(*_ITS_MESSAGE)
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


def write_messages(connection: Connection, sink_id: int, messages: Iterable[ProblemMessage]) -> None:
    """Write where messages of a sink are by now, in this order."""
    for message in messages:
        key = {"of_problem": message.problem.bytes, "of_sink": sink_id}
        if message.place is None:
            connection.execute(_FORGET, key)
            continue
        row = key | {"new_channel": message.place.channel, "new_number": message.place.number}
        if not connection.execute(_MOVE, row).rowcount:
            connection.execute(_KEEP, row)


def message_of_problem(connection: Connection, sink_id: int, problem_id: UUID) -> ProblemMessage | None:
    """Return the message of a problem in a sink, if it has one."""
    return _message_of(connection.execute(_MESSAGE, {"of_problem": problem_id.bytes, "of_sink": sink_id}).one_or_none())


def message_of_failing(
    connection: Connection, sink_id: int, account: str | None, pipeline_id: str | None
) -> ProblemMessage | None:
    """Return the message of the problem that a pipeline keeps failing, while it is open."""
    if account is None or pipeline_id is None:
        return None
    key = {"of_pipeline": pipeline(account, pipeline_id).name, "of_sink": sink_id}
    return _message_of(connection.execute(_FAILING, key).one_or_none())


def _message_of(row: AnyRow | None) -> ProblemMessage | None:
    if row is None:
        return None
    return ProblemMessage(UUID(bytes=row.problem_id), MessagePlace(row.channel, row.number), row.body)
