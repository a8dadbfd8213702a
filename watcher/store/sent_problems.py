"""Problems of which a sink was sent the opening, and when it was last reminded of each."""

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from sqlalchemy import Connection, bindparam, insert, or_, select, update

from watcher.domain.delivery import DeliveryState
from watcher.domain.event import EventKey
from watcher.domain.timestamps import Micros, from_us
from watcher.store.changes import SourceChange
from watcher.store.problems import PROBLEM_COLUMNS, problem_of
from watcher.store.records import Opening, SentOpening
from watcher.store.source_ids import SourceNumbers, sink
from watcher.store.tables import delivery, event, problem, reminder

_TAKEN = (DeliveryState.DELIVERED, DeliveryState.ACCEPTED)
_SENT = (
    select(
        *PROBLEM_COLUMNS,
        problem.c.closed_at,
        delivery.c.recorded_at,
        delivery.c.settled_at,
        reminder.c.reminded_at,
        event.c.body,
    )
    .select_from(problem)
    .join(
        delivery,
        (delivery.c.stream == problem.c.stream)
        & (delivery.c.sequence == problem.c.sequence)
        & (delivery.c.sink_id == bindparam("of_sink"))
        & delivery.c.state.in_(_TAKEN),
    )
    .join(event, (event.c.stream == problem.c.stream) & (event.c.sequence == problem.c.sequence))
    .outerjoin(reminder, (reminder.c.problem_id == problem.c.id) & (reminder.c.sink_id == delivery.c.sink_id))
    .order_by(problem.c.opened_at, problem.c.id)
)
_OPEN = _SENT.where(problem.c.closed_at.is_(None))
_OPEN_OR_LATE = _SENT.where(or_(problem.c.closed_at.is_(None), problem.c.closed_at >= bindparam("closed_from")))
_OPENING = (
    select(
        problem.c.stream, problem.c.sequence, problem.c.closed_at, delivery.c.state, delivery.c.due_at, delivery.c.tried
    )
    .select_from(problem)
    .outerjoin(
        delivery,
        (delivery.c.stream == problem.c.stream)
        & (delivery.c.sequence == problem.c.sequence)
        & (delivery.c.sink_id == bindparam("of_sink")),
    )
    .where(problem.c.id == bindparam("of_problem"))
)
_REMIND = (
    update(reminder)
    .where(reminder.c.problem_id == bindparam("of_problem"), reminder.c.sink_id == bindparam("of_sink"))
    .values(reminded_at=bindparam("at"))
)
_INSERT = insert(reminder)


def sent_openings(connection: Connection, *, sink_id: int, closed_from: Micros | None) -> Sequence[SentOpening]:
    """Return the open problems of which a sink was sent the opening, and those closed since that moment."""
    key = {"of_sink": sink_id}
    found = (
        connection.execute(_OPEN, key)
        if closed_from is None
        else connection.execute(_OPEN_OR_LATE, key | {"closed_from": closed_from})
    )
    return [
        SentOpening(
            problem=problem_of(row),
            body=row.body,
            recorded_at=row.recorded_at,
            settled_at=row.settled_at,
            reminded_at=row.reminded_at,
            closed_at=None if row.closed_at is None else from_us(row.closed_at),
        )
        for row in found
    ]


def openings(connection: Connection, *, sink_id: int, ids: Collection[UUID]) -> dict[UUID, Opening]:
    """Return how the openings of these problems stand at a sink; problems that are not there are left out."""
    found: dict[UUID, Opening] = {}
    for id_ in ids:
        row = connection.execute(_OPENING, {"of_problem": id_.bytes, "of_sink": sink_id}).one_or_none()
        if row is not None:
            state = None if row.state is None else DeliveryState(row.state)
            due_at = row.due_at if state is DeliveryState.WAITING else None
            key, is_open = EventKey(row.stream, row.sequence), row.closed_at is None
            found[id_] = Opening(key, state, due_at, is_open=is_open, tried=bool(row.tried))
    return found


def write_reminders(connection: Connection, changes: Iterable[SourceChange], *, numbers: SourceNumbers) -> None:
    """Write that sinks were reminded of problems."""
    for change in changes:
        for each in change.reminders:
            sink_id = numbers[sink(change.lease.name)]
            key = {"of_problem": each.problem.bytes, "of_sink": sink_id, "at": each.reminded_at}
            if not connection.execute(_REMIND, key).rowcount:
                row = {"problem_id": each.problem.bytes, "sink_id": sink_id, "reminded_at": each.reminded_at}
                connection.execute(_INSERT, row)
